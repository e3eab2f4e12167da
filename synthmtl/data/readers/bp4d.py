"""BP4D-Spontaneous: occurrence of action units in videos of 41 people at eight tasks.

Zhang, Yin, Cohn, Canavan, Reale, Horowitz, Liu, Girard, "BP4D-Spontaneous: a high-resolution spontaneous 3D dynamic
facial expression database", Image and Vision Computing 32(10), 2014. Layout::

    AUCoding/F001_T1.csv                header: frame column, then the numbers of action units; 0, 1, or 9 = unknown
    BP4D-training/F001/T1/2440.jpg      or 2D+3D/..., Sequences(2D+3D)/..., or F001/T1/ at the root

The codes may also lie in ``AUCoding/AU_OCC/`` or ``AU_OCC/``; frames are numbered with or without leading zeros.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    Annotation,
    code,
    complainer,
    csv_rows,
    data_root,
    face_tables,
    first_folder,
    frame_files,
    one_row_each,
    relative,
    unit_name,
    unit_row,
    visible_files,
)
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

LAYOUT = "give the folder of AUCoding/F001_T1.csv, ... and BP4D-training/F001/T1/"
_CODE_FOLDERS = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
_IMAGE_FOLDERS = ("BP4D-training", "2D+3D", "Sequences(2D+3D)", "")
_VALUES = {"0": 0.0, "1": 1.0, "9": math.nan}


def read_bp4d(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
    every: int = 1,
) -> dict[str, FaceTable]:
    """BP4D: action units only, present = 1 and absent = 0; subjects are known.

    Args:
        root: the folder.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad rows
            are treated as bad images are.
        every: read only each ``every``-th coded frame of a video, beginning with the first.

    Returns:
        One table, ``all``; the publisher has no split. Action units that are no column of ``labels.ACTION_UNITS`` are
        left out, and faces whose units are all unknown.

    Raises:
        InputError: naming file and line of a row with a wrong code, or whose frame has a row already; if a picture is
            missing or unreadable; if no faces are found.
    """
    root, complain = data_root(root), complainer(on_bad)
    if every < 1:
        raise InputError(f"every must be at least 1, not {every}")
    annotations = one_row_each(_annotations(root, every, complain), complain)
    return face_tables(
        root, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_bp4d(path: Path) -> bool:
    """Whether a folder has BP4D's codes."""
    return path.is_dir() and bool(_code_files(path))


def _code_files(root: Path) -> list[tuple[Path, str, str]]:
    """File, subject and task of each video's codes."""
    folder = first_folder(root, _CODE_FOLDERS)
    files = sorted(visible_files(folder, "*.csv")) if folder else []
    named = ((file, re.fullmatch(r"([FM]\d+)_(T\d+)", file.stem)) for file in files)
    return [(file, match.group(1), match.group(2)) for file, match in named if match]


def _annotations(root: Path, every: int, complain: Complain) -> Iterator[Annotation]:
    for file, subject, task in _code_files(root):
        folder = first_folder(root, [f"{base}/{subject}/{task}".lstrip("/") for base in _IMAGE_FOLDERS])
        folder = folder or root / _IMAGE_FOLDERS[0] / subject / task
        pictures = frame_files(folder)
        for index, (line, row) in enumerate(csv_rows(file, complain=complain)):
            if index % every:
                continue
            where, (number, *cells) = f"{file}:{line}", row.values()
            units = dict(zip(map(unit_name, list(row)[1:]), cells, strict=True))
            frame = code(number)
            wrong = [unit for unit, cell in units.items() if cell not in _VALUES]
            if frame is None:
                complain(f"{where}: {number!r} is no number of a frame: correct the row")
            elif wrong:
                complain(f"{where}: {wrong[0]} is {units[wrong[0]]!r}: use 0, 1, or 9 where it is unknown")
            else:
                name = pictures.get(frame, f"{number}.jpg")
                present = {unit: _VALUES[cell] for unit, cell in units.items()}
                yield Annotation(relative(root, folder / name), where, action_units=unit_row(present), subject=subject)
