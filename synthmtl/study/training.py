"""Training a cell: both tasks together, synthesis before recognition, or each task on its own."""

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthmtl.data import FaceTable
from synthmtl.data.batch import EditBatch
from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import EpochSampler
from synthmtl.data.streams import EditStream, RecognitionStream
from synthmtl.experiment.generation import edit_sources
from synthmtl.experiment.stages import validation_scores
from synthmtl.losses import ExpressionLoss, FERSNetObjective, RecognitionObjective
from synthmtl.losses.expression import carries_expression
from synthmtl.models import FERSNet
from synthmtl.models.encoder import SYNTHESIS
from synthmtl.study.config import SINGLE, Cell, StudyConfig, network_options
from synthmtl.study.job import UNTOLD, StudyJob, synthesis_mode
from synthmtl.study.looks import Looks, recorded
from synthmtl.training import Player, TrainingConfig, fit
from synthmtl.training.turns import PLAIN


@dataclass
class Trained:
    """What :func:`train_cell` returns.

    Attributes:
        recognizer: the network that recognizes.
        editor: the network that synthesizes; the same one after joint training.
        seconds: of training.
        looks: what was recorded of the training of both tasks, or of recognition in two steps.
    """

    recognizer: FERSNet
    editor: FERSNet
    seconds: float
    looks: Looks

    @property
    def parameters(self) -> int:
        """Those that take part in recognition."""
        return self.recognizer.recognition_parameters()

    def kept(self) -> dict[str, FERSNet]:
        """The networks by the names of their folders."""
        editor = {} if self.editor is self.recognizer else {"editor": self.editor}
        return {"recognizer": self.recognizer} | editor


def train_cell(job: StudyJob, cell: Cell, directory: Path) -> Trained:
    """Train one cell, or continue it from the checkpoints in ``directory``; ``job`` has the cell's training faces."""
    seed = derive_seed("study", cell.seed)  # the same for every unit, so that comparisons are paired
    two_step = cell.condition.schedule == "two_step"
    recognition = job.config.recognition if two_step else job.config.joint
    if cell.sharing == SINGLE:
        recognizer, editor = new_network(job, cell, seed), new_network(job, cell, seed)
        seconds, looks = train_recognition(job, recognizer, recognition, directory / "recognition", cell, seed)
        seconds += train_synthesis(job, editor, directory / "synthesis", cell, seed)
        return Trained(recognizer, editor, seconds, looks)
    if two_step:
        editor = new_network(job, cell, seed)
        first = train_synthesis(job, editor, directory / "synthesis", cell, seed)
        recognizer = copy.deepcopy(editor)
        keep_donor(recognizer)
        seconds, looks = train_recognition(job, recognizer, recognition, directory / "recognition", cell, seed)
        return Trained(recognizer, editor, first + seconds, looks)
    model = new_network(job, cell, seed)
    seconds, looks = train_together(job, model, directory / "joint", cell, seed)
    return Trained(model, model, seconds, looks)


def new_network(job: StudyJob, cell: Cell, seed: int) -> FERSNet:
    """The cell's network at its start."""
    torch.manual_seed(seed)
    return network_options(job.config, cell.sharing).build(job.train.classes, job.config.faces)


def keep_donor(model: FERSNet) -> None:
    """Leave the stem, the synthesis branch, style and decoder as they are; a single trunk trains on."""
    encoder = model.encoder
    parts = [encoder.stem, model.style, model.decoder]
    if not encoder.single_trunk:
        parts.append(encoder.branches[SYNTHESIS])
    for part in parts:
        part.requires_grad_(False)


def labelled_rows(table: FaceTable, per_class: int | None, seed: int) -> Tensor:
    """Rows (M,) of a table whose expression recognition may see: ``per_class`` of each class, or all.

    Annotators' shares alone make an expression, too, but no class to count in.
    """
    if per_class is None:
        return torch.where(carries_expression(table.expression, table.expression_distribution))[0]
    rows = torch.where(table.expression >= 0)[0]
    generator = torch.Generator().manual_seed(derive_seed("labels", seed))
    rows = rows[torch.randperm(len(rows), generator=generator)]
    chosen = [rows[table.expression[rows] == c][:per_class] for c in range(len(table.classes))]
    return torch.cat(chosen).sort().values


class UnlabelledEdits:
    """A stream whose edits do not say which expression is wanted: every one bears the code :data:`UNTOLD`."""

    def __init__(self, stream: EditStream):
        self.stream = stream

    def __call__(self, step: int) -> EditBatch:
        batch = self.stream(step)
        for faces in (batch.source, batch.target):
            faces.expression = torch.full_like(faces.expression, UNTOLD)
        return batch


def train_recognition(
    job: StudyJob, model: FERSNet, training: TrainingConfig, directory: Path, cell: Cell, seed: int
) -> tuple[float, Looks]:
    """Train recognition alone; returns the seconds it took and what was recorded."""
    stream, loss = _labelled(job, training.batch_size, cell, seed)
    objective = RecognitionObjective(model, loss, sharing=job.config.synthesis.weights.sharing)
    with recorded(job.config.measures, model, objective, stream, training, directory, together=False) as (seen, looks):
        seconds = fit_cell(job, objective, seen, training, directory, cell, seed, select=model)
    return seconds, looks


def train_synthesis(job: StudyJob, model: FERSNet, directory: Path, cell: Cell, seed: int) -> float:
    """Train synthesis alone; returns the seconds it took."""
    # The objective wants labelled faces too: one, of which nothing is learned.
    stream, loss = _edits(job, 1, cell, seed)
    objective = FERSNetObjective(model, loss, job.config.synthesis.weights, recognition=0.0)
    return fit_cell(job, objective, stream, job.config.joint, directory, cell, seed)


def train_together(job: StudyJob, model: FERSNet, directory: Path, cell: Cell, seed: int) -> tuple[float, Looks]:
    """Train both tasks; returns the seconds it took and what was recorded on the way."""
    training = aggregated(job.config, cell)
    stream, loss = _edits(job, training.batch_size, cell, seed)
    objective = FERSNetObjective(model, loss, job.config.synthesis.weights)
    with recorded(job.config.measures, model, objective, stream, training, directory, together=True) as (seen, looks):
        seconds = fit_cell(job, objective, seen, training, directory, cell, seed, select=model)
    return seconds, looks


def aggregated(config: StudyConfig, cell: Cell) -> TrainingConfig:
    """Settings of a training of both tasks by the cell's aggregator."""
    if cell.aggregator in PLAIN:
        return config.joint
    options = config.aggregator_options.get(cell.aggregator)
    return dataclasses.replace(config.joint, aggregator=cell.aggregator, aggregator_options=options)


def _labelled(job: StudyJob, batch_size: int, cell: Cell, seed: int) -> tuple[RecognitionStream, ExpressionLoss]:
    table = job.train
    rows = labelled_rows(table, cell.condition.labels_per_class, seed)
    labels = table.expression[rows]
    counts = torch.bincount(labels[labels >= 0], minlength=len(table.classes)).tolist()
    sampler = EpochSampler(rows, batch_size, seed)
    stream = RecognitionStream(table, sampler, augmentation=job.config.augmentation, seed=seed)
    return stream, ExpressionLoss(counts, label_smoothing=job.config.label_smoothing)


def _edits(
    job: StudyJob, batch_size: int, cell: Cell, seed: int
) -> tuple[EditStream | UnlabelledEdits, ExpressionLoss]:
    config = job.config
    labelled, loss = _labelled(job, batch_size, cell, seed)
    mode = synthesis_mode(config.synthesis.mode, job.train)
    gentle = dataclasses.replace(config.augmentation, erase_probability=0.0, noise=0.0)
    stream = EditStream(labelled, edit_sources(job, mode, seed), gentle)
    return stream if config.synthesis.labels else UnlabelledEdits(stream), loss


def fit_cell(
    job: StudyJob,
    objective: nn.Module,
    stream: Any,
    training: TrainingConfig,
    directory: Path,
    cell: Cell,
    seed: int,
    *,
    select: FERSNet | None = None,
) -> float:
    """Train a part of a cell; the weights stay that recognize best on the validation split, if there is ``select``.

    Without, there is nothing that patience could wait for, and all steps are trained.

    Returns:
        Seconds.
    """
    patience = None if select is None else training.patience
    result = fit(
        players=[Player("network", objective)],
        stream=stream,
        config=dataclasses.replace(training, seed=seed, patience=patience),
        accelerator=job.accelerator,
        directory=directory,
        evaluate=None if select is None else lambda: validation_scores(job, select),
        select_by=None if select is None else "macro_f1",
        progress=job.progress,
        description=f"{cell.name} {directory.name}",
        identity={"cell": cell.name},
    )
    return result.seconds
