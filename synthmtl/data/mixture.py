"""Mixtures: any number of data sets with different labels as one table, and batches with fixed shares of each."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from numbers import Real

import torch
from torch import Tensor

from synthmtl.data.sampling import Cycles, Sampler
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import TASKS, ordered_classes

SAMPLINGS = ("size", "equal", "temperature")
"""How often each data set of a mixture comes up, where no weights are given."""

_LEAST = 1e-12  # of the largest weight: with less than that no training ever draws a face


def usable_labels(table: FaceTable) -> dict[str, int]:
    """How many faces carry each label, by task; one action unit or one landmark is enough to count."""
    counts = {}
    for task in TASKS:
        column = getattr(table, task)
        missing = column.isnan() if column.is_floating_point() else column < 0
        if task == "landmarks":
            missing = missing.any(-1)  # a point needs both coordinates
        counts[task] = int((~missing.flatten(1).all(1) if missing.ndim > 1 else ~missing).sum())
    return counts


def describe(tables: Mapping[str, FaceTable]) -> str:
    """What each data set of a mixture carries, for logs: ``fer2013: 27043 faces: expression 27043; london: ...``."""
    parts = []
    for name, table in tables.items():
        carried = [f"{task} {count}" for task, count in usable_labels(table).items() if count]
        parts.append(f"{name}: {len(table)} faces: {', '.join(carried) or 'no label'}")
    return "; ".join(parts)


def join(tables: Mapping[str, FaceTable]) -> FaceTable:
    """Data sets by name as one table, each row with the labels that it has and no other.

    Args:
        tables: at least one; the order of the names decides ``domain``.

    Returns:
        All rows over the union of the classes in canonical order. ``domain`` is the data set's position in ``tables``;
        subjects and sessions of different data sets are different ones.

    Raises:
        InputError: if there is no table, one is empty or has no label of any task, or sizes or channels differ.
    """
    if not tables:
        raise InputError("a mixture needs at least one data set")
    (first, reference), *_ = tables.items()
    for name, table in tables.items():
        if not len(table):
            raise InputError(f"{name}: has no faces: leave it out of the mixture")
        if table.images.shape[1:] != reference.images.shape[1:]:
            shapes = ["x".join(map(str, each.images.shape[1:])) for each in (table, reference)]
            raise InputError(
                f"{name}: its faces are {shapes[0]}, those of {first} {shapes[1]} (channels, height, width): "
                "read both with the same image_size and channels"
            )
        if not any(usable_labels(table).values()):
            raise InputError(f"{name}: has no usable label: give it one of {', '.join(TASKS)}, or leave it out")
    classes = ordered_classes({expression for table in tables.values() for expression in table.classes})
    return FaceTable.concatenate(
        [
            table.with_classes(classes).replace(domain=torch.full((len(table),), position))
            for position, table in enumerate(tables.values())
        ],
        separate=True,
    )


class MixtureSampler(Sampler):
    """Batches in which every data set has its share, however many faces it has.

    A batch holds each share up to rounding, with the remainder spread evenly over the steps: after any number of them
    a data set has come up its share of the rows to within a few, and exactly so after a full period (N steps at most
    for shares by size). Within a data set, cycles of shuffled rows without replacement. The rows of a batch stand in
    the order of the data sets, so that every process's ``rank::world`` has each share up to rounding, too.

    The shares S_0 = 0, S_1, ..., S_D = 1, added up, cut [0, B) at B S_d. Step t takes the points j + (a t mod M) / M,
    j = 0 ... B - 1 (systematic sampling); each belongs to the data set whose interval holds it. The rotation by a / M,
    close to the golden ratio, spreads the points evenly in time, and M is the common denominator of the cuts.

    Args:
        domain: (N,) int64 data set of each row of the table, from :func:`join`.
        batch_size: B, rows of the global batch.
        seed: of the shuffling.
        sampling: ``size`` (every face equally often), ``equal`` (every data set), ``temperature`` (in proportion to
            size^(1/T), between the two), or the weight of each data set by name or position, 0 to leave it out.
        temperature: T > 0 of ``temperature``.
        names: of the data sets, by position; by default those whose positions ``domain`` holds are called by these.
        rows: (M,) int64, the rows of the table to draw from; all by default.

    Attributes:
        shares: {name: share of the rows}, with sum 1.

    Raises:
        InputError: if the sampling is unknown, a weight is missing, unknown, no number, negative or all are 0, a data
            set would never come up by its weight or the temperature, or one that is to be drawn from has no rows.
    """

    def __init__(
        self,
        domain: Tensor,
        batch_size: int,
        seed: int,
        *,
        sampling: str | Mapping[str | int, float] = "size",
        temperature: float = 2.0,
        names: Sequence[str] | None = None,
        rows: Tensor | None = None,
    ):
        super().__init__(batch_size, seed)
        rows = torch.arange(len(domain)) if rows is None else rows
        present = domain[rows]
        known = dict(enumerate(names)) if names is not None else {d: str(d) for d in present.unique().tolist()}
        if not len(present) or not set(present.unique().tolist()) <= known.keys():
            raise InputError(f"a mixture needs rows of the {len(known)} data sets that are named, and of no other")
        own = {position: rows[present == position] for position in known}
        weights = _weights(sampling, {position: len(part) for position, part in own.items()}, temperature, known)
        for position, weight in weights.items():
            if weight and not len(own[position]):
                raise InputError(f"{known[position]}: has no faces to sample: leave it out of the mixture")
        self._weights = _whole(weights)
        total = sum(self._weights.values())
        self.shares = {known[position]: weight / total for position, weight in self._weights.items()}
        self._cycles = {position: Cycles(part, seed, f"domain {position}") for position, part in own.items()}

    def draw(self, step: int, count: int) -> Tensor:
        total = sum(self._weights.values())
        scale = math.gcd(total, *(count * weight for weight in self._weights.values()))
        period = total // scale
        low, parts = (0, 0), []
        cut = 0
        for position, weight in self._weights.items():
            cut += count * weight // scale
            high = _points_below(cut, step, period), _points_below(cut, step + 1, period)
            start, stop = high[0] - low[0], high[1] - low[1]
            if stop > start:
                parts.append(self._cycles[position].take(start, stop - start))
            low = high
        return torch.cat(parts)


def _weights(
    sampling: str | Mapping[str | int, float], sizes: Mapping[int, int], temperature: float, known: Mapping[int, str]
) -> dict[int, Fraction]:
    """The weight of each position, exact for whole numbers and decimals."""
    if isinstance(sampling, Mapping):
        given = _given(sampling, known)
    elif sampling == "size":
        given = dict(sizes)
    elif sampling == "equal":
        given = dict.fromkeys(sizes, 1)
    elif sampling == "temperature":
        if not _is_number(temperature) or not temperature > 0:
            raise InputError(f"temperature is {temperature}: it must be above 0 (1 = size, large = equal)")
        largest = max(sizes.values())
        given = {position: (size / largest) ** (1 / temperature) for position, size in sizes.items()}
        for position, size in sizes.items():
            if size and given[position] < _LEAST:
                raise InputError(
                    f"temperature is {temperature}: {known[position]} would never come up: raise it "
                    "(1 = size, large = equal)"
                )
    else:
        raise InputError(f"unknown sampling {sampling!r}: use {', '.join(SAMPLINGS)} or a weight for each data set")
    return {position: Fraction(str(weight)) for position, weight in given.items()}


def _given(weights: Mapping[str | int, float], known: Mapping[int, str]) -> dict[int, float]:
    positions = {str(position): position for position in known} | {name: p for p, name in known.items()}
    found: dict[int, float] = {}
    for name, weight in weights.items():
        position = positions.get(str(name))
        if position is None:
            raise InputError(f"sampling: a weight for {name!r}, which is none of {', '.join(known.values())}")
        if position in found:
            raise InputError(f"sampling: two weights for {known[position]}: give one")
        if not _is_number(weight):
            raise InputError(f"sampling: the weight of {name} is {weight!r}: it must be a number")
        if not 0 <= weight < math.inf:
            raise InputError(f"sampling: the weight of {name} is {weight}: it must be finite and not below 0")
        found[position] = weight
    for position, name in known.items():
        if position not in found:
            raise InputError(f"sampling: no weight for {name}: give one (0 leaves it out)")
    if not any(found.values()):
        raise InputError("sampling: all weights are 0: give at least one data set a share")
    for position, weight in found.items():
        if 0 < weight < _LEAST * max(found.values()):
            name = known[position]
            raise InputError(f"sampling: {name} would never come up by a weight of {weight}: raise it, or set it to 0")
    return {position: found[position] for position in known}


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(weights: Mapping[int, Fraction]) -> dict[int, int]:
    """Whole numbers in the same proportions."""
    scale = math.lcm(*(weight.denominator for weight in weights.values()))
    return {position: int(weight * scale) for position, weight in weights.items()}


def _points_below(cut: int, steps: int, period: int) -> int:
    """How many points j + (a t mod M) / M of the steps t < ``steps`` lie below ``cut`` / M, with M = ``period``."""
    whole, part = divmod(cut, period)
    stride = round(period * (math.sqrt(5) - 1) / 2)
    while math.gcd(stride, period) > 1:
        stride += 1
    return steps * whole + _floor_sum(steps, period, stride, 0) - _floor_sum(steps, period, stride, -part)


def _floor_sum(count: int, modulus: int, factor: int, shift: int) -> int:
    """The sum of floor((factor i + shift) / modulus) over i = 0 ... count - 1, as in Euclid's algorithm."""
    total = 0
    while count:
        whole, factor = divmod(factor, modulus)
        total += whole * count * (count - 1) // 2
        whole, shift = divmod(shift, modulus)
        total += whole * count
        count, shift = divmod(factor * count + shift, modulus)
        modulus, factor = factor, modulus
    return total
