"""One way in for every data set on disk: train, validation and test, with a note on whatever was decided."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from synthmtl.data.leaks import OnLeak, check_on_leak, guard
from synthmtl.data.mixture import usable_labels
from synthmtl.data.provenance import may_be_edits_of, sources_of
from synthmtl.data.readers.formats import FORMATS, frame_options, known_format
from synthmtl.data.readers.image_folder import ALL, SPLITS
from synthmtl.data.splits import SHARES, check_classes, split_by_subject, split_unit
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import TASKS

logger = logging.getLogger("synthmtl")


@dataclass
class Splits:
    """The three parts of a data set, over the same classes, and what was decided on the way.

    Attributes:
        train, validation, test: none is empty; only ``train`` holds synthesised faces.
        notes: sentences for the log and the report (which parts were split off, which faces left out).
        split_off: names of the parts that the data do not bring along, and of the one that they were split off.
    """

    train: FaceTable
    validation: FaceTable
    test: FaceTable
    notes: list[str] = field(default_factory=list)
    split_off: tuple[str, ...] = field(default=(), init=False)

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
    ferplus_rule: str = "distribution",
    format: str | None = None,
    every: int = 1,
    peaks: int = 1,
) -> dict[str, FaceTable]:
    """The tables that a data set has on disk: an image folder or zip, FER2013's csv, or a published set's folder.

    Args:
        path: the data set.
        image_size, channels, classes, on_bad, ferplus, ferplus_rule: as for the reader.
        format: one of :data:`~synthmtl.data.readers.formats.FORMATS`; None = detected.
        every, peaks: of videos, see :data:`~synthmtl.data.readers.formats.FRAME_OPTIONS`.

    Raises:
        InputError: as the reader and :func:`~synthmtl.data.readers.formats.known_format`, or if the reader lacks one of
            the options.
    """
    path = Path(path)
    format = known_format(path, format)
    options: dict[str, Any] = {"image_size": image_size, "channels": channels, "classes": classes, "on_bad": on_bad}
    options |= frame_options(path, format, every=every, peaks=peaks)
    if format == "fer2013":
        options |= {"ferplus": ferplus, "ferplus_rule": ferplus_rule}
    elif ferplus is not None:
        raise InputError(f"{path}: FER+ votes in a file go with FER2013's csv: give that, or leave the votes out")
    return FORMATS[format].read(path, **options)


def load_splits(
    path: str | Path,
    *,
    image_size: int,
    channels: int,
    split_seed: int = 0,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
    ferplus: str | Path | None = None,
    ferplus_rule: str = "distribution",
    format: str | None = None,
    every: int = 1,
    peaks: int = 1,
    require_expression: bool = True,
    every_class: bool = True,
    on_leak: OnLeak = "drop",
) -> Splits:
    """Train, validation and test of a data set; parts that it lacks are split off its training part.

    Without any split the shares are .70, .15 and .15. A missing validation or test part gets as many faces as the
    other one has, though from 5 to 15 % of the training part. Validation never stands in for test. Splits keep
    subjects together (:func:`~synthmtl.data.splits.split_by_subject`). Faces without an expression stay, masked.
    Synthesised faces stay in training unless the photograph that they are edits of is in validation or test.

    Args:
        path: image folder, zip of one, FER2013's csv, or a published set's folder.
        image_size: side of the faces in pixels.
        channels: 1 for gray, 3 for RGB.
        split_seed: decides the parts that are split off.
        classes: read only these expressions; None = all found.
        on_bad: ``error`` refuses bad images and lists them, ``skip`` logs them and goes on.
        ferplus, ferplus_rule: votes beside FER2013's csv, and what becomes of them; see ``read_fer2013``.
        format: layout on disk, one of :data:`~synthmtl.data.readers.formats.FORMATS`; None = detected.
        every, peaks: of videos, see :data:`~synthmtl.data.readers.formats.FRAME_OPTIONS`.
        require_expression: False takes data that carry other labels only (landmarks, action units, ...), too.
        every_class: False takes training parts that have one face of a class, or none, e.g. of one that a generator
            learned elsewhere; two classes with faces are required all the same.
        on_leak: what becomes of training faces that have a look-alike in validation or test, or show people who are
            there, and of validation faces with a look-alike in test (:func:`~synthmtl.data.leaks.guard`): ``drop``
            leaves them out, ``warn`` says how many they are, ``error`` stops. Parts are split off before.

    Raises:
        InputError: if the data cannot be read, carry no label at all, or, where expressions are required, have fewer
            than two of them or (unless ``every_class`` is False) a training part with fewer than two faces of one, or
            if ``on_leak`` forbids a leak.
    """
    check_on_leak(on_leak)
    tables = read_tables(
        path,
        image_size=image_size,
        channels=channels,
        classes=classes,
        on_bad=on_bad,
        ferplus=ferplus,
        ferplus_rule=ferplus_rule,
        format=format,
        every=every,
        peaks=peaks,
    )
    needed = {"require_expression": require_expression, "every_class": every_class}
    check = partial(check_classes, every_class=every_class) if require_expression else _check_labels
    notes: list[str] = []
    split_off: tuple[str, ...] = SPLITS if ALL in tables else ()
    if ALL in tables:
        tables = _split(tables[ALL], SHARES, split_seed, path, notes, needed)
    elif "train" not in tables:
        raise InputError(f"{path}: no train split, only {', '.join(tables)}: name the training folder train")
    for name in SPLITS[1:]:
        if name in tables:
            tables[name] = _without_synthetic(tables[name], name, path, notes)
    check(tables["train"], f"{path}, train")
    absent = [name for name in SPLITS if name not in tables]
    if absent:
        shares = SHARES
        if len(absent) == 1:
            (given,) = (tables[name] for name in SPLITS[1:] if name in tables)
            share = min(max(len(given) / len(tables["train"]), 0.05), 0.15)
            shares = {"train": 1 - share, absent[0]: share}
        tables |= _split(tables["train"], shares, split_seed, path, notes, needed)
        split_off = ("train", *absent)
    tables["train"] = without_edits(tables["train"], [tables[name] for name in SPLITS[1:]], notes)
    check(tables["train"], f"{path}, train")
    count = len(tables["train"])
    tables, said = guard({name: tables[name] for name in SPLITS}, on_leak, path, reuse=True)
    if len(tables["train"]) < count:
        check(tables["train"], f"{path}, train without what validation and test show, too (on_leak warn keeps it)")
    notes += said
    splits = Splits(**tables, notes=notes)
    splits.split_off = split_off
    for name, table in splits.tables().items():
        lacking = [c for c, count in table.counts().items() if not count]
        unlabelled = int((table.expression < 0).sum())
        if lacking:
            _say(notes, f"{name} has no faces of {', '.join(lacking)}")
        if unlabelled and table.classes:
            _say(notes, f"{name} has {unlabelled} faces without an expression, which count in no recognition figure")
    return splits


def _split(
    table: FaceTable, shares: dict[str, float], seed: int, path: str | Path, notes: list[str], needed: dict[str, bool]
) -> dict[str, FaceTable]:
    real = table.select(~table.synthetic)
    if not len(real):
        raise InputError(f"{path}: all faces are synthesised: add photographs to hold out for validation and test")
    try:
        parts = split_by_subject(real, shares, seed, reuse=True, **needed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    how = "by subject" if split_unit(real) == "subject" else "by image, look-alikes together (no subject is known)"
    sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    strata = "stratified by expression, " if table.classes else ""
    _say(notes, f"split {len(real)} faces {how}, {strata}with seed {seed}: {sizes}")
    if len(real) < len(table):
        parts["train"] = FaceTable.concatenate([parts["train"], table.select(table.synthetic)])
    return parts


def without_edits(train: FaceTable, held_out: Sequence[FaceTable], notes: list[str]) -> FaceTable:
    """The training faces but those that were edited from a photograph that is held out, or may be for all that is said.

    The pixels of ``train`` may be moved; it is not to be used any more.
    """
    made = torch.where(train.synthetic)[0]
    if not len(made):
        return train
    sources = sources_of(train)
    shown, lost = may_be_edits_of([sources[row] for row in made.tolist()], held_out, [train])
    count, left, unknown = len(made), int(shown.sum()), int(lost.sum())
    _say(notes, f"{count - left} synthesised faces stay in train")
    if unknown:
        named = f"{unknown} of {count} synthesised faces name a photograph that is not among the faces"
        _say(notes, f"{named}: whether it is held out is not known")
    if not left:
        return train
    _say(notes, f"left {left} of {count} synthesised faces out: they are edits of faces that are held out")
    kept = torch.ones(len(train), dtype=torch.bool)
    kept[made[shown]] = False
    return train.select(kept, reuse=True)


def _check_labels(table: FaceTable, what: str) -> None:
    if not any(usable_labels(table).values()):
        raise InputError(f"{what}: no usable label: give faces with one of {', '.join(TASKS)}")


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
