"""Faces of random pixels, networks and trainings that several benchmarks share."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from synthmtl.data import FaceTable
from synthmtl.data.batch import EditBatch, FaceBatch
from synthmtl.data.randomness import StepRandom
from synthmtl.labels import EXPRESSIONS_7
from synthmtl.training import Player, TrainingConfig, fit

from .timing import Laps

CLASSES = EXPRESSIONS_7


def noise_table(count: int, size: int, channels: int = 1) -> FaceTable:
    """Faces of random pixels, of all classes in turn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return FaceTable(images, CLASSES, expression=torch.arange(count) % len(CLASSES), subject=torch.arange(count) // 9)


def face_batches(count: int, batch_size: int, size: int) -> list[FaceBatch]:
    """Batches, made beforehand."""
    table = noise_table(count * batch_size, size)
    return [table.batch(range(start, start + batch_size)) for start in range(0, len(table), batch_size)]


def edit_batch(batch_size: int, size: int, *, labelled: int, paired: bool) -> EditBatch:
    """Edits of as many faces to the next class, and labelled faces, the first of the edited ones."""
    table = noise_table(2 * batch_size, size)
    source, target = table.batch(range(batch_size)), table.batch(range(1, batch_size + 1))
    random = StepRandom(0, 0)
    return EditBatch(table.batch(range(labelled)), source, target, torch.full((batch_size,), paired), random)


def training(
    players: list[Player], stream: Callable, accelerator: Accelerator, *, steps: int, **options
) -> Callable[[], object]:
    """A call that trains the players for some steps by our loop; of :class:`Laps` it returns the seconds of a step."""
    options = {"schedule": "constant", "warmup": 0.0, "checkpoint_every_minutes": None} | options
    config = TrainingConfig(steps=steps, **options)

    def run() -> object:
        result = fit(players=players, stream=stream, config=config, accelerator=accelerator, progress=False)
        return stream.median() if isinstance(stream, Laps) else result

    return run


def parameters_of(module: nn.Module) -> list[nn.Parameter]:
    """Those that are trained."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
