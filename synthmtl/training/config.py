"""How a run is trained: its settings, the learning rate of each step, the optimizer."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_type_hints

import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.training.accelerator import Precision
from synthmtl.training.aggregation import check_aggregator
from synthmtl.training.kinds import fitted

SAVING = ("checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints")
"""Settings of how a training is saved, which change nothing in it."""


@dataclass
class TrainingConfig:
    """Settings of :func:`synthmtl.training.loop.fit`.

    Attributes:
        steps: optimizer steps.
        batch_size: faces of a micro-step, over all processes; the stream decides, here it only gives images/s.
        learning_rate: the highest one.
        weight_decay: on weights with two dimensions or more (not on biases, norms and other vectors).
        schedule: ``one_cycle`` (cosine up from 1/25 and down to 1e-4 of that; Smith and Topin, 2019), ``cosine``
            (linear warm-up, cosine to 0), ``constant`` and ``multistep`` (linear warm-up, then steps).
        warmup: share of the steps in which the learning rate rises.
        milestones: ascending shares of the steps at which ``multistep`` multiplies the learning rate by ``gamma``.
        gamma: the factor of ``multistep``.
        optimizer: ``adamw``, ``adam`` or ``sgd`` (Nesterov, momentum = ``betas[0]``).
        betas: decay of the gradient's first and second moment.
        clip_norm: largest norm of a player's gradient; None = not clipped.
        precision: that of ``build_accelerator``; ``auto`` takes the accelerator as it is.
        channels_last: memory format of the convolutions' weights, as in ``put_channels_last``.
        accumulation: micro-steps per optimizer step.
        ema_decay: of the moving average of the first player's weights; None = no average.
        log_every: steps per line of ``losses.jsonl``.
        evaluate_every: steps between evaluations; None = only after the last step.
        patience: evaluations without gain after which training stops; None = never.
        checkpoint_every_steps: steps between checkpoints; None = by time only.
        checkpoint_every_minutes: minutes between checkpoints; None = by steps only.
        keep_checkpoints: how many are kept.
        seed: of everything random inside the objectives (dropout) and the aggregator.
        aggregator: how the tasks' gradients are put together (``aggregation.AGGREGATORS``); null or ``sum`` = the sum
            of their losses is minimized as it is.
        aggregator_options: numbers of the aggregator, instead of its defaults.
    """

    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    schedule: Literal["one_cycle", "cosine", "constant", "multistep"] = "one_cycle"
    warmup: float = 0.25
    milestones: tuple[float, ...] = (0.6, 0.85)
    gamma: float = 0.1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float | None = 5.0
    precision: Precision = "auto"
    channels_last: bool = True
    accumulation: int = 1
    ema_decay: float | None = None
    log_every: int = 20
    evaluate_every: int | None = None
    patience: int | None = None
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = 5.0
    keep_checkpoints: int = 2
    seed: int = 0
    aggregator: str | None = None
    aggregator_options: dict[str, float] | None = None

    def __post_init__(self):
        for name, hint in get_type_hints(type(self)).items():
            setattr(self, name, fitted(f"training {name}", getattr(self, name), hint))
        counts = ("steps", "batch_size", "accumulation", "log_every", "keep_checkpoints")
        for name in (*counts, "evaluate_every", "patience", "checkpoint_every_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"training {name} must be at least 1, not {value}")
        for name in ("learning_rate", "weight_decay", "gamma", "checkpoint_every_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"training {name} must be a finite number from 0 up, not {value}")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(f"training clip_norm must be a finite number above 0, or null, not {self.clip_norm}")
        if any(not before < after for before, after in pairwise((0, *self.milestones, 1))):
            raise InputError(f"training milestones are ascending shares of the steps in (0, 1), not {self.milestones}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"training betas must lie in [0, 1), not {self.betas}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"training warmup is a share of the steps in [0, 1), not {self.warmup}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"training ema_decay must lie in [0, 1), not {self.ema_decay}")
        if self.aggregator is not None:
            check_aggregator(self.aggregator, self.aggregator_options)
        elif self.aggregator_options:
            raise InputError(
                f"training aggregator_options are {self.aggregator_options}, and there is no aggregator to read them: "
                "leave them out"
            )

    def checkpoint_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due after ``step`` steps, ``seconds`` after the last one."""
        every, minutes = self.checkpoint_every_steps, self.checkpoint_every_minutes
        return (every is not None and step % every == 0) or (minutes is not None and seconds >= 60 * minutes)


def check_seed(name: str, training: TrainingConfig) -> None:
    """Stop at a seed of a training whose job derives it from seeds of its own.

    Raises:
        InputError: naming the option.
    """
    if training.seed != TrainingConfig.seed:
        raise InputError(f"--{name}.seed is {training.seed}: every training has a seed of its own, leave it out")


def check_part(name: str, training: TrainingConfig, *, evaluated: bool, aggregated: bool) -> None:
    """Stop at settings that the training of one part of a job does not read.

    Args:
        name: of the part's option.
        training: its settings.
        evaluated: whether its network is evaluated on the way, and not only trained to the last step.
        aggregated: whether it trains several tasks, whose gradients an aggregator could put together.

    Raises:
        InputError: naming the option.
    """
    check_seed(name, training)
    if training.precision != "auto":
        raise InputError(
            f"--{name}.precision is {training.precision!r}: all parts of a job are trained in one precision: leave it "
            "out, and give --precision"
        )
    for option in () if evaluated else ("evaluate_every", "patience"):
        if (value := getattr(training, option)) is not None:
            raise InputError(
                f"--{name}.{option} is {value}: this training keeps the weights of its last step, so nothing is "
                "evaluated on the way: leave it out"
            )
    if training.aggregator is not None and not aggregated:
        raise InputError(
            f"--{name}.aggregator is {training.aggregator!r}: this training has one task, and so no gradients to put "
            "together: leave it out"
        )


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """What ``learning_rate`` is multiplied by at ``step`` = 0 ... ``steps`` - 1: a pure function of the step."""
    warm = config.warmup * config.steps
    done = (step + 1 - warm) / max(config.steps - warm, 1)
    cosine = (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2
    if config.schedule == "one_cycle":
        if step < warm:
            return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / warm)) / 2
        return 4e-6 + (1 - 4e-6) * cosine
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "cosine":
        return cosine
    if config.schedule == "multistep":
        return config.gamma ** sum(step >= share * config.steps for share in config.milestones)
    return 1.0


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainingConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of a player: weights of two dimensions or more decay, vectors and scalars do not."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    if config.optimizer == "sgd":
        momentum = config.betas[0]
        return torch.optim.SGD(groups, learning_rate, momentum=momentum, nesterov=momentum > 0, fused=fused)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    first, second = config.betas
    return kind(groups, learning_rate, betas=(first, second), fused=fused)
