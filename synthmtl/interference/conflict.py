"""Gradient conflict: whether two tasks pull the parameters that they share in opposite directions.

For gradients a and b of two tasks with respect to the same parameters: cosine a.b / (|a| |b|), a conflict where it is
below zero, and magnitude similarity 2 |a| |b| / (|a|² + |b|²), 1 where both are equally strong. Yu et al.: Gradient
Surgery for Multi-Task Learning. NeurIPS 2020, arXiv 2001.06782.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.interference.gradients import task_gradients, task_losses
from synthmtl.interference.recorder import Recorder, step_of

Groups = Mapping[str, Sequence[nn.Parameter]]


@dataclass(frozen=True)
class PairConflict:
    """Two tasks in one group of parameters.

    Attributes:
        shared: share of the group's numbers that both tasks send a gradient other than zero to, in [0, 1]. The measures
            are taken over these alone, number by number, so that a tensor may have rows of one task only: what only one
            task trains can neither help nor harm the other.
        cosine: in [-1, 1]; None where nothing is shared, or a gradient is not finite or too small to be squared.
        magnitude_similarity: in (0, 1]; None as ``cosine``.
    """

    shared: float
    cosine: float | None
    magnitude_similarity: float | None


def parameter_groups(
    module: nn.Module, *, depth: int | None = None, stages: Mapping[str, str | Sequence[str]] | None = None
) -> dict[str, list[nn.Parameter]]:
    """Parameters of ``module`` by layer, by prefix, or by a mapping of one's own.

    Args:
        depth: parts of the parameter's dotted name that name its group: with 2, ``encoder.stem.0.weight`` is in
            ``encoder.stem``. None: a group per layer (the module that owns the parameter).
        stages: instead of ``depth``, group name → prefix or prefixes of dotted names, which may overlap; parameters
            under no prefix are left out. One that has several names lies under all of them, once in each group.

    Raises:
        InputError: if ``depth`` is below 1, both options are given, or a prefix fits no parameter.
    """
    if stages is None:
        if depth is not None and depth < 1:
            raise InputError(f"depth must be at least 1, not {depth}")
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            owner = name.split(".")[:-1]
            groups.setdefault(".".join(owner[:depth]) or name, []).append(parameter)
        return groups
    if depth is not None:
        raise InputError("parameter_groups takes depth or stages, not both")
    # With duplicates: a layer that serves several places lies under the name of each.
    named = dict(module.named_parameters(remove_duplicate=False))
    groups = {}
    for group, prefixes in stages.items():
        chosen: dict[int, nn.Parameter] = {}
        for prefix in [prefixes] if isinstance(prefixes, str) else prefixes:
            fitting = [name for name in named if name == prefix or name.startswith(f"{prefix}.")]
            if not fitting:
                tops = ", ".join(dict.fromkeys(name.split(".")[0] for name in named))
                raise InputError(f"no parameter lies under {prefix!r} (group {group!r}): names start with {tops}")
            chosen |= {id(named[name]): named[name] for name in fitting}
        groups[group] = list(chosen.values())
    return groups


def gradient_conflict(
    losses: Mapping[str, Tensor], groups: Groups, *, retain_graph: bool = True
) -> dict[str, dict[tuple[str, str], PairConflict]]:
    """Conflict of every pair of tasks in every group of parameters.

    It costs a backward pass per task. On several processes gradients are averaged over them first, so all must call it
    with the same tasks and groups, and all get the same numbers. ``.grad`` is left alone.

    Args:
        losses: scalars by task, as for :func:`task_gradients`. Only their common scale is free (a loss scaler's). A
            task whose loss is a constant zero, as where no face carries its label, shares nothing.
        groups: parameters by name, e.g. of :func:`parameter_groups`; groups may overlap.
        retain_graph: keep the graph for the training step.

    Returns:
        ``{group: {(task, task): PairConflict}}``, pairs in the order of ``losses``.

    Raises:
        InputError: if there are fewer than two tasks, or a loss is neither a scalar with a graph nor zero.
    """
    if len(losses) < 2:
        raise InputError(f"conflict is between tasks: give at least two losses, not {len(losses)}")
    parameters = list({id(p): p for group in groups.values() for p in group}.values())
    gradients = task_gradients(losses, parameters, retain_graph=retain_graph)
    pairs = list(combinations(range(len(losses)), 2))
    names = list(losses)
    if not parameters:
        return {group: {(names[a], names[b]): PairConflict(0.0, None, None) for a, b in pairs} for group in groups}
    # All sums are additive over parameters: three small matrices each serve all groups, fetched together.
    sums = []
    with torch.autocast(parameters[0].device.type, enabled=False):  # a forward hook stands inside the caller's
        for rows in zip(*gradients, strict=True):
            flat = torch.stack([row.reshape(-1) for row in rows])
            there = flat.clone().ne_(0)
            sums.append(torch.stack([flat @ flat.T, flat.square_() @ there.T, there @ there.T]))
    positions = {id(p): i for i, p in enumerate(parameters)}
    of_each = torch.stack(sums).cpu().double()
    found: dict[str, dict[tuple[str, str], PairConflict]] = {}
    for group, members in groups.items():
        of_group, size = of_each[[positions[id(p)] for p in members]].sum(0), sum(p.numel() for p in members)
        found[group] = {(names[a], names[b]): _pair(of_group, size, a, b) for a, b in pairs}
    return found


def _pair(sums: Tensor, size: int, a: int, b: int) -> PairConflict:
    """Tasks ``a`` and ``b`` from sums (3, T, T) over the ``size`` numbers of a group.

    Row i, column j: products of i's and j's gradients, i's squares where j's gradient is not zero, and how many numbers
    both reach.
    """
    dots, squares, counts = sums
    shared = float(counts[a, b]) / max(size, 1)
    dot, first, second = dots[a, b], squares[a, b], squares[b, a]
    product = (first * second).sqrt()
    if not product > 0 or not torch.stack([dot, first, second]).isfinite().all():
        return PairConflict(shared, None, None)
    return PairConflict(shared, float((dot / product).clamp(-1, 1)), float(2 * product / (first + second)))


class ConflictRecorder(Recorder):
    """Gradient conflict over training: call it every step, before the backward pass; it looks at every N-th.

        recorder = ConflictRecorder(parameter_groups(model), every=20)
        for step, batch in enumerate(batches):
            losses = objective(batch)
            recorder(step, losses)
            sum(losses.values()).backward()

    In our own training loop ``with recorder.watching(objective): fit(...)`` does the same. Looking at every 20th step
    makes joint training of the small FERSNet 4 % longer on a CPU (``python -m tests.benchmarks looks``).

    Args:
        groups: as in :func:`gradient_conflict`.
        every: steps between two looks, from step 0.

    Attributes:
        records: one a look, group and pair: ``step``, ``group``, ``tasks`` (two names) and the fields of
            :class:`PairConflict`.
    """

    def __init__(self, groups: Groups, *, every: int = 20):
        super().__init__(every)
        self.groups = groups

    def __call__(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Look at ``losses`` if ``step`` is due; their graph is kept. Errors as :func:`gradient_conflict`."""
        if step % self.every:
            return
        self.keep(
            [
                {"step": step, "group": group, "tasks": list(tasks), **asdict(value)}
                for group, pairs in gradient_conflict(losses, self.groups).items()
                for tasks, value in pairs.items()
            ]
        )

    @contextmanager
    def watching(self, objective: nn.Module, *, step: Callable[[Any], int] = step_of) -> Iterator[None]:
        """Within it, every training pass of ``objective`` is looked at if it is due.

        Args:
            objective: ``forward(batch)`` returns its tasks' losses as ``task/NAME``, as that of FERSNet does, so that
                it can also be trained by an aggregator. Passes without gradients are ignored, and so is a step that
                comes again (another player's repeats).
            step: from the batch; by default the number of the micro-step, which an ``EditBatch`` knows.
        """

        def look(module: nn.Module, inputs: tuple, results: Mapping[str, Tensor]) -> None:
            now = step(inputs[0])
            if torch.is_grad_enabled() and self.due(now):
                self(now, task_losses(results))

        handle = objective.register_forward_hook(look)
        try:
            yield
        finally:
            handle.remove()

    def series(self, group: str, tasks: tuple[str, str]) -> dict[int, PairConflict]:
        """Step → conflict of two tasks, named in either order, in a group."""
        return {
            record["step"]: PairConflict(record["shared"], record["cosine"], record["magnitude_similarity"])
            for record in self.records
            if record["group"] == group and set(record["tasks"]) == set(tasks)
        }

    def conflict_rate(self, group: str, tasks: tuple[str, str], *, since: int = 0) -> float | None:
        """Share of the looks from step ``since`` on with a cosine below zero; None if nothing was ever shared."""
        found = [value.cosine for step, value in self.series(group, tasks).items() if step >= since]
        values = [value for value in found if value is not None]
        return sum(value < 0 for value in values) / len(values) if values else None
