"""Which faces make up the batch of a step: pure functions of (seed, step), so that nothing has to be saved."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from synthmtl.data.randomness import derive_seed
from synthmtl.errors import InputError


class Sampler(ABC):
    """Deals out rows of a table, batch by batch.

    Attributes:
        batch_size: rows of the global batch, over all processes.
    """

    def __init__(self, batch_size: int, seed: int):
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self.seed = seed

    def indices(self, step: int) -> Tensor:
        """Rows (batch_size,) int64 of the global batch of ``step``."""
        return self.draw(step, self.batch_size)

    @abstractmethod
    def draw(self, step: int, count: int) -> Tensor:
        """Rows (count,) int64 of ``step`` when every step takes ``count`` of them."""


class EpochSampler(Sampler):
    """Epochs of shuffled rows without replacement; a batch may run over the border of two epochs.

    Args:
        rows: (N,) int64 rows to deal out.
        batch_size: rows of the global batch.
        seed: of the shuffling.
    """

    def __init__(self, rows: Tensor, batch_size: int, seed: int):
        super().__init__(batch_size, seed)
        if len(rows) == 0:
            raise InputError("there are no rows to sample: the split is empty")
        self._cycles = Cycles(rows, seed, "epoch")

    def draw(self, step: int, count: int) -> Tensor:
        return self._cycles.take(step * count, count)


class ClassBalancedSampler(Sampler):
    """Every class equally often, whatever its number of faces.

    A batch holds each of the K classes batch_size / K times up to rounding; who gets the remainder rotates from step
    to step. Within a class, cycles of shuffled rows without replacement. Faces without a label (-1) are left out.

    Args:
        expression: (N,) int64 class of each row of the table.
        batch_size: rows of the global batch.
        seed: of the shuffling.
        rows: (M,) int64, the rows of the table to draw from; all by default.
    """

    def __init__(self, expression: Tensor, batch_size: int, seed: int, rows: Tensor | None = None):
        super().__init__(batch_size, seed)
        rows = torch.arange(len(expression)) if rows is None else rows
        labels = expression[rows]
        classes = labels[labels >= 0].unique().tolist()
        if not classes:
            raise InputError("there are no labelled faces to balance: every expression is missing")
        self._cycles = [Cycles(rows[labels == k], seed, f"class {k}") for k in classes]

    def draw(self, step: int, count: int) -> Tensor:
        # Position p of the endless stream is of class p mod K: any `count` positions in a row are balanced.
        classes = len(self._cycles)
        first, last = step * count, (step + 1) * count
        parts = []
        for k, cycles in enumerate(self._cycles):
            start, stop = (first - k + classes - 1) // classes, (last - k + classes - 1) // classes
            parts.append(cycles.take(start, stop - start))
        # Shuffled, so that every process gets a fair mixture of the classes.
        return torch.cat(parts)[torch.randperm(count, generator=_generator(self.seed, "order", step))]


class WeightedSampler(Sampler):
    """Rows drawn with replacement, in proportion to their weights.

    Args:
        weights: (N,) float, at least 0, with a sum above 0.
        batch_size: rows of the global batch.
        seed: of the draws.
    """

    def __init__(self, weights: Tensor, batch_size: int, seed: int):
        super().__init__(batch_size, seed)
        if not (bool((weights >= 0).all()) and 0 < float(weights.sum()) < float("inf")):
            raise InputError("sampling weights must be finite, none below 0 and not all 0")
        self.cumulative = weights.double().cumsum(0)

    def draw(self, step: int, count: int) -> Tensor:
        generator = _generator(self.seed, "weighted", step)
        points = torch.rand(count, dtype=torch.float64, generator=generator) * self.cumulative[-1]
        return torch.searchsorted(self.cumulative, points, right=True).clamp(max=len(self.cumulative) - 1)


class MixedSampler:
    """Batches with fixed shares, e.g. real : synthesised, one part after the other.

    Args:
        parts: (sampler, how many rows of each batch it gives); the samplers' own ``batch_size`` plays no role.
    """

    def __init__(self, parts: Sequence[tuple[Sampler, int]]):
        self.parts = [(sampler, count) for sampler, count in parts if count > 0]
        if not self.parts:
            raise InputError("a mixed batch needs at least one part with a share above 0")
        self.batch_size = sum(self.counts)

    @property
    def counts(self) -> list[int]:
        """Rows of each part, for :func:`shard`."""
        return [count for _, count in self.parts]

    def indices(self, step: int) -> Tensor:
        """Rows (batch_size,) int64 of the global batch of ``step``."""
        return torch.cat([sampler.draw(step, count) for sampler, count in self.parts])


def shard(indices: Tensor, rank: int, world: int, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of a global batch that process ``rank`` of ``world`` trains on: ``rank::world``.

    Args:
        indices: (B,) rows of the global batch.
        counts: sizes of the parts of a mixed batch; each process then gets the same share of every part.

    Returns:
        (B / world,) rows.

    Raises:
        InputError: if the batch, or one of its parts, does not divide by ``world``.
    """
    for size in (len(indices),) if counts is None else counts:
        if size % world:
            what = "batch" if counts is None else "part of the batch"
            raise InputError(f"a {what} of {size} faces does not divide among {world} processes; choose a multiple")
    return indices[rank::world]


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*parts))


class Cycles:
    """An endless stream of rows: each cycle holds every row once, in an order of its own.

    Args:
        rows: (N,) int64 rows to deal out.
        seed, name: what the orders depend on, together with the number of the cycle.
    """

    def __init__(self, rows: Tensor, seed: int, name: str):
        self.rows = rows
        self.seed = seed
        self.name = name
        self._kept: tuple[int, Tensor] | None = None

    def take(self, start: int, count: int) -> Tensor:
        """Positions ``start`` ... ``start + count - 1`` of the stream."""
        size = len(self.rows)
        parts = [self.rows[:0]]
        for cycle in range(start // size, (start + count - 1) // size + 1):
            low, high = max(start - cycle * size, 0), min(start + count - cycle * size, size)
            parts.append(self._cycle(cycle)[low:high])
        return torch.cat(parts)

    def _cycle(self, cycle: int) -> Tensor:
        if len(self.rows) == 1:
            return self.rows
        if self._kept is None or self._kept[0] != cycle:
            order = torch.randperm(len(self.rows), generator=_generator(self.seed, self.name, cycle))
            self._kept = (cycle, self.rows[order])
        return self._kept[1]
