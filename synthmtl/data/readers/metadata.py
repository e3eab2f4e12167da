"""``metadata.csv`` and ``metadata.jsonl`` of image folders: reading the rows, and turning them into label columns.

A row names a file (``file_name``) and any of ``expression`` or ``label``, ``compound`` (a name of
``labels.COMPOUND_EXPRESSIONS``), ``split``, ``subject``, ``session``, ``domain``, ``valence``, ``arousal``, action
units (``AU1``, ``AU12``, ...; intensity in [0, 1]), landmarks (jsonl: a list of 68 ``[x, y]``; csv: ``x0, y0, ...,
x67, y67``; in [0, 1] of the upright image), ``synthetic``, ``weight``, ``expression_distribution`` (jsonl:
{expression: share}) or ``ferplus_<expression>`` votes. Every other column whose values are all numbers becomes an
attribute, and so does one of words (``gender``, ``ethnicity``, an age group) of which there are at most 64, some of
them more than once. ``source_file``, by which edits follow their photograph into a split, is always one, of words, even
if each is there once. An empty cell, ``null``, ``nan`` or ``NA`` is a missing label. Columns may be spelled otherwise,
see ``readers.columns``.
"""

import csv
import io
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthmtl.data.readers.columns import (
    LABEL_KEYS,
    NAMED_KEYS,
    SOURCE_KEY,
    VOTE_PREFIX,
    cell,
    known_key,
    meanings,
    refuse_repeats,
)
from synthmtl.data.table import coded_words
from synthmtl.errors import InputError
from synthmtl.labels import (
    ACTION_UNITS,
    COMPOUND_EXPRESSIONS,
    EXPRESSIONS,
    canonical_compound,
    canonical_expression,
)

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
LANDMARK_KEYS = tuple(f"{axis}{point}" for point in range(68) for axis in "xy")
MAX_WORDS = 64
"""Different words up to which a column of text is an attribute."""

logger = logging.getLogger("synthmtl")
Complain = Callable[[str], None]
_LARGEST = float(np.finfo(np.float32).max)
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def raise_input_error(message: str) -> None:
    """The strict way to complain: every wrong label ends the reading."""
    raise InputError(message)


@dataclass(frozen=True)
class Record:
    """One row of a metadata file: its values by column name, and where it stands."""

    values: dict[str, Any]
    file: str
    line: int

    @property
    def where(self) -> str:
        """``file:line``, for messages."""
        return f"{self.file}:{self.line}"

    def get(self, key: str) -> Any:
        """The value, or None when it is missing (absent, empty, ``null``, ``nan``, ``NA``: ``columns.MISSING``)."""
        return cell(self.values.get(key))

    def expression(self) -> str | None:
        """The canonical expression of the row, None when it has none.

        Raises:
            InputError: if the name is unknown, or ``expression`` and ``label`` differ.
        """
        found = {}
        for key in LABEL_KEYS:
            if (value := self.get(key)) is not None:
                found[key] = canonical_expression(value)
                if found[key] is None:
                    raise InputError(
                        f"{self.where}: unknown {key} {value!r}: use one of {', '.join(EXPRESSIONS)}, or an alias"
                    )
        if len(set(found.values())) > 1:
            raise InputError(f"{self.where}: expression {self.get('expression')!r} but label {self.get('label')!r}")
        return next(iter(found.values()), None)


def parse_metadata(data: bytes, file: str) -> list[Record]:
    """The rows of a metadata file, under the known names of its columns; ``file`` (its name) tells csv from jsonl.

    Raises:
        InputError: if the file is no text, a line is broken, two columns mean the same, or a row has no ``file_name``.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8 text: save it as UTF-8") from None
    records = with_known_keys(_jsonl(text, file) if file.endswith(".jsonl") else _csv(text, file))
    for record in records:
        if not isinstance(record.get("file_name"), str):
            raise InputError(f"{record.where}: no file_name: name the image that this row describes")
    return records


def with_known_keys(records: list[Record], *, usage: bool = True) -> list[Record]:
    """The rows of one table, whose columns may be spelled differently, with values under the known names.

    Args:
        records: the rows.
        usage: whether a column ``Usage`` may tell the split.

    Raises:
        InputError: if two columns of a row mean the same.
    """
    names = meanings([record.values for record in records], usage=usage)
    for key, known in names.items():
        logger.info("%s: read column %r as %r", records[0].file, key, known)
    return [_renamed(record, names) for record in records] if names else records


def _renamed(record: Record, names: Mapping[str, str]) -> Record:
    values = {names.get(key, key): value for key, value in record.values.items()}
    if len(values) < len(record.values):
        refuse_repeats(record.values, names, record.where)
    return Record(values, record.file, record.line)


def _csv(text: str, file: str) -> list[Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    refuse_repeats(header, {}, f"{file}:1")
    if "file_name" not in map(known_key, header):
        raise InputError(f"{file}:1: no column file_name: name the images' column so")
    records = []
    try:
        for row in reader:
            if None in row or None in row.values():
                have = len(header)
                raise InputError(f"{file}:{reader.line_num}: the row does not have {have} cells as the header: mend it")
            records.append(Record(row, file, reader.line_num))
    except csv.Error as error:
        raise InputError(f"{file}:{reader.line_num + 1}: broken csv ({error}): mend this line") from None
    return records


def _jsonl(text: str, file: str) -> list[Record]:
    records = []
    for line, row in enumerate(text.split("\n"), 1):
        if not row.strip():
            continue
        try:
            values = json.loads(row)
        except (ValueError, RecursionError) as error:  # also numbers too long and brackets too deep for Python
            reason = getattr(error, "msg", error)
            raise InputError(f"{file}:{line}: broken JSON ({reason}): mend this line") from None
        if not isinstance(values, dict):
            raise InputError(f"{file}:{line}: not a JSON object: write one {{...}} a line")
        records.append(Record(values, file, line))
    return records


def label_columns(records: Sequence[Record | None], classes: Sequence[str], complain: Complain) -> dict[str, Any]:
    """Columns of a :class:`~synthmtl.data.table.FaceTable` (all but images, expression and files) from N rows.

    Args:
        records: one row a face, None for a face without.
        classes: K expressions, the columns of ``expression_distribution``.
        complain: called with a message for each wrong value, which then counts as missing.

    Returns:
        Keyword arguments for ``FaceTable``; subjects and sessions that are not all whole numbers are numbered in the
        sorted order of their names.
    """
    columns: dict[str, Any] = {}
    present = {key for record in records if record is not None for key in record.values}
    for key in ("subject", "session"):
        if key in present:
            columns[key] = numbered([r and r.get(key) for r in records])
    if "compound" in present:
        columns["compound"] = torch.tensor([_compound(r, complain) for r in records], dtype=torch.int64)
    if {"valence", "arousal"} & present:
        pair = [_numbers(records, key, -1, 1, "scale it to [-1, 1]", complain) for key in ("valence", "arousal")]
        columns["valence_arousal"] = torch.from_numpy(np.stack(pair, 1))
    units = {key: unit for key in sorted(present) if (unit := _action_unit(key))}
    if units:
        columns["action_units"] = _intensities(records, units, complain)
    flat_landmarks = set(LANDMARK_KEYS) <= present and "x68" not in present
    if "landmarks" in present or flat_landmarks:
        columns["landmarks"] = _landmarks(records, complain)
    if "weight" in present:
        weight = _numbers(records, "weight", 0, math.inf, "use a finite number from 0 up", complain)
        columns["weight"] = torch.from_numpy(np.nan_to_num(weight, nan=1.0))
    if "domain" in present:
        domain = _numbers(records, "domain", 0, 2**20, "use a whole number from 0 up", complain)
        columns["domain"] = torch.from_numpy(np.nan_to_num(domain)).long()
    if "synthetic" in present:
        columns["synthetic"] = torch.tensor([_truth(r, "synthetic", complain) for r in records], dtype=torch.bool)
    if "expression_distribution" in present or any(key.startswith(VOTE_PREFIX) for key in present):
        columns["expression_distribution"] = _distributions(records, classes, complain)
    taken = {*NAMED_KEYS, *units, *(LANDMARK_KEYS if flat_landmarks else ())}
    others = sorted(key for key in present - taken if not key.startswith(VOTE_PREFIX))
    columns["attributes"], columns["words"] = {}, {}
    for key in others:
        if key != SOURCE_KEY and (numbers := _attribute(records, key)) is not None:  # a file called 7 is no number
            columns["attributes"][key] = numbers
        elif (texts := _texts(records, key)) is not None:
            columns["attributes"][key], columns["words"][key] = coded_words(texts)
    return columns


def distribution(shares: dict[str, float], classes: Sequence[str]) -> list[float]:
    """Votes or shares by expression → K shares over ``classes`` that sum to 1; NaN when no vote is for one of them.

    Shares that name no expression but those of ``classes`` and sum to 1 stay as they are to the bit.
    """
    row = [float(shares.get(name, 0.0)) for name in classes]
    total = sum(row)
    if total <= 0:
        return [math.nan] * len(row)
    return row if abs(total - 1) < 1e-5 else [value / total for value in row]


def _action_unit(key: str) -> str | None:
    match = re.fullmatch(r"AU[_ ]?0*(\d+)", key, re.IGNORECASE)
    unit = f"AU{match.group(1)}" if match else None
    return unit if unit in ACTION_UNITS else None


def _intensities(records: Sequence[Record | None], units: Mapping[str, str], complain: Complain) -> Tensor:
    """(N, A) action units; ``units`` tells the unit of each column, of which several may spell it differently."""
    values = np.full((len(records), len(ACTION_UNITS)), np.nan, np.float32)
    for unit in dict.fromkeys(units.values()):
        keys = [key for key in units if units[key] == unit]
        cure = "scale intensities to [0, 1] (0-5 scales: divide by 5)"
        given = [_numbers(records, key, 0, 1, cure, complain, _unit_number) for key in keys]
        low, high = np.fmin.reduce(given), np.fmax.reduce(given)
        values[:, ACTION_UNITS.index(unit)] = np.where(low < high, np.nan, high)
        for record, differ in zip(records, low < high, strict=True):
            if record is not None and differ:
                told = ", ".join(f"{key} is {record.get(key)}" for key in keys)
                complain(f"{record.where}: {told}, which are one action unit: correct or empty one of them")
    return torch.from_numpy(values)


def _number(value: Any) -> float | None:
    """The number that a cell holds, NaN when it is missing, None when it holds something else."""
    if value is None:
        return math.nan
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) <= _LARGEST else None


def _unit_number(value: Any) -> float | None:
    """As :func:`_number`, of an action unit, which is there or not where it is true or false."""
    word = str(value).lower()
    return float(word == "true") if word in ("true", "false") else _number(value)


def _numbers(
    records: Sequence[Record | None],
    key: str,
    low: float,
    high: float,
    cure: str,
    complain: Complain,
    read: Callable[[Any], float | None] = _number,
) -> np.ndarray:
    column = np.full(len(records), np.nan, np.float32)
    for i, record in enumerate(records):
        if record is None:
            continue
        value = record.get(key)
        number = read(value)
        if number is None or number < low or number > high:
            complain(f"{record.where}: {key} is {value!r}: {cure}")
        else:
            column[i] = number
    return column


def _truth(record: Record | None, key: str, complain: Complain) -> bool:
    if record is None or (value := record.get(key)) is None:
        return False
    if str(value).lower() not in _TRUTH:
        complain(f"{record.where}: {key} is {value!r}: write true or false")
    return _TRUTH.get(str(value).lower(), False)


def _compound(record: Record | None, complain: Complain) -> int:
    if record is None or (value := record.get("compound")) is None:
        return -1
    name = canonical_compound(value)
    if name is None:
        complain(f"{record.where}: unknown compound {value!r}: use one of {', '.join(COMPOUND_EXPRESSIONS)}")
        return -1
    return COMPOUND_EXPRESSIONS.index(name)


def numbered(names: Sequence[Any]) -> Tensor:
    """Numbers of names, -1 for None and for -1 itself; whole numbers in plain decimal form keep their value.

    ``1.0`` is ``1``: tables of numbers write it so where another cell of the column is missing.
    """
    texts = ["-1" if name is None else re.sub(r"^(-?(?:0|[1-9]\d*))\.0*$", r"\1", str(name).strip()) for name in names]
    known = sorted(set(texts) - {"-1"})
    plain = all(re.fullmatch(r"0|[1-9]\d{0,17}", text) for text in known)
    numbers = {"-1": -1} | {text: int(text) if plain else i for i, text in enumerate(known)}
    return torch.tensor([numbers[text] for text in texts], dtype=torch.int64)


def _landmarks(records: Sequence[Record | None], complain: Complain) -> Tensor:
    points = np.full((len(records), 68, 2), np.nan, np.float32)
    for i, record in enumerate(records):
        if record is None:
            continue
        value = record.get("landmarks")
        if value is None and LANDMARK_KEYS[0] in record.values:
            value = [[record.get(f"x{point}"), record.get(f"y{point}")] for point in range(68)]
        if value is None:
            continue
        try:
            row = np.array(json.loads(value) if isinstance(value, str) else value, dtype=np.float32)
        except (TypeError, ValueError):
            row = np.empty(0, np.float32)
        if row.shape != (68, 2):
            complain(f"{record.where}: landmarks must be 68 pairs [x, y] of numbers")
        elif np.isinf(row).any() or np.nanmax(np.abs(row), initial=0) > 2:  # a little outside the image is fine
            complain(f"{record.where}: landmarks must be in [0, 1] of the image: divide pixels by width and height")
        else:
            points[i] = row
    return torch.from_numpy(points)


def _distributions(records: Sequence[Record | None], classes: Sequence[str], complain: Complain) -> Tensor:
    rows = torch.full((len(records), len(classes)), math.nan)
    for i, record in enumerate(records):
        if record is None:
            continue
        key = "expression_distribution"
        shares = record.get(key)
        if shares is None:
            key = f"{VOTE_PREFIX}* votes"
            votes = {name: record.get(VOTE_PREFIX + name) for name in EXPRESSIONS}
            shares = {name: value for name, value in votes.items() if value is not None}
        numbers = (
            {k: _number(v) for k, v in shares.items() if v is not None} if isinstance(shares, dict) else {"": None}
        )
        good = {k: v for k, v in numbers.items() if k in EXPRESSIONS and v is not None and v >= 0}
        if len(good) < len(numbers):
            complain(f"{record.where}: {key} must give numbers from 0 up by expression")
        else:
            rows[i] = torch.tensor(distribution(good, classes))
    return rows


def _attribute(records: Sequence[Record | None], key: str) -> Tensor | None:
    """A column of numbers, or None when some value is no number (text, such as a person's country) or all miss."""
    numbers = [_number(record.get(key) if record is not None else None) for record in records]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or all(map(math.isnan, known)):
        return None
    texts = (record.values.get(key) for record in records if record is not None)
    if any(isinstance(text, str) and re.match(r"0\d", text.strip()) for text in texts):  # "007" is a name
        return None
    return torch.tensor(known, dtype=torch.float32)


def _texts(records: Sequence[Record | None], key: str) -> list[str | None] | None:
    """A column of words; None if it is none, or each is there once, as names of files are, or they are too many.

    Names of sources are kept in any case: without them nobody can tell whose edit a face is.
    """
    values = [record.get(key) if record is not None else None for record in records]
    if not all(value is None or isinstance(value, (str, int, float)) for value in values):
        return None
    texts = [None if value is None else str(value) for value in values]
    known = [text for text in texts if text is not None]
    few = len(set(known)) <= MAX_WORDS and len(set(known)) < len(known)
    return texts if known and (few or key == SOURCE_KEY) else None
