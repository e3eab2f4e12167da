"""Many tasks on faces that each carry only some of the labels."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from synthmtl.data.batch import FaceBatch
from synthmtl.errors import InputError
from synthmtl.labels import TASKS
from synthmtl.losses.expression import ExpressionLoss
from synthmtl.losses.weighting import per_row, processes, ratio, summed

NORMALIZATIONS = ("global", "per_task")


class FaceLoss(Protocol):
    """A task's loss that is a weighted mean over labels, which :class:`HeterogeneousLoss` can then take itself.

    A loss without ``each`` (:class:`ConcordanceLoss`) is a function of the whole batch,
    ``forward(output, label, weight) → scalar``.
    """

    def each(self, output: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Values and shares of one shape, (B,) or (B, labels of a face), for the output of the task's head and the
        task's column of the batch. The share of a missing label is 0 and its value independent of the output; those
        of a fully labelled face add up to 1, or to its class weight."""


def _takes_votes(task: str, loss: nn.Module) -> bool:
    return task == "expression" and isinstance(loss, ExpressionLoss)


class HeterogeneousLoss(nn.Module):
    """The masked sum of several tasks' losses: each face trains the tasks that it carries a label of.

    A reconstruction of the selective loss of Pons and Masip (arXiv 1802.06664; IEEE T. Cybernetics 52(6)), whose
    formula is not public in the part that we read. With l_t(i) the loss of task t on face i, m_it its share (0 where
    the label is missing) times the face's own weight, and w_t the task's weight:

        global     L = Σ_i Σ_t m_it w_t l_t(i) / Σ_i Σ_t m_it w_t
        per_task   L = Σ_t w_t (Σ_i m_it l_t(i) / Σ_i m_it)

    The trap of ``global``: the lower sum is the number of labels in the batch, so that each task's part in the loss is
    its part in the labels, and the way the data sets are mixed silently re-weights the tasks; a task whose labels are
    half as many counts half. In ``per_task`` every task that has a label counts w_t, and where there are few labels
    each of them weighs more.

    Each action unit is an entry of weight w_t / A, so that masks stay linear. A loss of the whole batch (CCC) is no sum
    over faces: it adds w_t l_t to L in both modes and takes no part in the lower sum. A task without a label in the
    batch is a zero with zero gradient. All sums run over the batches of all processes in training, so that averaged
    gradients are those of one process on the joined batch.

    Args:
        tasks: {task: loss}, tasks out of ``labels.TASKS``, losses that follow :class:`FaceLoss` or are functions of the
            batch; ``ExpressionLoss`` serves both expression and compound.
        weights: {task: w_t}, at least 0; 1 where left out.
        normalization: ``global`` or ``per_task``.

    Raises:
        InputError: if a task, a weight or the normalization is unknown, or no task is given.
    """

    def __init__(
        self,
        tasks: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        *,
        normalization: str = "global",
    ):
        super().__init__()
        weights = dict(weights or {})
        for name in tasks:
            if name not in TASKS:
                raise InputError(f"unknown task {name!r}: use some of {', '.join(TASKS)}")
        if not tasks:
            raise InputError(f"a multi-task loss needs a task: use some of {', '.join(TASKS)}")
        for name, weight in weights.items():
            if name not in tasks:
                raise InputError(f"a weight for {name!r}, which is no task here: use some of {', '.join(tasks)}")
            if not 0 <= weight < float("inf"):
                raise InputError(f"the weight of {name} must be a number of at least 0, not {weight}")
        if normalization not in NORMALIZATIONS:
            raise InputError(f"unknown normalization {normalization!r}: use one of {', '.join(NORMALIZATIONS)}")
        self.tasks = nn.ModuleDict(tasks)
        self.weights = {name: float(weights.get(name, 1.0)) for name in tasks}
        self.normalization = normalization

    def forward(self, outputs: Mapping[str, Tensor], batch: FaceBatch) -> dict[str, Tensor]:
        """Losses of the heads' outputs by task.

        Returns:
            ``loss``; for each task its mean over the labels, without gradient, under its name; ``task/NAME``, its part
            in the loss, with gradient, for aggregators; ``labels/NAME``, how many labels of the global batch took
            part (of a whole-batch loss: faces with a label).

        Raises:
            InputError: if a task has no output.
        """
        sums, batchwise, counts = {}, {}, {}
        for task, loss in self.tasks.items():
            if task not in outputs:
                raise InputError(f"the network has no head for {task}: it has {', '.join(outputs)}")
            label = getattr(batch, task)
            each = getattr(loss, "each", None)
            if each is not None:
                votes = {"distribution": batch.expression_distribution} if _takes_votes(task, loss) else {}
                values, shares = each(outputs[task], label, **votes)
                shares = shares * per_row(batch.weight, shares)
                sums[task] = (values * shares).sum(), shares.sum()
                counts[task] = (shares > 0).sum()
            else:
                batchwise[task] = loss(outputs[task], label, batch.weight)
                counts[task] = ((~label.isnan()).flatten(1).any(1) & (batch.weight > 0)).sum()
        totals = summed(torch.stack([*(lower for _, lower in sums.values()), *(n.float() for n in counts.values())]))
        lower = dict(zip(sums, totals / processes(), strict=False))
        means = {task: ratio(upper, lower[task]) for task, (upper, _) in sums.items()} | batchwise
        parts = {task: self.weights[task] * mean for task, mean in means.items()}
        if self.normalization == "global" and sums:
            everything = sum(self.weights[task] * lower[task] for task in sums)
            parts |= {task: ratio(self.weights[task] * upper, everything) for task, (upper, _) in sums.items()}
        return (
            {"loss": sum(parts[task] for task in self.tasks)}
            | {task: means[task].detach() for task in self.tasks}
            | {f"task/{task}": parts[task] for task in self.tasks}
            | {f"labels/{task}": n for task, n in zip(counts, totals[len(sums) :], strict=True)}
        )
