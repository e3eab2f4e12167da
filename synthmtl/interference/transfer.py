"""Transfer: what each task gains by being learned with the others, relative to the single-task run.

    Δ_t = (-1)^{l_t} (M_t - M_single) / M_single,    l_t = 1 where lower is better, else 0

and Δ, its mean over the tasks. Maninis, Radosavovic, Kokkinos: Attentive Single-Tasking of Multiple Tasks. CVPR 2019,
arXiv 1904.08918.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from synthmtl.errors import InputError
from synthmtl.metrics.bootstrap import interval

LEAST_SEEDS = 3
"""Seeds from which on an interval is given."""


@dataclass(frozen=True)
class Gain:
    """A relative gain; 0.01 = one percent better than the single-task run.

    Attributes:
        delta: mean over the seeds; None if a single-task measure is not above zero, so that no ratio exists.
        per_seed: the gain of each seed, or None.
        ci95: ``[low, high]`` (at the confidence asked for); None with fewer than three seeds or without ``delta``.
        note: why there is no gain or no interval, else None.
    """

    delta: float | None
    per_seed: list[float | None]
    ci95: list[float] | None
    note: str | None


@dataclass(frozen=True)
class Transfer:
    """What :func:`relative_gain` returns: the gain of each task, ``overall`` that of their mean, and the seeds."""

    tasks: dict[str, Gain]
    overall: Gain
    seeds: list[int]

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def relative_gain(
    together: Mapping[str, Mapping[int, float]],
    single: Mapping[str, Mapping[int, float]],
    *,
    lower_is_better: Collection[str] = (),
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Transfer:
    """Gain of learning tasks together, paired by training seed, with percentile bootstrap intervals over the seeds.

    Each replicate draws seeds with replacement, the same ones for all tasks. With few seeds such an interval is too
    narrow: the bootstrap of a mean of S values has (S - 1) / S of its variance, and never leaves the range of the
    values, which holds the middle of a symmetric distribution in 75 % of all cases with three seeds, 94 % with five.

    Args:
        together: task → training seed → the task's measure, in runs on all tasks.
        single: the same of the runs on this task alone.
        lower_is_better: tasks whose measure is an error.
        samples: bootstrap replicates.
        confidence: coverage in (0, 1).
        seed: of the resampling.

    Raises:
        InputError: if tasks or seeds do not correspond, or a measure is not finite.
    """
    if not together or set(together) != set(single):
        raise InputError(f"transfer needs the same tasks in both: {_listed(together)} against {_listed(single)}")
    unknown = set(lower_is_better) - set(together)
    if unknown:
        raise InputError(f"lower_is_better names {_listed(unknown)}, but the tasks are {_listed(together)}")
    seeds = sorted(next(iter(together.values())))
    gains = {}
    for task, values in together.items():
        if sorted(values) != seeds or sorted(single[task]) != seeds or not seeds:
            raise InputError(
                f"task {task!r} is not paired by seed: {_listed(values)} together, {_listed(single[task])} single, "
                f"{_listed(seeds)} in the first task"
            )
        own = np.array([values[s] for s in seeds], dtype=float)
        alone = np.array([single[task][s] for s in seeds], dtype=float)
        if not (np.isfinite(own).all() and np.isfinite(alone).all()):
            raise InputError(f"a measure of task {task!r} is not finite: leave that seed out of every task")
        sign = -1 if task in lower_is_better else 1
        # A base at or below zero would turn the sign or divide by zero.
        gains[task] = np.where(alone > 0, sign * (own - alone) / np.where(alone > 0, alone, 1), np.nan)
    drawn = np.random.default_rng(seed).integers(len(seeds), size=(samples, len(seeds)))
    overall = np.mean(list(gains.values()), axis=0)
    return Transfer(
        {task: _gain(values, drawn, confidence) for task, values in gains.items()},
        _gain(overall, drawn, confidence),
        seeds,
    )


def _gain(values: np.ndarray, drawn: np.ndarray, confidence: float) -> Gain:
    """Summary of the gains (S,) of S seeds, with ``drawn`` (samples, S) positions of seeds."""
    per_seed = [None if np.isnan(value) else float(value) for value in values]
    if np.isnan(values).any():
        return Gain(None, per_seed, None, "a single-task measure is not above zero: no relative gain")
    if len(values) < LEAST_SEEDS:
        return Gain(float(values.mean()), per_seed, None, f"{len(values)} of the {LEAST_SEEDS} seeds an interval needs")
    return Gain(float(values.mean()), per_seed, interval(values[drawn].mean(1), confidence), None)


def _listed(names: Collection) -> str:
    return ", ".join(map(str, sorted(names))) or "nothing"
