"""Look-ahead affinity: what a step on one task does to another task's loss.

Fifty, Amid, Zhao, Yu, Anil, Finn: Efficiently Identifying Task Groupings for Multi-Task Learning. NeurIPS 2021,
arXiv 2109.04617.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.exchange import process_mean, several_processes
from synthmtl.interference.gradients import check_scalars, task_gradients, task_losses
from synthmtl.interference.recorder import Recorder, step_of
from synthmtl.models.blocks import copied_buffers


@dataclass(frozen=True)
class Affinity:
    """What :func:`look_ahead_affinity` returns, for T tasks.

    Attributes:
        tasks: names.
        matrix: (T, T) float64, row i and column j: Z of a step on task i for task j. Above zero, the step lowered j's
            loss. NaN where j's loss was not above zero, so that its relative change means nothing.
    """

    tasks: tuple[str, ...]
    matrix: Tensor

    def as_dict(self) -> dict:
        """Plain JSON types; None for what is not finite."""
        rows = [[value if math.isfinite(value) else None for value in row] for row in self.matrix.tolist()]
        return {"tasks": list(self.tasks), "matrix": rows}


def look_ahead_affinity(
    model: nn.Module,
    losses: Callable[[], Mapping[str, Tensor]],
    shared: Iterable[nn.Parameter],
    *,
    step_size: float,
) -> Affinity:
    """Z_{i→j} = 1 - L_j(θ - η ∇L_i) / L_j(θ), the step being taken on the shared parameters θ alone.

    Parameters, buffers (running statistics too), ``.grad`` and the random state are afterwards what they were before,
    to the bit; every evaluation starts from the same ones, so dropout draws the same masks. It costs T + 1 forward
    passes and T backward passes. On several processes gradients and losses are averaged over them; all must call it.

    Args:
        model: everything that ``losses`` runs, in the mode in which it should run; not wrapped by DDP.
        losses: computes scalar losses by task, with graph, of one fixed batch; called T + 1 times. Of our objectives:
            ``lambda: task_losses(objective(batch))``. A constant zero, as where no face carries a task's label, is a
            task without a step, whose own loss cannot change.
        shared: parameters of ``model`` that the step moves, e.g. those of the encoder.
        step_size: η, e.g. the learning rate.

    Raises:
        InputError: if ``step_size`` is not above zero, a loss is neither a scalar with a graph nor zero, or ``shared``
            is empty.
    """
    if not step_size > 0:
        raise InputError(f"step_size must be above zero, not {step_size}")
    parameters = list(shared)
    if not parameters:
        raise InputError("look-ahead affinity needs shared parameters to step on: shared is empty")
    device = parameters[0].device
    with _same_start(model, device), torch.enable_grad():
        at_start = dict(losses())
        gradients = task_gradients(at_start, parameters, retain_graph=False)
    tasks = tuple(at_start)
    before = _values(at_start, tasks, device)
    rows = []
    for row in gradients:
        moved = [p.detach() - step_size * g.to(p.dtype) for p, g in zip(parameters, row, strict=True)]
        # With gradients here too: in training, means over processes weigh their rows differently than without.
        with _same_start(model, device), _replaced(parameters, moved), torch.enable_grad():
            rows.append(_values(losses(), tasks, device))
    matrix = 1 - torch.stack(rows) / before
    return Affinity(tasks, torch.where(before > 0, matrix, torch.nan))


class AffinityRecorder(Recorder):
    """Look-ahead affinity over training, as the paper averages it.

        recorder = AffinityRecorder(model.encoder.parameters(), step_size=3e-3, every=40)
        with recorder.watching(objective):
            fit(...)

    A look at T tasks costs T + 1 forward and T backward passes: with two tasks about two and a third training steps, or
    6 % of training at every 40th step.

    Args:
        shared: as in :func:`look_ahead_affinity`.
        step_size: likewise; a constant one keeps looks at different times comparable.
        every: steps between two looks, from step 0.

    Attributes:
        records: one of a look and ordered pair: ``step``, ``from`` and ``to`` (tasks) and ``affinity``, None where it
            means nothing.
    """

    def __init__(self, shared: Iterable[nn.Parameter], *, step_size: float, every: int = 40):
        super().__init__(every)
        self.shared = list(shared)
        self.step_size = step_size

    def __call__(self, step: int, model: nn.Module, losses: Callable[[], Mapping[str, Tensor]]) -> None:
        """Look at ``losses`` of ``model`` if ``step`` is due. Errors as :func:`look_ahead_affinity`."""
        if step % self.every:
            return
        found = look_ahead_affinity(model, losses, self.shared, step_size=self.step_size).as_dict()
        self.keep(
            [
                {"step": step, "from": one, "to": other, "affinity": value}
                for one, row in zip(found["tasks"], found["matrix"], strict=True)
                for other, value in zip(found["tasks"], row, strict=True)
            ]
        )

    @contextmanager
    def watching(self, objective: nn.Module, *, step: Callable[[Any], int] = step_of) -> Iterator[None]:
        """Within it, every training pass of ``objective`` that is due is preceded by a look at its batch.

        Args:
            objective: ``forward(batch)`` returns its tasks' losses as ``task/NAME``, as that of FERSNet does.
            step: from the batch.
        """

        def look(module: nn.Module, inputs: tuple) -> None:
            now = step(inputs[0])
            if torch.is_grad_enabled() and self.due(now):
                # Its ``forward``, so that no hook, of another recorder or of DDP, takes these passes for training.
                self(now, module, lambda: task_losses(module.forward(*inputs)))

        handle = objective.register_forward_pre_hook(look, prepend=True)
        try:
            yield
        finally:
            handle.remove()


def _values(losses: Mapping[str, Tensor], tasks: tuple[str, ...], device: torch.device) -> Tensor:
    """The losses as (T,) float64 on the CPU, means over the processes, which meet on ``device``."""
    check_scalars(losses)
    # One by one: a constant, as where no face has a task's label, may be of another device or precision than the rest.
    values = torch.stack([losses[task].detach().cpu().double().reshape(()) for task in tasks])
    return process_mean(values.to(device)).cpu() if several_processes() else values


@contextmanager
def _replaced(parameters: list[nn.Parameter], values: list[Tensor]) -> Iterator[None]:
    """Within it the parameters have other values; their own storage is never written to."""
    own = [p.data for p in parameters]
    try:
        _point_to(parameters, values)
        yield
    finally:
        _point_to(parameters, own)


def _point_to(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    # Autocast keeps its casts of weights until it ends, and would go on with those of the other values.
    torch.clear_autocast_cache()


@contextmanager
def _same_start(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it buffers are copies and the random generators forks, so that nothing of a forward pass remains."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), copied_buffers(model.modules()):
        yield
