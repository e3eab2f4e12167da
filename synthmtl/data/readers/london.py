"""The Face Research Lab London Set (DeBruine, Jones, 2017, CC BY 4.0): 102 adults, neutral and smiling, from the front.

The layout is that of an image folder with a table of template points beside it::

    neutral/<subject>.jpg   happiness/<subject>.jpg
    metadata.csv            file_name,subject,expression,age,gender,ethnicity
    landmarks.csv           file_name,x0,y0,...,x188,y188 in pixels of the picture, origin top left

The 189 points are those of the Psychomorph / WebMorph template. :data:`POINTS` maps them to the 68 of 300-W (Sagonas et
al., 2013); left and right are the image's. Where 300-W has a point between template points, the weights place it, on
the average of the set's neutral faces, about where the average face of 300-W has it.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synthmtl.data.images import central_square
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.readers.published import complainer, csv_rows, data_root
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

TEMPLATE_POINTS = 189
COLUMNS = ("file_name", *(f"{axis}{point}" for point in range(TEMPLATE_POINTS) for axis in "xy"))
"""Header of ``landmarks.csv``."""

POINTS = {
    # Brows, along their upper edge from the outer end to the middle of the inner end. The template's upper edge is
    # 71-75 and 78-82, the inner ends are between 75 and 76 and between 77 and 78.
    17: {71: 1.0}, 18: {72: 0.65, 73: 0.35}, 19: {73: 0.5, 74: 0.5}, 20: {74: 0.6, 75: 0.4}, 21: {75: 0.5, 76: 0.5},
    22: {77: 0.5, 78: 0.5}, 23: {79: 0.6, 78: 0.4}, 24: {79: 0.5, 80: 0.5}, 25: {81: 0.65, 80: 0.35}, 26: {82: 1.0},
    # Ridge of the nose, in the middle between pairs of points on its two sides (50 | 56 at the root ... 54 | 60 beside
    # the tip), and its tip, a quarter of the way from 54 | 60 to the base of the septum.
    27: {50: 0.175, 56: 0.175, 51: 0.325, 57: 0.325}, 28: {52: 0.5, 58: 0.5},
    29: {53: 0.4, 59: 0.4, 54: 0.1, 60: 0.1}, 30: {54: 0.375, 60: 0.375, 55: 0.25},
    # Base of the nose: between the wing's lower end and the nostril's outer corner; between the nostril's lower rim and
    # the septum; the base of the septum.
    31: {63: 0.5, 65: 0.5}, 32: {64: 0.5, 180: 0.5}, 33: {55: 1.0}, 34: {69: 0.5, 181: 0.5}, 35: {68: 0.5, 70: 0.5},
    # Eyes: the corners; on each lid, points at a third and two thirds of the eye's width. The template's lids are
    # 18-22 and 23-27 above, 28-30 and 31-33 below, with the middle at 20, 25, 29 and 32.
    36: {18: 1.0}, 37: {19: 0.6, 20: 0.4}, 38: {21: 0.75, 20: 0.25}, 39: {22: 1.0},
    40: {30: 0.75, 29: 0.25}, 41: {28: 0.6, 29: 0.4},
    42: {23: 1.0}, 43: {24: 0.75, 25: 0.25}, 44: {26: 0.6, 25: 0.4}, 45: {27: 1.0},
    46: {33: 0.6, 32: 0.4}, 47: {31: 0.75, 32: 0.25},
    # Outer border of the lips, the upper from corner to corner, the lower back.
    48: {87: 1.0}, 49: {88: 1.0}, 50: {89: 1.0}, 51: {90: 1.0}, 52: {91: 1.0}, 53: {92: 1.0}, 54: {93: 1.0},
    55: {108: 1.0}, 56: {107: 0.8, 106: 0.2}, 57: {106: 1.0}, 58: {105: 0.8, 106: 0.2}, 59: {104: 1.0},
    # Inner border; its corners lie between the outer corners and the next points inward on the two lips.
    60: {87: 0.6, 94: 0.2, 99: 0.2}, 61: {95: 1.0}, 62: {96: 1.0}, 63: {97: 1.0},
    64: {93: 0.6, 98: 0.2, 103: 0.2}, 65: {102: 1.0}, 66: {101: 1.0}, 67: {100: 1.0},
}  # fmt: skip
"""300-W's points 17-67 as weighted means of template points; 0-16 are steps along :data:`OUTLINE`."""

OUTLINE = (
    (134, 109, 185, 110, 186, 111, 125, 126, 127, 128, 129),
    (144, 112, 187, 113, 188, 114, 133, 132, 131, 130, 129),
)
"""Template points of the face's outline, left and right, from the temple along the ear and the jaw to the chin.

300-W's points 0-8 and 16-8 divide each side, from the height of the eyes' corners to the chin, into eight equal steps.
The template's points of the outline cannot be taken themselves: where they lie depends on where the ear ends.
"""

_EYE_CORNERS = (18, 27)


def to_300w(points: np.ndarray) -> np.ndarray:
    """The 68 points of 300-W from the template points of one face.

    Args:
        points: (189, 2) in pixels, y down; NaN = missing.

    Returns:
        (68, 2) in pixels; NaN where a template point that is needed is missing.
    """
    mapped = np.full((68, 2), np.nan)
    for index, weights in POINTS.items():
        mapped[index] = np.array(list(weights.values())) @ points[list(weights)]
    left, right = points[list(_EYE_CORNERS)]
    for side, order in zip(OUTLINE, (slice(0, 9), slice(16, 7, -1)), strict=True):
        mapped[order] = _steps(points[list(side)], left, right)
    return mapped


def _steps(outline: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(9, 2) equal steps along an outline, from where it first goes below the line through two points to its end."""
    x, y = right - left
    below = (outline - left) @ np.array([-y, x])
    if np.isnan(below).any():
        return np.full((9, 2), np.nan)
    first = int(np.argmax(below > 0))
    if first > 0:
        share = below[first - 1] / (below[first - 1] - below[first])
        crossing = outline[first - 1] + share * (outline[first] - outline[first - 1])
        outline = np.concatenate([crossing[None], outline[first:]])
    lengths = np.concatenate([[0.0], np.linalg.norm(np.diff(outline, axis=0), axis=1).cumsum()])
    places = np.linspace(0.0, lengths[-1], 9)
    return np.stack([np.interp(places, lengths, outline[:, axis]) for axis in (0, 1)], 1)


def is_london(path: str | Path) -> bool:
    """Whether a folder has a ``landmarks.csv`` of 189 template points beside its pictures."""
    table = Path(path) / "landmarks.csv"
    if not table.is_file():
        return False
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        return tuple(next(csv.reader(stream), ())) == COLUMNS


def read_london(
    path: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """All faces of the London set, with landmarks where template points are given, subjects and ages.

    Args:
        path: the folder.
        image_size, channels, classes, on_bad: as for ``read_image_folder``.

    Returns:
        One table under ``all``. The prepared set has template points for its neutral faces only: smiling ones have no
        landmarks. Ages, where known, are the attribute ``age``.

    Raises:
        InputError: as the reader of image folders, or if ``landmarks.csv`` is not what the layout says.
    """
    root = data_root(path)
    complain = complainer(on_bad)
    template = _template(root / "landmarks.csv")
    tables = read_image_folder(root, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad)
    for name, (line, _) in template.items():
        if not (root / name).is_file():
            complain(f"{root / 'landmarks.csv'}:{line}: no image {root / name}: delete the row or add the image")
    return {split: table.replace(landmarks=_landmarks(root, table.files, template)) for split, table in tables.items()}


def _landmarks(root: Path, files: Sequence[str], template: dict[str, tuple[int, np.ndarray]]) -> torch.Tensor:
    """(N, 68, 2) of the files' central squares, which are what is read of a picture."""
    landmarks = torch.full((len(files), 68, 2), math.nan)
    for row, file in enumerate(files):
        _, points = template.get(Path(file).relative_to(root).as_posix(), (0, None))
        if points is None:
            continue
        with Image.open(file) as image:
            left, top, right, _ = central_square(*image.size)
        landmarks[row] = torch.from_numpy((to_300w(points) - (left, top)) / (right - left))
    return landmarks


def _template(table: Path) -> dict[str, tuple[int, np.ndarray]]:
    """Line and (189, 2) template points in pixels by file name."""
    template = {}
    for line, row in csv_rows(table):
        if tuple(row) != COLUMNS:
            raise InputError(
                f"{table}:1: its columns are not file_name, x0, y0, ..., x{TEMPLATE_POINTS - 1}, "
                f"y{TEMPLATE_POINTS - 1}: give the set's {TEMPLATE_POINTS} template points"
            )
        try:
            numbers = [float(row[column] or "nan") for column in COLUMNS[1:]]
        except ValueError as error:
            raise InputError(f"{table}:{line}: {error}: give pixels as numbers, or nothing where missing") from None
        template[row["file_name"]] = line, np.array(numbers).reshape(TEMPLATE_POINTS, 2)
    return template
