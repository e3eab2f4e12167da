"""300-W: 68 landmarks of faces in the wild.

Sagonas, Antonakos, Tzimiropoulos, Zafeiriou, Pantic, "300 Faces In-The-Wild Challenge: database and results", Image and
Vision Computing 47, 2016. Any folder of pictures with a ``.pts`` file of the same name beside each::

    afw/*  helen/{trainset,testset}/*  lfpw/{trainset,testset}/*  ibug/*  300W/{01_Indoor,02_Outdoor}/*

    version: 1
    n_points: 68
    {
    82.5 201.3          x and y of each point in pixels, the center of the first pixel being 1, 1
    ...
    }

Training faces are the usual ones: AFW and the training sets of Helen and LFPW; test faces are the test sets of these
two, iBUG, and those of the challenge.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from synthmtl.data.images import IMAGE_SUFFIXES
from synthmtl.data.readers.image_folder import ALL, canonical_split, is_labelled_folder
from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    POINTS,
    Annotation,
    box_around,
    complainer,
    data_root,
    face_tables,
    points_of,
    relative,
    text_lines,
    visible_files,
)
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

LAYOUT = "give a folder with afw/, helen/, lfpw/, ibug/, or one of these, with a .pts file beside each picture"
_SPLITS = {
    "afw": "train", "trainset": "train", "testset": "test", "ibug": "test", "01_indoor": "test", "02_outdoor": "test",
}  # fmt: skip


def read_300w(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """300-W or a part of it: landmarks only; subjects are unknown.

    Faces are cut out by the square around their points, with a quarter of its side more on every side.

    Args:
        root: the folder.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad
            ``.pts`` files are treated as bad images are.

    Returns:
        ``train`` and ``test``, or ``all`` if no folder's name tells.

    Raises:
        InputError: naming the file that has another number of points, and the line of one that is no point; if a
            picture is missing or unreadable; if some folders tell their split and others do not.
    """
    root, complain = data_root(root), complainer(on_bad)
    faces = list(_annotations(root, complain))
    stray = [face for face in faces if face.split == ALL]
    if stray and len(stray) < len(faces):
        known = ", ".join(_SPLITS)
        raise InputError(f"{stray[0].where}: in no split, though others are: move it below one of {known}, train, test")
    return face_tables(
        root, faces, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_300w(path: Path) -> bool:
    """Whether a folder, or one at most two below it, has a ``.pts`` file, and is no image folder with labels."""
    if not path.is_dir() or not any(next(visible_files(path, f"{level}*.pts"), None) for level in ("", "*/", "*/*/")):
        return False
    return not is_labelled_folder(path)


def read_pts(file: Path) -> np.ndarray:
    """(68, 2) points of a ``.pts`` file in pixels from the picture's upper left corner.

    Raises:
        InputError: if the file is not of that form or has another number of points.
    """
    points, inside = [], False
    for line, text in text_lines(file):
        if text in ("{", "}"):
            inside = text == "{"
        elif inside:
            point = points_of(text.split())
            if point is None or len(point) != 1:
                raise InputError(f"{file}:{line}: {text!r} is no point x y: correct the line")
            points.append(point[0])
    if len(points) != POINTS:
        raise InputError(f"{file}: {len(points)} points instead of {POINTS}: correct or delete the file")
    return np.stack(points) - 0.5


def _annotations(root: Path, complain: Complain) -> Iterator[Annotation]:
    for file in sorted(visible_files(root, "**/*.pts")):
        try:
            points = read_pts(file)
        except InputError as error:
            complain(str(error))
            continue
        suffixes = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))
        image = next((p for s in suffixes if (p := file.with_suffix(s)).is_file()), file.with_suffix(".png"))
        parts = file.parent.relative_to(root).parts
        splits = [_SPLITS.get(part.lower()) or canonical_split(part) for part in parts]
        yield Annotation(
            relative(root, image),
            str(file),
            next((split for split in reversed(splits) if split), ALL),
            landmarks=points,
            box=box_around(points),
        )
