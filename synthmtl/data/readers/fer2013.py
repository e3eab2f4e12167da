"""FER2013's csv files (Goodfellow et al., "Challenges in Representation Learning", 2013), with FER+ votes if wanted.

``fer2013.csv`` (``emotion,pixels,Usage``), ``icml_face_data.csv`` (``emotion, Usage, pixels``, with these spaces), and
the competition's ``train.csv`` (``emotion,pixels``: all training) and ``test.csv`` (``pixels``: no labels).

FER+: Barsoum et al., "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution",
2016; its row n describes row n of FER2013.
"""

import csv
import logging
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synthmtl.data.images import IMAGE_SUFFIXES, square_pixels
from synthmtl.data.readers.image_folder import by_split, canonical_split
from synthmtl.data.readers.metadata import Complain, distribution, raise_input_error
from synthmtl.data.sources import Source
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS, FER2013_CODES, ordered_classes

logger = logging.getLogger("synthmtl")
SIDE = 48
FERPLUS_RULES = ("distribution", "majority", "drop-unknown")
"""What becomes of FER+ votes; see :func:`read_fer2013`."""

_HEADER = ("emotion", "pixels", "Usage")
_USAGES = {_HEADER: "", _HEADER[:2]: "Training", _HEADER[1:2]: "PrivateTest"}  # the columns of a file → all its rows
_NO_FACE = ("unknown", "NF")


@dataclass(frozen=True)
class Row:
    """A good row of FER2013: its number from 0 among all rows, line, code (None = not labelled), (48, 48) uint8 pixels
    and usage."""

    number: int
    line: int
    code: int | None
    pixels: np.ndarray
    usage: str


@dataclass(frozen=True)
class _Votes:
    line: int
    usage: str
    shares: dict[str, float]

    def best(self) -> str | None:
        """What has more than half of the votes; None if nothing has."""
        name = max(self.shares, key=self.shares.__getitem__)
        return name if 2 * self.shares[name] > sum(self.shares.values()) else None

    def no_face(self) -> bool:
        """Whether no expression has more votes than "unknown" or "no face"."""
        return max(self.shares[name] for name in EXPRESSIONS) <= max(self.shares.get(name, 0.0) for name in _NO_FACE)


def read_fer2013(
    file: str | Path,
    *,
    ferplus: str | Path | None = None,
    ferplus_rule: str = "distribution",
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """FER2013: Training → train, PublicTest → validation, PrivateTest → test.

    Args:
        file: ``fer2013.csv`` or one of its relatives; 48x48 gray levels a row.
        ferplus: ``fer2013new.csv``, whose row n describes row n of the file.
        ferplus_rule: ``distribution`` keeps FER2013's label and makes the votes ``expression_distribution`` (shares
            among the classes read; NaN where no vote is for one of them), which the cross-entropy then learns from.
            ``drop-unknown`` does so, too, and leaves out faces of which "unknown" or "no face" has as many votes as any
            expression. ``majority`` makes the expression with more than half of all votes the label, contempt among
            them, and leaves out faces for which none has.
        image_size: side of the faces; 48 keeps the pixels to the bit.
        channels: 1, or 3 for three equal channels.
        classes: read only these expressions; None = those found.
        on_bad: ``error`` stops at the first bad row, ``skip`` logs it and goes on.

    Returns:
        A table for each split that has rows, all over the same classes.

    Raises:
        InputError: naming file and line of a row with a wrong code, usage or number of pixels; if the two files do
            not belong together; if the rule is unknown; if no row is left.
    """
    if on_bad not in ("error", "skip"):
        raise InputError(f"on_bad must be error or skip, not {on_bad!r}")
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (gray) or 3 (RGB), not {channels}")

    def warn(message: str) -> None:
        logger.warning("left out: %s", message)

    rows = list(fer2013_rows(file, raise_input_error if on_bad == "error" else warn))
    return fer2013_tables(
        rows,
        file,
        ferplus=ferplus,
        ferplus_rule=ferplus_rule,
        image_size=image_size,
        channels=channels,
        classes=classes,
    )


def fer2013_tables(
    rows: Sequence[Row],
    file: str | Path,
    *,
    ferplus: str | Path | None,
    ferplus_rule: str = "distribution",
    image_size: int,
    channels: int,
    classes: Sequence[str] | None,
) -> dict[str, FaceTable]:
    """Tables of rows that :func:`fer2013_rows` gave; arguments and errors as for :func:`read_fer2013`."""
    if ferplus_rule not in FERPLUS_RULES:
        raise InputError(f"unknown rule {ferplus_rule!r} for FER+: use one of {', '.join(FERPLUS_RULES)}")
    names = {row.number: None if row.code is None else FER2013_CODES[row.code] for row in rows}
    votes = None
    if ferplus is not None:
        votes = _votes(Path(ferplus), Path(file))
        for row in rows:
            if votes[row.number].usage != row.usage:
                where = f"{ferplus}:{votes[row.number].line}"
                raise InputError(f"{where}: Usage differs from {file}:{row.line}: give the votes of this file")
        rows, names = _by_rule(rows, names, votes, ferplus_rule)
    found = ordered_classes({name for name in names.values() if name is not None})
    classes = found if classes is None else ordered_classes(classes)
    rows = [row for row in rows if names[row.number] in (None, *classes)]
    if not rows:
        raise InputError(f"{file}: no faces found: give a csv with rows of emotion,pixels,Usage")
    pixels = np.stack([row.pixels for row in rows])[:, None]
    if image_size != SIDE:
        pixels = np.stack([square_pixels(Image.fromarray(face[0]), image_size, 1) for face in pixels])
    table = FaceTable(
        images=torch.from_numpy(pixels).repeat(1, channels, 1, 1),
        classes=classes,
        expression=torch.tensor([-1 if (n := names[row.number]) is None else classes.index(n) for row in rows]),
        files=[f"{file}:{row.line}" for row in rows],
    )
    if votes is not None and ferplus_rule != "majority":
        shares = [distribution(votes[row.number].shares, classes) for row in rows]
        table = table.replace(expression_distribution=torch.tensor(shares))
    splits = {row.usage: split for row in rows if (split := canonical_split(row.usage))}
    return by_split(table, [splits[row.usage] for row in rows], exclude=set())


def _by_rule(
    rows: Sequence[Row], names: dict[int, str | None], votes: Sequence[_Votes], rule: str
) -> tuple[list[Row], dict[int, str | None]]:
    """The rows that a rule keeps, and the labels that it gives them."""
    if rule == "distribution":
        return list(rows), names
    if rule == "majority":
        names = {row.number: votes[row.number].best() for row in rows}
        kept = [row for row in rows if names[row.number] in EXPRESSIONS]
    else:
        kept = [row for row in rows if not votes[row.number].no_face()]
    if len(kept) < len(rows):
        logger.info("left out %d of %d faces by the FER+ rule %s", len(rows) - len(kept), len(rows), rule)
    return kept, {row.number: names[row.number] for row in kept}


def is_fer2013(file: str | Path) -> bool:
    """Whether the first line of a file is the header of one of FER2013's csv files."""
    return _columns(Path(file)) is not None


def wrapped_csv(path: Path) -> str | None:
    """The name of FER2013's csv in a folder or zip that has no picture; None without one, and for everything else.

    Pictures are looked for only beside such a csv: walking a large folder takes long.
    """
    if path.is_dir():
        csvs = [file.relative_to(path).as_posix() for pattern in ("*.csv", "*/*.csv") for file in path.glob(pattern)]
        if not any(is_fer2013(path / name) for name in csvs if (path / name).is_file()):
            return None
    elif not zipfile.is_zipfile(path):
        return None
    with Source(path) as source:
        if any(name.lower().endswith(IMAGE_SUFFIXES) for name in source.names):
            return None
        csvs = [name for name in source.names if name.lower().endswith(".csv")]
        found = {name: columns for name in csvs if (columns := _columns_of(source.first_line(name)))}
    return max(found, key=lambda name: len(found[name]), default=None)


def _columns(file: Path) -> tuple[str, ...] | None:
    """The columns of a file, one of those in ``_USAGES``; None if it has others."""
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return _columns_of(stream.readline())


def _columns_of(header: str) -> tuple[str, ...] | None:
    cells = {cell.strip().strip('"') for cell in header.split(",")}
    return next((columns for columns in _USAGES if set(columns) == cells), None)


def fer2013_rows(file: str | Path, complain: Complain) -> Iterator[Row]:
    """The good rows of FER2013's csv; ``complain`` is told of each bad one.

    Raises:
        InputError: if the file is missing or has another header, and through ``complain``.
    """
    columns = (_columns(Path(file)) if Path(file).is_file() else None) or _HEADER
    for number, (line, row) in enumerate(_table(Path(file), columns)):
        code, text, usage = row.get("emotion"), row["pixels"], row.get("Usage", _USAGES[columns])
        if code is not None and code not in {str(i) for i in range(len(FER2013_CODES))}:
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
            yield Row(
                number, line, None if code is None else int(code), pixels.astype(np.uint8).reshape(SIDE, SIDE), usage
            )


def _votes(file: Path, partner: Path) -> list[_Votes]:
    """All rows of FER+."""
    votes = []
    for line, row in _table(file, ("Usage", *EXPRESSIONS), optional=_NO_FACE):
        numbers = {}
        for name in row.keys() - {"Usage"}:
            try:
                numbers[name] = float(row[name])
            except ValueError:
                numbers[name] = math.nan
            if not 0 <= numbers[name] < math.inf:
                raise InputError(f"{file}:{line}: {name} is {row[name]!r}: give a number of votes")
        votes.append(_Votes(line, row["Usage"], numbers))
    lines = sum(1 for _ in _table(partner, ("pixels",)))
    if len(votes) != lines:
        raise InputError(f"{file}: {len(votes)} rows for the {lines} of {partner}: give the votes of this file")
    return votes


def _table(file: Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row of a csv that must have ``columns`` and may have ``optional`` ones."""
    if not file.is_file():
        raise InputError(f"{file}: no such file: check the path")
    with file.open(newline="", encoding="utf-8-sig") as stream:
        try:
            reader = csv.DictReader(stream, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            columns = (*columns, *(name for name in optional if name in reader.fieldnames))
            absent = [name for name in columns if name not in reader.fieldnames]
            if absent:
                raise InputError(f"{file}:1: no column {absent[0]!r}: the header must have {','.join(columns)}")
            for row in reader:
                yield reader.line_num, {name: (row[name] or "").strip() for name in columns}
        except UnicodeDecodeError:
            raise InputError(f"{file}: not UTF-8 text: give FER2013's official csv") from None
        except csv.Error as error:
            raise InputError(f"{file}:{reader.line_num + 1}: broken csv ({error}): mend this line") from None
