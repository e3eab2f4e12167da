"""The faces of a study: one training split for each nuisance correlation, and people that no split has."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from synthmtl.data import FaceTable
from synthmtl.data.mixture import usable_labels
from synthmtl.data.pairs import EditSampler, edit_mode
from synthmtl.errors import InputError
from synthmtl.experiment.stages import Job, load_data, render_configs
from synthmtl.faces import RenderConfig, counterparts, render_faces
from synthmtl.interference import probe_targets
from synthmtl.labels import EXPRESSIONS
from synthmtl.metrics.multitask import scorable_labels
from synthmtl.study.config import Cell, StudyConfig
from synthmtl.study.tasks import is_editing

_HELD_OUT_SUBJECTS = 160_000
_SESSIONS = 4

UNTOLD = 0
"""The expression that all edits bear where synthesis is told none: a decoder knows no other code then."""


@dataclass(frozen=True)
class HeldOut:
    """Rendered faces of people that no split has, with everything labelled, and their aligned counterparts.

    Attributes:
        faces: (N) sources, balanced over the expressions, nothing going with them.
        targets: (N) true renders of the same persons and sessions with another expression, which they bear as the edits
            of training do (:data:`UNTOLD` where synthesis is told none).
    """

    faces: FaceTable
    targets: FaceTable

    def first(self, count: int) -> "HeldOut":
        """About ``count`` faces, spread evenly over the rows."""
        rows = torch.linspace(0, len(self.faces) - 1, min(count, len(self.faces))).long()
        return HeldOut(self.faces.select(rows), self.targets.select(rows))


@dataclass
class StudyJob(Job):
    """What every cell of a study needs; ``splits.train`` is that of the first correlation.

    Attributes:
        trains: correlation → training faces.
        held_out: faces for synthesis error, gates and probes.
    """

    config: StudyConfig  # type: ignore[assignment]  # what a study runs of the main job reads only what both have
    trains: dict[float, FaceTable] = field(default_factory=dict)
    held_out: HeldOut = field(kw_only=True)

    def tables(self) -> dict[str, FaceTable]:
        """All faces that were read or rendered, by what they are for."""
        trains = {f"train (rho {rho:g})": table for rho, table in self.trains.items()}
        return trains | {"validation": self.splits.validation, "test": self.splits.test}

    def of(self, cell: Cell) -> "StudyJob":
        """The same with the training faces of a cell."""
        return dataclasses.replace(self, splits=dataclasses.replace(self.splits, train=self.trains[cell.condition.rho]))


def load_study(config: StudyConfig, out: Path, accelerator: Accelerator) -> StudyJob:
    """Read or render all faces of a study.

    Raises:
        InputError: if the options do not fit the data.
    """
    faces = dataclasses.replace(config.faces, nuisance_correlation=config.grid.rho[0])
    splits, render = load_data(faces, require_expression="expression" in config.tasks)
    trains = {float(config.grid.rho[0]): splits.train}
    for rho in config.grid.rho[1:]:
        faces = dataclasses.replace(config.faces, nuisance_correlation=rho)
        trains[float(rho)] = render_faces(render_configs(faces)["train"]).with_classes(splits.train.classes)
    fewest = min((count for table in trains.values() for count in table.counts().values() if count), default=0)
    most = max((labels for labels in config.grid.labels_per_class if labels is not None), default=None)
    if most is not None and most > fewest:
        raise InputError(f"--grid.labels_per_class has {most}, but a class has only {fewest} faces")
    editing = is_editing(config.tasks)
    for table in (*trains.values(), splits.test):
        check_labels(config, table)
    check_scores(config, splits.test, "test")
    if editing:  # by validation the weights are selected; heads keep the last ones
        check_scores(config, splits.validation, "validation")
    modes = {drawn_mode(config.synthesis.mode, table) for table in trains.values()} if editing else set()
    held_out = render_held_out(config, splits.train.classes or EXPRESSIONS, wild=render is None)
    if config.measures.probes:
        check_probes(config, held_out.faces)
    job = StudyJob(config, out, splits, accelerator, render, trains=trains, held_out=held_out)
    job.notes.extend(splits.notes)
    if editing:
        job.note(f"Synthesis is trained {' or '.join(sorted(modes))}.")
    if render is None:
        lacking = "neither aligned pairs nor labels of light and pose" if editing else "no labels of light and pose"
        measured = "Synthesis error, gates" if editing else "Gates"
        job.note(f"{measured} and probes are measured on rendered faces of new people: the photographs have {lacking}.")
    return job


def check_probes(config: StudyConfig, faces: FaceTable) -> None:
    """Stop where held-out faces are too few for probes, which would tell so after the first cell was trained.

    Raises:
        InputError: naming the options.
    """
    features = torch.randn(len(faces), 2, generator=torch.Generator().manual_seed(0))
    targets = {"subject": faces.subject, "expression": faces.expression}
    try:
        probe_targets(features, targets, faces.subject, session=faces.session)
    except InputError as error:
        measures = config.measures
        raise InputError(
            f"--measures.held_out_per_class {measures.held_out_per_class} of --measures.held_out_subjects "
            f"{measures.held_out_subjects} are too few faces to probe with ({error}); or give --measures.probes false"
        ) from None


def check_labels(config: StudyConfig, table: FaceTable) -> None:
    """Stop where faces lack what the tasks learn or the decoder is told.

    Raises:
        InputError: naming the label.
    """
    carried = [task for task, count in usable_labels(table).items() if count]
    for task in config.tasks:
        if task != "synthesis" and task not in carried:
            raise InputError(f"--tasks: the faces carry no {task}, only {', '.join(carried) or 'nothing'}")
    told = config.model.condition
    if told != "expression" and bool(getattr(table, told).isnan().all(1).any()):
        raise InputError(f"--model.condition is {told!r}, which not all faces carry: in a study they must")


def check_scores(config: StudyConfig, table: FaceTable, split: str) -> None:
    """Stop where no face of a split has what a task is scored by, which may be more than it learns from.

    Raises:
        InputError: naming the task.
    """
    scored = scorable_labels(table)
    for task in config.tasks:
        if task != "synthesis" and task not in scored:
            needed = "both outer eye corners" if task == "landmarks" else "its label"
            raise InputError(f"--tasks: {task} cannot be scored, no {split} face has {needed}")


def drawn_mode(wanted: str, table: FaceTable) -> str:
    """:func:`synthesis_mode`, once edits can be drawn.

    Raises:
        InputError: if the real faces allow none.
    """
    mode = synthesis_mode(wanted, table)
    EditSampler(table, paired=mode == "paired")
    return mode


def synthesis_mode(wanted: str, table: FaceTable) -> str:
    """``paired`` or ``mixed``: what was asked for, or what the training faces allow.

    Raises:
        InputError: if pairs are asked for that the faces do not have.
    """
    possible = edit_mode(table)
    if wanted == "paired" and possible != "paired":
        raise InputError("--synthesis.mode is 'paired', but most training faces have no partner: use mixed, or auto")
    return wanted if wanted != "auto" else "paired" if possible == "paired" else "mixed"


def render_held_out(config: StudyConfig, classes: tuple[str, ...], *, wild: bool) -> HeldOut:
    """Faces of ``classes`` of new people, as clean as rendered splits are or, ``wild``, as photographs are."""
    measures = config.measures
    wild_options: dict[str, Any] = {"style": "wild", "intensity_range": (0.7, 1.35)} if wild else {}
    render = RenderConfig(
        image_size=config.faces.image_size,
        channels=config.faces.channels,
        counts=dict.fromkeys(classes, measures.held_out_per_class),
        subjects=measures.held_out_subjects,
        subject_offset=_HELD_OUT_SUBJECTS,
        sessions_per_subject=_SESSIONS,
        seed=config.faces.render_seed,
        **wild_options,
    )
    faces = render_faces(render).with_classes(classes)
    step = 1 + torch.arange(len(faces)) % (len(classes) - 1)
    wanted = (faces.expression + step) % len(classes)
    named = [EXPRESSIONS.index(classes[index]) for index in wanted.tolist()]
    targets = counterparts(faces, render, named).with_classes(classes)
    if not config.synthesis.labels:
        targets.expression = torch.full_like(targets.expression, UNTOLD)
    return HeldOut(faces, targets)
