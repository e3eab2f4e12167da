"""FER2013's official csv (Goodfellow et al., "Challenges in Representation Learning", 2013), with FER+ votes if wanted.

FER+: Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution",
2016; its row n describes row n of FER2013.
"""

import csv
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synthmtl.data.images import square_pixels
from synthmtl.data.readers.image_folder import by_split, canonical_split
from synthmtl.data.readers.metadata import Complain, distribution, raise_input_error
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS, FER2013_CODES, ordered_classes

logger = logging.getLogger("synthmtl")
SIDE = 48
_HEADER = ("emotion", "pixels", "Usage")


@dataclass(frozen=True)
class Row:
    """A good row of FER2013: its number from 0 among all rows, line, code, (48, 48) uint8 pixels and usage."""

    number: int
    line: int
    code: int
    pixels: np.ndarray
    usage: str


@dataclass(frozen=True)
class _Votes:
    line: int
    usage: str
    shares: dict[str, float]


def read_fer2013(
    file: str | Path,
    *,
    ferplus: str | Path | None = None,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """FER2013 from ``emotion,pixels,Usage``: Training → train, PublicTest → validation, PrivateTest → test.

    Args:
        file: ``fer2013.csv``; 48x48 gray levels a row.
        ferplus: ``fer2013new.csv``; its votes become ``expression_distribution`` (shares among the classes read;
            NaN where no vote is for one of them).
        image_size: side of the faces; 48 keeps the pixels to the bit.
        channels: 1, or 3 for three equal channels.
        classes: read only these expressions; None = those found.
        on_bad: ``error`` stops at the first bad row, ``skip`` logs it and goes on.

    Returns:
        A table for each split that has rows, all over the same classes. ``expression`` is FER2013's label in any case.

    Raises:
        InputError: naming file and line of a row with a wrong code, usage or number of pixels; if the two files do
            not belong together; if no row is left.
    """
    if on_bad not in ("error", "skip"):
        raise InputError(f"on_bad must be error or skip, not {on_bad!r}")
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (gray) or 3 (RGB), not {channels}")

    def warn(message: str) -> None:
        logger.warning("left out: %s", message)

    rows = list(fer2013_rows(file, raise_input_error if on_bad == "error" else warn))
    return fer2013_tables(rows, file, ferplus=ferplus, image_size=image_size, channels=channels, classes=classes)


def fer2013_tables(
    rows: Sequence[Row],
    file: str | Path,
    *,
    ferplus: str | Path | None,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None,
) -> dict[str, FaceTable]:
    """Tables of rows that :func:`fer2013_rows` gave; arguments and errors as for :func:`read_fer2013`."""
    found = ordered_classes({FER2013_CODES[row.code] for row in rows})
    classes = found if classes is None else ordered_classes(classes)
    votes = _votes(Path(ferplus), Path(file)) if ferplus is not None else None
    rows = [row for row in rows if FER2013_CODES[row.code] in classes]
    if not rows:
        raise InputError(f"{file}: no faces found: give a csv with rows of emotion,pixels,Usage")
    pixels = np.stack([row.pixels for row in rows])[:, None]
    if image_size != SIDE:
        pixels = np.stack([square_pixels(Image.fromarray(face[0]), image_size, 1) for face in pixels])
    shares = None
    if votes is not None:
        for row in rows:
            if votes[row.number].usage != row.usage:
                where = f"{ferplus}:{votes[row.number].line}"
                raise InputError(f"{where}: Usage differs from {file}:{row.line}: give the votes of this file")
        shares = torch.tensor([distribution(votes[row.number].shares, classes) for row in rows])
    table = FaceTable(
        images=torch.from_numpy(pixels).repeat(1, channels, 1, 1),
        classes=classes,
        expression=torch.tensor([classes.index(FER2013_CODES[row.code]) for row in rows]),
        expression_distribution=shares,
        files=[f"{file}:{row.line}" for row in rows],
    )
    return by_split(table, [canonical_split(row.usage) for row in rows], exclude=set())


def is_fer2013(file: str | Path) -> bool:
    """Whether the first line of a file is FER2013's header."""
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        return tuple(cell.strip().strip('"') for cell in stream.readline().split(",")) == _HEADER


def fer2013_rows(file: str | Path, complain: Complain) -> Iterator[Row]:
    """The good rows of FER2013's csv; ``complain`` is told of each bad one.

    Raises:
        InputError: if the file is missing or has another header, and through ``complain``.
    """
    for number, (line, row) in enumerate(_table(Path(file), _HEADER)):
        code, text, usage = (row[name] for name in _HEADER)
        if code not in {str(i) for i in range(len(FER2013_CODES))}:
            complain(f"{file}:{line}: emotion is {code!r}: use a code from 0 to {len(FER2013_CODES) - 1}")
            continue
        if canonical_split(usage) is None:
            complain(f"{file}:{line}: Usage is {usage!r}: use Training, PublicTest or PrivateTest")
            continue
        try:
            pixels = np.array(text.split(), dtype=np.int64)
        except (ValueError, OverflowError):
            pixels = np.array([-1])
        if pixels.size and (pixels.min() < 0 or pixels.max() > 255):
            complain(f"{file}:{line}: a pixel is no whole number from 0 to 255: mend or delete the row")
        elif pixels.size != SIDE * SIDE:
            complain(f"{file}:{line}: {pixels.size} pixels instead of {SIDE * SIDE} (48x48): mend or delete the row")
        else:
            yield Row(number, line, int(code), pixels.astype(np.uint8).reshape(SIDE, SIDE), usage)


def _votes(file: Path, partner: Path) -> list[_Votes]:
    """All rows of FER+."""
    votes = []
    for line, row in _table(file, ("Usage", *EXPRESSIONS)):
        numbers = {}
        for name in EXPRESSIONS:
            try:
                numbers[name] = float(row[name])
            except ValueError:
                numbers[name] = math.nan
            if not 0 <= numbers[name] < math.inf:
                raise InputError(f"{file}:{line}: {name} is {row[name]!r}: give a number of votes")
        votes.append(_Votes(line, row["Usage"], numbers))
    lines = sum(1 for _ in _table(partner, _HEADER))
    if len(votes) != lines:
        raise InputError(f"{file}: {len(votes)} rows for the {lines} of {partner}: give the votes of this file")
    return votes


def _table(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row of a csv that must have ``columns``."""
    if not file.is_file():
        raise InputError(f"{file}: no such file: check the path")
    with file.open(newline="", encoding="utf-8-sig") as stream:
        try:
            reader = csv.DictReader(stream, skipinitialspace=True)
            absent = [name for name in columns if name not in (reader.fieldnames or ())]
            if absent:
                raise InputError(f"{file}:1: no column {absent[0]!r}: the header must have {','.join(columns)}")
            for row in reader:
                yield reader.line_num, {name: (row[name] or "").strip() for name in columns}
        except UnicodeDecodeError:
            raise InputError(f"{file}: not UTF-8 text: give FER2013's official csv") from None
        except csv.Error as error:
            raise InputError(f"{file}:{reader.line_num}: broken csv ({error}): mend this line") from None
