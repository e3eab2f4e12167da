"""One way in for every data set on disk: train, validation and test, with a note on whatever was decided."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from synthmtl.data.fer2013 import is_fer2013, read_fer2013
from synthmtl.data.image_folder import ALL, SPLITS, read_image_folder
from synthmtl.data.splits import SHARES, check_classes, split_by_subject, split_unit
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

logger = logging.getLogger("synthmtl")


@dataclass
class Splits:
    """The three parts of a data set, over the same classes, and what was decided on the way.

    Attributes:
        train, validation, test: none is empty; only ``train`` holds synthesised faces.
        notes: sentences for the log and the report (which parts were split off, which faces left out).
    """

    train: FaceTable
    validation: FaceTable
    test: FaceTable
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions that ``expression`` indexes in every part."""
        return self.train.classes

    def tables(self) -> dict[str, FaceTable]:
        """The parts by name, in the order train, validation, test."""
        return {name: getattr(self, name) for name in SPLITS}


def read_tables(
    path: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
    ferplus: str | Path | None = None,
) -> dict[str, FaceTable]:
    """The tables that a data set has on disk: FER2013's csv, or an image folder or zip; arguments as for these.

    Raises:
        InputError: as the reader, or if the path is neither.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such folder or file: check the path")
    if path.is_dir() or path.suffix.lower() != ".csv":
        if ferplus is not None:
            raise InputError(f"{path}: FER+ votes in a file go with FER2013's csv: give that, or leave the votes out")
        return read_image_folder(path, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad)
    if not is_fer2013(path):
        raise InputError(
            f"{path}:1: not FER2013's csv (its header is emotion,pixels,Usage): give that file or the folder of images"
        )
    return read_fer2013(path, ferplus=ferplus, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad)


def load_splits(
    path: str | Path,
    *,
    image_size: int,
    channels: int,
    split_seed: int = 0,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
    ferplus: str | Path | None = None,
) -> Splits:
    """Train, validation and test of a data set; parts that it lacks are split off its training part.

    Without any split the shares are .70, .15 and .15. A missing validation or test part gets as many faces as the
    other one has, though from 5 to 15 % of the training part. Validation never stands in for test. Splits keep
    subjects together (:func:`~synthmtl.data.splits.split_by_subject`). Faces without an expression stay, masked.

    Args:
        path: image folder, zip of one, or FER2013's csv.
        image_size: side of the faces in pixels.
        channels: 1 for gray, 3 for RGB.
        split_seed: decides the parts that are split off.
        classes: read only these expressions; None = all found.
        on_bad: ``error`` stops at the first bad image, ``skip`` logs it and goes on.
        ferplus: votes beside FER2013's csv.

    Raises:
        InputError: if the data cannot be read, have fewer than two expressions, or the training part has fewer than
            two faces of one.
    """
    tables = read_tables(
        path, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, ferplus=ferplus
    )
    notes = []
    if ALL in tables:
        tables = _split(tables[ALL], SHARES, split_seed, path, notes)
    elif "train" not in tables:
        raise InputError(f"{path}: no train split, only {', '.join(tables)}: name the training folder train")
    for name in SPLITS[1:]:
        if name in tables:
            tables[name] = _without_synthetic(tables[name], name, path, notes)
    check_classes(tables["train"], f"{path}, train")
    absent = [name for name in SPLITS if name not in tables]
    if absent:
        shares = SHARES
        if len(absent) == 1:
            (given,) = (tables[name] for name in SPLITS[1:] if name in tables)
            share = min(max(len(given) / len(tables["train"]), 0.05), 0.15)
            shares = {"train": 1 - share, absent[0]: share}
        tables |= _split(tables["train"], shares, split_seed, path, notes)
    splits = Splits(**{name: tables[name] for name in SPLITS}, notes=notes)
    check_classes(splits.train, f"{path}, train")
    for name, table in splits.tables().items():
        lacking = [c for c, count in table.counts().items() if not count]
        unlabelled = int((table.expression < 0).sum())
        if lacking:
            _say(notes, f"{name} has no faces of {', '.join(lacking)}")
        if unlabelled:
            _say(notes, f"{name} has {unlabelled} faces without an expression, which count in no recognition figure")
    return splits


def _split(table: FaceTable, shares: dict[str, float], seed: int, path: str | Path, notes: list[str]) -> dict:
    real = table.select(~table.synthetic)
    if not len(real):
        raise InputError(f"{path}: all faces are synthesised: add photographs to hold out for validation and test")
    try:
        parts = split_by_subject(real, shares, seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    how = "by subject" if split_unit(real) == "subject" else "by image, look-alikes together (no subject is known)"
    sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    _say(notes, f"split {len(real)} faces {how}, stratified by expression, with seed {seed}: {sizes}")
    if len(real) < len(table):
        parts["train"] = FaceTable.concatenate([parts["train"], table.select(table.synthetic)])
        _say(notes, f"{len(table) - len(real)} synthesised faces stay in train")
    return parts


def _without_synthetic(table: FaceTable, name: str, path: str | Path, notes: list[str]) -> FaceTable:
    count = int(table.synthetic.sum())
    if not count:
        return table
    if count == len(table):
        raise InputError(f"{path}: {name} holds synthesised faces only: put photographs there")
    _say(notes, f"left {count} synthesised faces out of {name}")
    return table.select(~table.synthetic)


def _say(notes: list[str], note: str) -> None:
    notes.append(note)
    logger.info(note)
