"""WFLW: 98 landmarks of faces in the wild, of which 68 are read.

Wu, Qian, Yang, Wang, Cai, Zhou, "Look at Boundary: A Boundary-Aware Face Alignment Algorithm", CVPR 2018. Layout::

    WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt     and ..._test.txt
    WFLW_images/<event>/<picture>.jpg

A line holds 98 x and y in turn, in pixels; the detected box (left, top, right, bottom); six attributes of 0 or 1; and
the picture's path. The lists may also lie at the root or in ``WFLW_annotations``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    Annotation,
    below,
    box_around,
    complainer,
    data_root,
    face_tables,
    leaves_folder,
    points_of,
    relative,
    text_lines,
)
from synthmtl.data.table import FaceTable

LAYOUT = "give the folder of WFLW_annotations/ and WFLW_images/"
WFLW_TO_68 = (
    *range(0, 33, 2),                              # 0-16: the jaw, of which WFLW has twice as many points
    *range(33, 38), *range(42, 47),                # 17-26: the upper edges of the brows; WFLW has the lower ones too
    *range(51, 60),                                # 27-35: the nose
    60, 61, 63, 64, 65, 67,                        # 36-41: an eye's corners and the outer two of three points a lid
    68, 69, 71, 72, 73, 75,                        # 42-47: the other eye
    *range(76, 96),                                # 48-67: the lips, outer and inner edge
)  # fmt: skip
"""WFLW's point for each of the 68.

Both orders go along the same lines in the same sense (jaw from the picture's left to its right, brows and nose bridge
likewise, eyes from their left corner clockwise, lips from their left corner clockwise); only the density differs. Jaw,
nose, lips and the corners of eyes and brows are the same points. On an eyelid WFLW has three points at quarters where
the 68 have two at thirds: the outer two stand for them, off by a twelfth of the lid. Pupils (96, 97), lower edges of
brows and middles of lids have no counterpart.
"""

_LISTS = {"train": "list_98pt_rect_attr_train.txt", "test": "list_98pt_rect_attr_test.txt"}
_LIST_FOLDERS = ("WFLW_annotations/list_98pt_rect_attr_train_test", "WFLW_annotations", "")
_IMAGES = "WFLW_images"
_POINTS, _NUMBERS = 98, 98 * 2 + 4 + 6


def read_wflw(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """WFLW: landmarks only, mapped to the 68 by :data:`WFLW_TO_68`; subjects are unknown.

    Faces are cut out by the square around their points, as those of 300-W
    (:func:`~synthmtl.data.readers.landmarks_300w.read_300w`); a picture with several faces gives several.

    Args:
        root: the folder, or a list in it.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad rows
            are treated as bad images are.

    Returns:
        ``train`` and ``test``.

    Raises:
        InputError: naming file and line of a row with another number of points; if a picture is missing or unreadable;
            if no faces are found.
    """
    root, complain = data_root(root), complainer(on_bad)
    annotations = _annotations(root, complain)
    return face_tables(
        root, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_wflw(path: Path) -> bool:
    """Whether a folder has one of WFLW's lists."""
    return path.is_dir() and bool(_lists(path))


def _lists(root: Path) -> dict[str, Path]:
    files = {split: [root / folder / name for folder in _LIST_FOLDERS] for split, name in _LISTS.items()}
    found = {split: next((file for file in each if file.is_file()), None) for split, each in files.items()}
    return {split: file for split, file in found.items() if file is not None}


def _annotations(root: Path, complain: Complain) -> Iterator[Annotation]:
    for split, file in _lists(root).items():
        for line, text in text_lines(file):
            where, cells = f"{file}:{line}", text.split(maxsplit=_NUMBERS)
            points = points_of(cells[: 2 * _POINTS])
            if len(cells) != _NUMBERS + 1 or points is None:
                have = f"{len(cells)} cells" if len(cells) != _NUMBERS + 1 else "no numbers"
                wanted = f"{_POINTS} points x y, 4 sides, 6 attributes and a path"
                complain(f"{where}: {have} where {wanted} must be: correct the row")
            elif (name := below(cells[-1])) is None:
                complain(leaves_folder(where, cells[-1]))
            else:
                points = points[list(WFLW_TO_68)]
                image = relative(root, root / _IMAGES / name)
                yield Annotation(image, where, split, landmarks=points, box=box_around(points))
