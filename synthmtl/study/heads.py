"""A cell of a study of heads: its network, and its training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import EpochSampler
from synthmtl.data.streams import RecognitionStream
from synthmtl.errors import InputError
from synthmtl.experiment.config import HARD_MATCHED
from synthmtl.losses import HeterogeneousLoss, MultiTaskObjective, task_losses
from synthmtl.models import SJMT, match_capacity
from synthmtl.models.multitask import size_config
from synthmtl.models.sjmt import SJMT_SIZES
from synthmtl.sharing import SHARING_UNITS
from synthmtl.study.config import SINGLE, Cell, StudyConfig, options_of_row, unit_of_row
from synthmtl.study.job import StudyJob
from synthmtl.study.looks import Looks, recorded
from synthmtl.study.training import aggregated, fit_cell


@dataclass
class TrainedHeads:
    """What :func:`train_heads` returns.

    Attributes:
        networks: by task; one and the same for all, but for single tasks.
        seconds: of training.
        looks: what was recorded of the training of all tasks.
    """

    networks: dict[str, SJMT]
    seconds: float
    looks: Looks

    @property
    def parameters(self) -> int:
        """Of all networks."""
        return sum(map(parameter_count, self.kept().values()))

    def kept(self) -> dict[str, SJMT]:
        """The networks by the names of their folders."""
        first, *others = self.networks.values()
        if all(other is first for other in others):
            return {"network": first}
        return {f"network_{task}": network for task, network in self.networks.items()}


def head_network(config: StudyConfig, sharing: str, classes: Sequence[str], tasks: Sequence[str]) -> SJMT:
    """A new network that predicts ``tasks`` and shares as a name in the grid says.

    Raises:
        InputError: if the size, the sharing unit or one of its options is unknown, or does not suit.
    """
    unit, model, widths = unit_of_row(config, sharing), config.model, config.model.widths()
    if unit not in (*SHARING_UNITS, HARD_MATCHED):
        raise InputError(f"unknown sharing unit {unit!r}: use one of {', '.join((*SHARING_UNITS, HARD_MATCHED))}")
    options = {
        "classes": classes,
        "tasks": tuple(tasks),
        "image_size": config.faces.image_size,
        "image_channels": config.faces.channels,
        "stem_channels": widths["stem_channels"],
        "stage_channels": widths["stage_channels"],
        "one_unit": model.one_unit,
        "dropout": model.dropout,
        "sharing_options": options_of_row(config, sharing),
    }
    if unit != HARD_MATCHED:
        return SJMT.sized(model.size, **options, sharing=unit)
    with torch.device("meta"):
        gated = parameter_count(SJMT.sized(model.size, **options, sharing="leaky"))
    hard = options | {"sharing": "hard", "sharing_options": {}, "one_unit": False}
    return match_capacity(SJMT, gated, size_config(SJMT_SIZES, model.size, hard, sharing="hard"), count=parameter_count)


def parameter_count(network: nn.Module) -> int:
    """How many parameters a network has."""
    return sum(p.numel() for p in network.parameters())


def train_heads(job: StudyJob, cell: Cell, directory: Path) -> TrainedHeads:
    """Train one cell, or continue it from the checkpoints in ``directory``; ``job`` has the cell's training faces."""
    seed, tasks = derive_seed("study", cell.seed), job.config.tasks  # the same for every unit: comparisons are paired
    parts = [[task] for task in tasks] if cell.sharing == SINGLE else [tasks]
    networks: dict[str, SJMT] = {}
    seconds, looks = 0.0, Looks()
    for part in parts:
        torch.manual_seed(seed)
        model = head_network(job.config, cell.sharing, job.train.classes, part)
        took, looks = _train(job, cell, model, directory / (part[0] if len(parts) > 1 else "joint"), seed)
        seconds += took
        networks |= dict.fromkeys(part, model)
    return TrainedHeads(networks, seconds, looks)


def _train(job: StudyJob, cell: Cell, model: SJMT, directory: Path, seed: int) -> tuple[float, Looks]:
    config, together = job.config, len(model.tasks) > 1
    training = aggregated(config, cell) if together else config.joint
    stream = RecognitionStream(
        job.train,
        EpochSampler(torch.arange(len(job.train)), training.batch_size, seed),
        augmentation=config.augmentation,
        seed=seed,
    )
    losses = task_losses(model.tasks, job.train, label_smoothing=config.label_smoothing)
    weights = {task: config.model.task_weights.get(task, 1.0) for task in model.tasks}
    loss = HeterogeneousLoss(losses, weights, normalization="per_task")
    objective = MultiTaskObjective(model, loss, sharing_weight=config.synthesis.weights.sharing)
    with recorded(config.measures, model, objective, stream, training, directory, together=together) as (seen, looks):
        seconds = fit_cell(job, objective, seen, training, directory, cell, seed)
    return seconds, looks
