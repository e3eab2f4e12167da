"""The faces of a system's recipe: splits by data set, and the mixture that a row of the table trains on."""

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator

from synthmtl.data import FaceTable
from synthmtl.data.load import load_splits
from synthmtl.data.mixture import describe, join, usable_labels
from synthmtl.errors import InputError
from synthmtl.faces import RenderConfig, render_faces, split_configs
from synthmtl.labels import ordered_classes
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
        notes: what the reader of the table must know.
        progress: show the progress of trainings.
    """

    config: SystemOptions
    out: Path
    accelerator: Accelerator
    train: dict[str, FaceTable]
    scored: dict[str, FaceTable]
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
    """Read or render every data set.

    Raises:
        InputError: if a data set cannot be read, or lacks a split that is to be scored.
    """
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
    job = SystemJob(
        options,
        out,
        accelerator,
        {name: table.with_classes(classes) for name, table in train.items()},
        {name: table.with_classes(classes) for name, table in scored.items()},
    )
    for note in notes:
        job.note(note)
    job.note(f"Training faces and their labels: {describe(job.train)}.")
    if options.preset == "smoke":
        job.note("Smoke preset: it proves the installation, its numbers mean nothing.")
    return job


def read_tables_of(job: SystemJob) -> dict[str, FaceTable]:
    """Faces that were read from a disk, by ``DATA`` for training and ``DATA/SPLIT``; not those that were rendered."""
    sources = job.config.data
    return {
        name: table
        for name, table in (job.train | job.scored).items()
        if sources[name if name in sources else name.rpartition("/")[0]].path is not None
    }


def read_source(source: Source, options: SystemOptions) -> tuple[dict[str, FaceTable], list[str]]:
    """The splits of one data set and what was decided on the way."""
    channels = 3 if options.color else 1
    if source.path is not None:
        splits = load_splits(
            source.path,
            image_size=options.image_size,
            channels=channels,
            split_seed=source.split_seed,
            on_bad=source.on_bad_image,
            format=source.format,
            every=source.every,
            peaks=source.peaks,
            require_expression=False,
            on_leak=source.on_leak,
        )
        return splits.tables(), splits.notes
    base = RenderConfig(image_size=options.image_size, channels=channels, seed=source.render_seed, style=source.style)
    sizes = dict(zip(("train_subjects", "validation_subjects", "test_subjects"), source.subjects, strict=True))
    held_out = source.held_out_per_class
    configs = split_configs(source.per_class, held_out, held_out, config=base, **sizes)
    compound = {"train": source.compound_per_class}
    for name in ("validation", "test"):
        compound[name] = held_out if source.compound_per_class else 0
    tables = {
        name: render_faces(dataclasses.replace(config, compound_counts=compound[name]))
        for name, config in configs.items()
    }
    return tables, []


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
    chosen = {name: job.train[name] for name in options.sources or job.train if name in job.train}
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
    """(N,) bool: which faces carry any label of ``task``."""
    column = getattr(table, task)
    return column >= 0 if column.dtype == torch.int64 else ~column.isnan().flatten(1).all(1)
