"""The faces of a system's recipe: splits by data set, and the mixture that a row of the table trains on."""

import dataclasses
import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from synthmtl.data import FaceTable
from synthmtl.data.leaks import guard
from synthmtl.data.load import load_splits
from synthmtl.data.mixture import describe, join, usable_labels
from synthmtl.errors import InputError
from synthmtl.experiment.workspace import describe_data
from synthmtl.faces import RenderConfig, render_faces, split_configs
from synthmtl.labels import ordered_classes
from synthmtl.losses.expression import carries_expression
from synthmtl.systems.config import Source, SystemOptions

log = logging.getLogger("synthmtl")


@dataclass
class SystemJob:
    """What every row of the table needs.

    Attributes:
        config: options.
        out: the run's folder.
        accelerator: where and in how many processes it runs.
        train: training faces by data set.
        scored: held-out faces by ``DATA/SPLIT``.
        as_read: of training faces that another data set scores, too, what ``describe_data`` says of all that were read.
        notes: what the reader of the table must know.
        progress: show the progress of trainings.
    """

    config: SystemOptions
    out: Path
    accelerator: Accelerator
    train: dict[str, FaceTable]
    scored: dict[str, FaceTable]
    as_read: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    progress: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions of all data sets together."""
        return next(iter(self.scored.values())).classes

    def note(self, text: str) -> None:
        """Log ``text`` and keep it for the results."""
        if text not in self.notes:
            log.info(text)
            self.notes.append(text)


def load_job(options: SystemOptions, out: Path, accelerator: Accelerator) -> SystemJob:
    """Read or render every data set, and leave out of each one's training faces what the others score.

    Raises:
        InputError: if a data set cannot be read, or trains on what another one scores where it must not.
    """
    check_people(options)
    train, scored = {}, {}
    notes: list[str] = []
    for name, source in options.data.items():
        splits, said = read_source(source, options)
        notes.extend(f"{name}: {note}" for note in said)
        if source.train:
            train[name] = keep_labels(splits["train"], source.labels)
        for split in source.score:
            scored[f"{name}/{split}"] = splits[split]
    classes = ordered_classes({c for table in (*train.values(), *scored.values()) for c in table.classes})
    train = {name: table.with_classes(classes) for name, table in train.items()}
    scored = {name: table.with_classes(classes) for name, table in scored.items()}
    kept, said = without_leaks(train, scored, options.data)
    read = {name: table for name, table in train.items() if options.data[name].path is not None}
    as_read = describe_data({name: table for name, table in read.items() if kept[name] is not table})
    job = SystemJob(options, out, accelerator, kept, scored, as_read)
    for note in (*notes, *said):
        job.note(note)
    job.note(f"Training faces and their labels: {describe(job.train)}.")
    if options.preset == "smoke":
        job.note("Smoke preset: it proves the installation, its numbers mean nothing.")
    return job


def check_people(options: SystemOptions) -> None:
    """Stop where a data set trains on rendered people whom another one scores.

    People are functions of ``render_seed`` and their number alone, whatever the style, size and labels of their faces.

    Raises:
        InputError: naming both data sets.
    """
    rendered = {name: render_configs(each, options) for name, each in options.data.items() if each.path is None}
    for name, other in itertools.permutations(rendered, 2):
        source, theirs = options.data[name], options.data[other]
        if not source.train or source.render_seed != theirs.render_seed:
            continue
        for split in held_out(theirs):
            a, b = rendered[name]["train"], rendered[other][split]
            if max(a.subject_offset, b.subject_offset) < min(each.subject_offset + each.subjects for each in (a, b)):
                raise InputError(
                    f"data.{name}: trains on people whom {other}/{split} shows, since both have render_seed "
                    f"{source.render_seed}: give another render_seed to {name} or {other}"
                )


def held_out(source: Source) -> list[str]:
    """The splits of a data set that are scored and not trained on by itself."""
    return [split for split in source.score if split != "train" or not source.train]


def without_leaks(
    train: dict[str, FaceTable], scored: dict[str, FaceTable], data: dict[str, Source]
) -> tuple[dict[str, FaceTable], list[str]]:
    """Training faces of which no other data set scores a look-alike, as each one's ``on_leak`` has it.

    Each data set has been guarded against its own splits as it was read. Subjects of different ones are different
    people, and rendered people have been told apart by :func:`check_people`.

    Args:
        train: training faces by data set.
        scored: faces by ``DATA/SPLIT``, over the same classes.
        data: the data sets.

    Returns:
        The training faces, and notes that name both data sets.

    Raises:
        InputError: as :func:`~synthmtl.data.leaks.guard`.
    """
    kept, notes = dict(train), []
    for name, where in itertools.product(train, scored):
        other, _, split = where.rpartition("/")
        source, theirs = data[name], data[other]
        if other == name or split not in held_out(theirs) or source.path is theirs.path is None:
            continue
        faces = scored[where].replace(subject=torch.full_like(scored[where].subject, -1))
        found, said = guard({"train": kept[name], where: faces}, source.on_leak, f"data.{name}")
        kept[name] = found["train"]
        notes += [f"{name}: {note}" for note in said]
    return kept, notes


def describe_read(job: SystemJob) -> dict[str, dict[str, Any]]:
    """What was read from a disk, by ``DATA`` for training and ``DATA/SPLIT``; nothing of what was rendered.

    Training faces count as they were read, since they are compared with those of the data set by itself.
    """
    sources = job.config.data
    tables = {
        name: table
        for name, table in (job.train | job.scored).items()
        if sources[name if name in sources else name.rpartition("/")[0]].path is not None
    }
    return describe_data(tables) | job.as_read


def read_source(source: Source, options: SystemOptions) -> tuple[dict[str, FaceTable], list[str]]:
    """The splits of one data set and what was decided on the way."""
    if source.path is not None:
        splits = load_splits(
            source.path,
            image_size=options.image_size,
            channels=3 if options.color else 1,
            split_seed=source.split_seed,
            on_bad=source.on_bad_image,
            format=source.format,
            every=source.every,
            peaks=source.peaks,
            require_expression=False,
            on_leak=source.on_leak,
        )
        return splits.tables(), splits.notes
    return {name: render_faces(config) for name, config in render_configs(source, options).items()}, []


def render_configs(source: Source, options: SystemOptions) -> dict[str, RenderConfig]:
    """How the ``train``, ``validation`` and ``test`` faces of a data set without a path are rendered."""
    channels = 3 if options.color else 1
    base = RenderConfig(image_size=options.image_size, channels=channels, seed=source.render_seed, style=source.style)
    sizes = dict(zip(("train_subjects", "validation_subjects", "test_subjects"), source.subjects, strict=True))
    later = source.held_out_per_class
    configs = split_configs(source.per_class, later, later, config=base, **sizes)
    compound = {"train": source.compound_per_class}
    for name in ("validation", "test"):
        compound[name] = later if source.compound_per_class else 0
    return {name: dataclasses.replace(config, compound_counts=compound[name]) for name, config in configs.items()}


def keep_labels(table: FaceTable, tasks: list[str] | None) -> FaceTable:
    """The same faces without the labels of other tasks than ``tasks``; None keeps all."""
    if tasks is None:
        return table
    missing = {}
    for task in usable_labels(table):
        if task not in tasks:
            column = getattr(table, task)
            missing[task] = torch.full_like(column, -1 if column.dtype == torch.int64 else float("nan"))
    if "expression" in missing:
        missing["expression_distribution"] = torch.full_like(table.expression_distribution, float("nan"))
    return table.replace(**missing)


def mixture(job: SystemJob, options: SystemOptions, tasks: tuple[str, ...]) -> tuple[FaceTable, list[str]]:
    """The training faces of one row, faces without a usable label left out, and the names of its data sets.

    Args:
        options: those of the row.
        tasks: of its model.

    Returns:
        The joined faces, whose ``domain`` is the position in the names. A data set none of whose faces can be used is
        not among them.

    Raises:
        InputError: if no face of any data set can be used.
    """
    wanted = job.train if options.sources is None else options.sources
    chosen = {name: job.train[name] for name in wanted if name in job.train}
    if not chosen:
        raise InputError("sources: none of them has training faces (train is false)")
    kept = {}
    for name, table in chosen.items():
        rows = torch.stack([labelled_rows(table, task) for task in tasks])
        rows = rows.all(0) if options.labelled == "all" else rows.any(0)
        if rows.any():
            kept[name] = table.select(rows)
    if not kept:
        how = "all of" if options.labelled == "all" else "any of"
        raise InputError(f"no training face carries {how} the labels of {', '.join(tasks)}: choose other data or tasks")
    return join(kept), list(kept)


def labelled_rows(table: FaceTable, task: str) -> torch.Tensor:
    """(N,) bool: which faces carry any label of ``task``; annotators' shares alone make an expression, too."""
    if task == "expression":
        return carries_expression(table.expression, table.expression_distribution)
    column = getattr(table, task)
    return column >= 0 if column.dtype == torch.int64 else ~column.isnan().flatten(1).all(1)
