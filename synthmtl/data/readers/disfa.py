"""DISFA: intensities of twelve action units in videos of 27 people.

Mavadati, Mahoor, Bartlett, Trinh, Cohn, "DISFA: A Spontaneous Facial Action Intensity Database", IEEE Transactions on
Affective Computing 4(2), 2013. Layout::

    ActionUnit_Labels/SN001/SN001_au1.txt     frame,intensity a line; intensity 0 to 5
    Images/SN001/00001.png                    frames of the subject's video, with or without leading zeros
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    Annotation,
    code,
    complainer,
    data_root,
    face_tables,
    folders,
    frame_files,
    text_lines,
    unit_name,
    unit_row,
    visible_files,
)
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

LAYOUT = "give the folder of ActionUnit_Labels/<subject>/ and Images/<subject>/"
_LABELS, _IMAGES = "ActionUnit_Labels", "Images"
_STRONGEST = 5


def read_disfa(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
    every: int = 1,
) -> dict[str, FaceTable]:
    """DISFA: action units only, intensity divided by 5; subjects are known.

    Args:
        root: the folder.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad rows
            are treated as bad images are.
        every: read only each ``every``-th frame of a video, beginning with the first.

    Returns:
        One table, ``all``; the publisher has no split.

    Raises:
        InputError: naming file and line of a row with a wrong intensity; if a picture is missing or unreadable; if no
            faces are found.
    """
    root, complain = data_root(root), complainer(on_bad)
    if every < 1:
        raise InputError(f"every must be at least 1, not {every}")
    annotations = _annotations(root, every, complain)
    return face_tables(
        root, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_disfa(path: Path) -> bool:
    """Whether a folder has DISFA's labels."""
    return (path / _LABELS).is_dir()


def _annotations(root: Path, every: int, complain: Complain) -> Iterator[Annotation]:
    for folder in folders(root / _LABELS):
        subject = folder.name
        pictures = frame_files(root / _IMAGES / subject)
        frames: dict[int, dict[str | None, float]] = defaultdict(dict)
        where: dict[int, str] = {}
        for file in sorted(visible_files(folder, "*.txt")):
            unit = re.search(r"au\d+$", file.stem, re.IGNORECASE)
            if unit is None:
                complain(f"{file}: its name does not end in au1, au2, ...: rename or delete it")
                continue
            for line, text in text_lines(file):
                number, *grades = [code(cell) for cell in text.split(",")]
                grade = grades[0] if len(grades) == 1 else None
                intensity = math.nan
                if number is not None and grade is not None and 0 <= grade <= _STRONGEST:
                    intensity = grade / _STRONGEST
                else:
                    complain(f"{file}:{line}: {text!r} is no frame,intensity with 0 to {_STRONGEST}: correct the row")
                if number is not None:
                    where.setdefault(number, f"{file}:{line}")
                    frames[number][unit_name(unit.group())] = intensity
        for frame in sorted(frames)[::every]:
            name = pictures.get(frame, f"{frame:05d}.png")
            yield Annotation(
                f"{_IMAGES}/{subject}/{name}", where[frame], action_units=unit_row(frames[frame]), subject=subject
            )
