"""The turn of one player in a step: forward, backward, clip, over micro-steps and processes."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from synthmtl.data.randomness import derive_seed
from synthmtl.errors import InputError
from synthmtl.exchange import average_gradients, averages_in_memory, process_mean
from synthmtl.models.blocks import copied_buffers
from synthmtl.training.config import TrainingConfig, build_optimizer
from synthmtl.training.layout import put_channels_last
from synthmtl.training.task_gradients import TASK, TaskGradients

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

PLAIN = (None, "sum")
"""Settings of ``aggregator`` that leave the sum of the tasks' losses as it is."""

FIRST_SCALE = 2.0**16
"""By which losses are multiplied at first in fp16, as torch's scaler does."""


def check_precision(precision: str, aggregator: str | None) -> None:
    """Stop at gradients that are scaled, and so cannot be compared between tasks.

    Raises:
        InputError: naming both.
    """
    if precision == "fp16" and aggregator not in PLAIN:
        raise InputError(f"aggregator {aggregator} does not work in precision fp16: choose bf16 or no")


class Batch(Protocol):
    """What a stream yields: anything that can be put on a device."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""


@dataclass
class Player:
    """One optimizer and what it minimizes.

    Attributes:
        name: unique, without dots.
        objective: ``forward(batch)`` returns named scalars, of which ``loss`` is minimized and the rest is logged;
            each is the mean over the batch, so that processes average to the global batch. For an aggregator it also
            returns its tasks' losses, which add up to ``loss``, as ``task/NAME``; always the same ones.
        repeats: turns per step.
        learning_rate: instead of the configuration's.
        parameters: what this player trains; by default all of ``objective`` that require a gradient. An objective
            that holds another player's network (a generator's, with the critic in it) must name its own.
    """

    name: str
    objective: nn.Module
    repeats: int = 1
    learning_rate: float | None = None
    parameters: Sequence[nn.Parameter] | None = None


class Turn:
    """A player made ready: its objective under the accelerator, its optimizer.

    Only the player's own parameters require a gradient during its turn, and only they are in its DDP, so that a
    network may stand in several objectives.
    """

    def __init__(self, player: Player, config: TrainingConfig, accelerator: Accelerator):
        self.name, self.repeats = player.name, player.repeats
        self.config, self.accelerator = config, accelerator
        self.objective = player.objective
        self.learning_rate = config.learning_rate if player.learning_rate is None else player.learning_rate
        own = player.objective.parameters() if player.parameters is None else player.parameters
        self.parameters = [p for p in own if p.requires_grad]
        if not self.parameters:
            raise InputError(f"player {self.name} has nothing to train: no parameter requires a gradient")
        self.tasks: TaskGradients | None = None
        if config.aggregator not in PLAIN:
            self.tasks = TaskGradients(self.parameters, config.aggregator, config.aggregator_options, accelerator)

    def prepare(self, everyone: Sequence["Turn"]) -> None:
        """Move to the device and wrap; ``everyone`` are the turns of all players."""
        self.others = [p for turn in everyone if turn is not self for p in turn.parameters]
        self.leads = everyone[0] is self
        self.objective.to(self.accelerator.device)
        if self.config.channels_last:
            put_channels_last(self.objective, self.accelerator.device)
        with self._alone():
            named = _Named(self.objective, self.name, apart=self.tasks is not None)
            self.in_memory = self.tasks is None and averages_in_memory(self.parameters)
            # Gradients are averaged by hand where tasks have their own or processes share memory: no DDP.
            by_hand = self.tasks is not None or self.in_memory
            self.module = self.accelerator.prepare_model(named, evaluation_mode=by_hand)
            if by_hand:
                for tensor in self.objective.state_dict().values():
                    broadcast(tensor)
        optimizer = build_optimizer(self.parameters, self.config, self.learning_rate)
        # Without a gradient scaler accelerate's wrapper adds nothing but time: in every step it looks through the disk
        # for an optional package. So does its ``backward``; its clipping and averaging cost less, but each step.
        scaled = self.accelerator.scaler is not None
        self.optimizer = self.accelerator.prepare_optimizer(optimizer) if scaled else optimizer

    def take(self, batches: Sequence[Batch], factor: float, step: int, repeat: int) -> dict[str, float]:
        """Gradients of the batches' mean loss, clipped, in place; returns the losses, means over all processes.

        Raises:
            InputError: if an aggregator was chosen and the first player, the one it is for, has no tasks.
        """
        config, accelerator = self.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factor
        self.optimizer.zero_grad()
        total: dict[str, Tensor] = {}
        for k, batch in enumerate(batches):
            self._seed(step, repeat, k)
            last = k == len(batches) - 1 or self.tasks is not None
            synchronized = nullcontext() if last else accelerator.no_sync(self.module)
            with self._alone(), synchronized:
                losses = self.module(batch)
                if self.tasks is None:
                    self._backward(losses[f"{self.name}/loss"])
                    if last and self.in_memory:
                        average_gradients(self.parameters)
                else:
                    self.tasks.add(self._own(losses), len(batches))
            self._add(total, losses, len(batches))
        if self.tasks is not None:
            if self.leads and not self.tasks.names:
                raise InputError(
                    f"aggregator {config.aggregator} needs the losses of several tasks, and the objective of player "
                    f"{self.name} returns none (task/NAME): leave the aggregator out"
                )
            seed = derive_seed(config.seed, step, self.name, repeat, "aggregator")
            total |= {f"{self.name}/{key}": value for key, value in self.tasks.write(self._own(total), seed).items()}
        limit = math.inf if config.clip_norm is None else config.clip_norm
        if accelerator.scaler is not None:
            # Of this optimizer alone: accelerate's clipping does it for all, and what overflowed for another player
            # would halve the scale once more here.
            accelerator.unscale_gradients(self.optimizer)
        total[f"{self.name}/gradient_norm"] = nn.utils.clip_grad_norm_(self.parameters, limit)
        names = sorted(total)
        values = torch.stack([total[name] for name in names])
        return dict(zip(names, process_mean(values).tolist(), strict=True))

    def step(self, batches: Sequence[Batch], step: int, repeat: int) -> None:
        """The optimizer's step; an aggregator that looks back is then shown the losses of the same batches."""
        self.optimizer.step()
        if self.tasks is None or not self.tasks.looks_back:
            return
        total: dict[str, Tensor] = {}
        for k, batch in enumerate(batches):
            self._seed(step, repeat, k)
            # With gradients, as the losses before the step: without, a loss is the mean of one process's own labels.
            with torch.enable_grad(), copied_buffers(self.objective.modules()):
                self._add(total, self.module(batch), len(batches))
        self.tasks.look_back(self._own(total))

    def healthy(self, values: dict[str, float]) -> bool:
        """Whether loss and gradient are finite; under fp16 a gradient may overflow, and the scaler skips the step."""
        finite = math.isfinite(values[f"{self.name}/loss"])
        return finite and (self.accelerator.scaler is not None or math.isfinite(values[f"{self.name}/gradient_norm"]))

    def close(self) -> None:
        """Let go of gradients and wrappers; the weights go back to the plain memory format, the one that files take."""
        self.objective.to(memory_format=torch.contiguous_format)
        for parameter in self.parameters:
            parameter.grad = None
        self.module = self.optimizer = None

    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to fit."""
        return {
            "repeats": self.repeats,
            "learning_rate": self.learning_rate,
            "parameters": sum(p.numel() for p in self.parameters),
        }

    def _seed(self, step: int, repeat: int, micro_step: int) -> None:
        process = self.accelerator.process_index
        seed = derive_seed(self.config.seed, step, self.name, repeat, micro_step, process)
        # torch.manual_seed looks for devices of every kind, which takes as long as a step of a small network.
        seed_all = torch.default_generator.manual_seed if self.accelerator.device.type == "cpu" else torch.manual_seed
        seed_all(seed)

    def _backward(self, loss: Tensor) -> None:
        if self.accelerator.scaler is not None:
            self.accelerator.backward(loss)
        else:
            steps = self.accelerator.gradient_accumulation_steps
            (loss if steps == 1 else loss / steps).backward()

    def _own(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by the objective's names."""
        return {name.removeprefix(f"{self.name}/"): value for name, value in losses.items()}

    @staticmethod
    def _add(total: dict[str, Tensor], losses: dict[str, Tensor], micro_steps: int) -> None:
        for name, value in losses.items():
            mean = value.detach().float() if micro_steps == 1 else value.detach().float() / micro_steps
            total[name] = total[name] + mean if name in total else mean

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only this player's parameters require a gradient."""
        for parameter in self.others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.others:
                parameter.requires_grad_(True)


class _Named(nn.Module):
    """An objective whose losses bear the player's name, and of which only ``loss`` has a gradient.

    DDP waits for the gradients of everything that its module returns; where the tasks' gradients are taken ``apart``,
    their losses have one too.
    """

    def __init__(self, objective: nn.Module, name: str, *, apart: bool = False):
        super().__init__()
        self.objective = objective
        self.name = name
        self.apart = apart

    def forward(self, batch: Any) -> dict[str, Tensor]:
        losses = self.objective(batch)

        def kept(key: str) -> bool:
            return key == "loss" or (self.apart and key.startswith(TASK))

        return {f"{self.name}/{key}": value if kept(key) else value.detach() for key, value in losses.items()}


def prepare_turns(players: Sequence[Player], config: TrainingConfig, accelerator: Accelerator) -> list[Turn]:
    """The players' turns, ready to be taken.

    Raises:
        InputError: if a player has nothing to train, or two players would train the same parameter.
    """
    accelerator.gradient_accumulation_steps = config.accumulation
    if (scaler := accelerator.scaler) is not None:
        # Not at the scale at which a training before this one ended: who resumes knows nothing of that one.
        scaler.load_state_dict(scaler.state_dict() | {"scale": FIRST_SCALE, "_growth_tracker": 0})
    turns = [Turn(player, config, accelerator) for player in players]
    owners: dict[int, str] = {}
    for turn in turns:
        for parameter in turn.parameters:
            owner = owners.setdefault(id(parameter), turn.name)
            if owner != turn.name:
                raise InputError(f"players {owner} and {turn.name} train the same parameter; give each its own")
    for turn in turns:
        turn.prepare(turns)
    return turns


def train_mode(modules: nn.Module, turns: Sequence[Turn]) -> None:
    """Train mode, except for modules with parameters of which no player trains any: frozen guides, frozen norms."""
    trained = {id(p) for turn in turns for p in turn.parameters}
    modules.train()
    for module in modules.modules():
        own = [id(p) for p in module.parameters()]
        if own and trained.isdisjoint(own):
            module.eval()


def training_state(turns: Sequence[Turn], ema: "EMAModel | None", accelerator: Accelerator) -> dict[str, Any]:
    """What a checkpoint keeps beside the weights: tensors and plain numbers."""
    return {
        "optimizers": {turn.name: turn.optimizer.state_dict() for turn in turns},
        "ema": None if ema is None else ema.state_dict(),
        "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
        "aggregators": {turn.name: turn.tasks.state_dict() for turn in turns if turn.tasks is not None},
    }


def restore_training_state(
    state: dict[str, Any], turns: Sequence[Turn], ema: "EMAModel | None", accelerator: Accelerator
) -> None:
    """The inverse of :func:`training_state`."""
    for turn in turns:
        turn.optimizer.load_state_dict(state["optimizers"][turn.name])
        if turn.tasks is not None:
            turn.tasks.load_state_dict(state["aggregators"][turn.name])
    if ema is not None:
        ema.load_state_dict(state["ema"])
        ema.to(accelerator.device)
    # A scaler that was not needed where the checkpoint was made has nothing to restore.
    if accelerator.scaler is not None and state["scaler"] is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
