"""Gradients of several losses with respect to the same parameters, on one process or many."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.exchange import process_mean, several_processes
from synthmtl.training.task_gradients import TASK

_HALF_SCALE = 1024.0


def task_losses(results: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tasks' losses by name, out of what an objective of ours returns (``task/NAME`` among other things).

    Raises:
        InputError: if there are none.
    """
    losses = {name.removeprefix(TASK): value for name, value in results.items() if name.startswith(TASK)}
    if not losses:
        raise InputError(f"the objective returns no task's loss ({TASK}NAME), only {', '.join(results)}")
    return losses


def check_scalars(losses: Mapping[str, Tensor]) -> None:
    """See that every loss is a tensor of one number.

    Raises:
        InputError: if one is not.
    """
    for name, loss in losses.items():
        if not isinstance(loss, Tensor):
            raise InputError(f"loss {name!r} is {loss!r}: give a scalar tensor, zeros(()) where no face has its label")
        if loss.numel() != 1:
            raise InputError(f"loss {name!r} has shape {tuple(loss.shape)}: give a scalar, e.g. its mean")


def task_gradients(
    losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter], *, retain_graph: bool = True
) -> list[list[Tensor]]:
    """Gradient of each loss with respect to each parameter, float32 and dense, zeros where there is none.

    Gradients are averaged over the processes, as data-parallel training does. Nothing is added to ``.grad``, no hook
    of a data-parallel wrapper is called, and with ``retain_graph`` the graph is left for the training step.

    Args:
        losses: scalars with a graph, by task; means over this process's batch. One that is a constant zero, as where
            no face carries the task's label, has gradients of zero.
        parameters: those that do not require a gradient get zeros.
        retain_graph: keep the graph of the losses.

    Returns:
        A list per task, in the order of ``losses``, of tensors shaped like ``parameters``.

    Raises:
        InputError: if a loss is no scalar, or not zero and without a graph.
    """
    check_scalars(losses)
    for name, loss in losses.items():
        if not loss.requires_grad and loss.item() != 0:
            raise InputError(f"loss {name!r} has no graph: give it before detach(), computed with gradients enabled")
    trained = [p for p in parameters if p.requires_grad]
    rows = []
    for i, loss in enumerate(losses.values()):
        keep = retain_graph or i + 1 < len(losses)
        # Small gradients vanish in half precision, where training scales its loss: so is this one.
        kind = loss.device.type
        half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        scale = _HALF_SCALE if half else 1.0
        # A forward hook still stands inside the caller's autocast, which is not made for backward passes.
        with torch.autocast(kind, enabled=False):
            scaled = loss * scale if half else loss
            # Without a graph it is a row of zeros, which takes part in the mean with processes whose batch has labels.
            reached = trained if loss.requires_grad else []
            found = torch.autograd.grad(scaled, reached, retain_graph=keep, allow_unused=True) if reached else ()
        # The gradient of an embedding may be sparse.
        by_id = {id(p): g.to_dense() for p, g in zip(reached, found, strict=True) if g is not None}
        row = [
            by_id[id(p)].float() / scale if id(p) in by_id else torch.zeros_like(p, dtype=torch.float32)
            for p in parameters
        ]
        if several_processes() and row:
            mean = process_mean(torch.cat([g.reshape(-1) for g in row]))
            parts = mean.split([g.numel() for g in row])
            row = [part.view(g.shape) for part, g in zip(parts, row, strict=True)]
        rows.append(row)
    return rows
