"""Identical and nearly identical faces, within a set and across splits.

Candidates are found by a 64-bit perceptual hash (Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010: signs of the low-frequency DCT coefficients about their median) and confirmed by the correlation of
their pixels, because hashes of flat or dark faces meet by chance. Mirrored or rotated copies are not found.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from synthmtl.data.table import FaceTable

MAX_DISTANCE = 8
"""Bits in which the hashes of near-duplicates may differ."""

MIN_CORRELATION = 0.99
"""Pixels of near-duplicates correlate above this (Pearson)."""

_SIDE = 32
_LOW = 8
_FLAT = 1.0  # gray levels of standard deviation below which a correlation measures noise
_CHUNK = 1024


@dataclass(frozen=True)
class Duplicates:
    """M pairs of rows that show the same picture, ordered by ``first``, then ``second``.

    Attributes:
        first, second: (M,) int64 rows of the two sets.
        exact: (M,) bool, equal in every pixel.
        correlation: (M,) float, of the gray pixels; 1 for exact pairs.
    """

    first: Tensor
    second: Tensor
    exact: Tensor
    correlation: Tensor

    def __len__(self) -> int:
        return len(self.first)


def perceptual_hash(images: Tensor) -> Tensor:
    """Signs of the 8x8 lowest DCT coefficients of the faces at 32x32, about their median.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, 64) bool; brightness and contrast do not change it but by rounding.
    """
    n = torch.arange(_SIDE, dtype=torch.float32)
    basis = torch.cos(math.pi / _SIDE * torch.outer(torch.arange(_LOW, dtype=torch.float32), n + 0.5))
    bits = [torch.empty(0, _LOW * _LOW, dtype=torch.bool)]
    for chunk in images.split(_CHUNK):
        small = F.adaptive_avg_pool2d(_gray(chunk), _SIDE)
        coefficients = (basis @ (small - small.mean((1, 2), keepdim=True)) @ basis.T).flatten(1)
        bits.append(coefficients > coefficients[:, 1:].median(1, keepdim=True).values)
    return torch.cat(bits)


def exact_hash(images: Tensor) -> Tensor:
    """(N,) int64, equal for faces that are equal in every pixel (64 bits of BLAKE2)."""
    rows = images.flatten(1).contiguous().numpy()
    digests = (hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


def near_duplicates(
    first: Tensor,
    second: Tensor | None = None,
    *,
    max_distance: int = MAX_DISTANCE,
    min_correlation: float = MIN_CORRELATION,
) -> Duplicates:
    """All pairs of equal or nearly equal faces.

    Args:
        first: (N, C, H, W) uint8.
        second: (M, C, H, W) uint8 of the same size; None = pairs i < j within ``first``.
        max_distance: hashes of a pair differ in at most so many of 64 bits.
        min_correlation: pixels of a pair correlate above it. Faces with less than one gray level of contrast are
            paired only when they are identical.
    """
    within = second is None
    second = first if within else second
    signs = [perceptual_hash(images).float().mul_(2).sub_(1) for images in (first, second)]
    keys = [exact_hash(images) for images in (first, second)]
    rows, columns, values, same = [], [], [], []
    for start in range(0, len(first), _CHUNK):
        offset = start if within else 0  # pairs i < j need no column before the chunk's own
        close = signs[0][start : start + _CHUNK] @ signs[1][offset:].T >= 64 - 2 * max_distance  # = 64 - 2 * distance
        found = torch.from_numpy(np.flatnonzero((close.triu_(1) if within else close).numpy()))
        for index in found.split(_CHUNK):
            i, j = index // close.shape[1] + start, index % close.shape[1] + offset
            exact = keys[0][i] == keys[1][j]
            correlation = torch.where(exact, 1.0, _correlation(first[i], second[j]))
            keep = exact | (correlation > min_correlation)
            rows.append(i[keep])
            columns.append(j[keep])
            values.append(correlation[keep])
            same.append(exact[keep])
    empty = torch.empty(0, dtype=torch.int64)
    return Duplicates(
        first=torch.cat([empty, *rows]),
        second=torch.cat([empty, *columns]),
        exact=torch.cat([empty.bool(), *same]),
        correlation=torch.cat([empty.float(), *values]),
    )


def duplicate_groups(images: Tensor) -> Tensor:
    """(N,) int64 group numbers from 0; chains of near-duplicates share a group.

    Repeats are folded before the search, so that many copies of one picture cost nothing.
    """
    inverse = _pictures(images)
    representatives = _first_rows(inverse)
    pairs = near_duplicates(images[representatives])
    count = len(representatives)
    graph = coo_array((torch.ones(len(pairs)).numpy(), (pairs.first.numpy(), pairs.second.numpy())), (count, count))
    _, label = connected_components(graph, directed=False)
    return torch.from_numpy(label).long()[inverse]


@dataclass(frozen=True)
class Leak:
    """Faces of ``split`` that ``other`` (an earlier split: train before validation before test) has seen.

    Attributes:
        split, other: names of the two splits.
        faces: number of faces in ``split``.
        exact: faces of ``split`` with an identical one in ``other``.
        near: faces of ``split`` with an identical or nearly identical one in ``other``.
        exact_other_label: of ``exact``, those where some identical face of ``other`` has another expression.
        near_other_label: of ``near``, likewise.
        subjects: people who are in both.
        rows: (near,) int64, the rows of ``split`` that ``near`` counts, for figures without them.
    """

    split: str
    other: str
    faces: int
    exact: int
    near: int
    exact_other_label: int
    near_other_label: int
    subjects: int
    rows: Tensor

    def to_dict(self) -> dict[str, str | int]:
        """All but ``rows``, for a report."""
        return {name: value for name, value in vars(self).items() if name != "rows"}


def leaks(
    splits: Mapping[str, FaceTable], *, max_distance: int = MAX_DISTANCE, min_correlation: float = MIN_CORRELATION
) -> list[Leak]:
    """One :class:`Leak` for each pair of splits, counted in the later one of the mapping's order.

    Args:
        splits: tables of one image size over the same classes, in the order train, validation, test.
        max_distance, min_correlation: as for :func:`near_duplicates`.
    """
    names = list(splits)
    found = []
    for later, split in enumerate(names):
        for other in names[:later]:
            a, b = splits[other], splits[split]
            # A picture with one label needs to be searched once, however often it is repeated.
            rows_a = _first_rows(_pictures(a.images, a.expression))
            inverse = _pictures(b.images, b.expression)
            rows_b = _first_rows(inverse)
            pairs = near_duplicates(
                a.images[rows_a], b.images[rows_b], max_distance=max_distance, min_correlation=min_correlation
            )
            labels = a.expression[rows_a][pairs.first], b.expression[rows_b][pairs.second]
            differs = (labels[0] != labels[1]) & (labels[0] >= 0) & (labels[1] >= 0)

            near = _marked(pairs.second, inverse)
            people = [set(table.subject[table.subject >= 0].tolist()) for table in (a, b)]
            found.append(
                Leak(
                    split=split,
                    other=other,
                    faces=len(b),
                    exact=int(_marked(pairs.second[pairs.exact], inverse).sum()),
                    near=int(near.sum()),
                    exact_other_label=int(_marked(pairs.second[pairs.exact & differs], inverse).sum()),
                    near_other_label=int(_marked(pairs.second[differs], inverse).sum()),
                    subjects=len(people[0] & people[1]),
                    rows=torch.where(near)[0],
                )
            )
    return found


def repeats(images: Tensor) -> tuple[int, int]:
    """How many faces repeat an earlier one of the set: exactly, and at least nearly."""
    return tuple(len(images) - len(torch.unique(groups(images))) for groups in (_pictures, duplicate_groups))


def _pictures(images: Tensor, *columns: Tensor) -> Tensor:
    """(N,) int64 numbers from 0, equal where images and columns are equal."""
    return torch.unique(torch.stack([exact_hash(images), *columns], 1), dim=0, return_inverse=True)[1]


def _first_rows(inverse: Tensor) -> Tensor:
    """The first row of each group 0..G-1."""
    count = int(inverse.max()) + 1 if len(inverse) else 0
    rows = torch.arange(len(inverse))
    return torch.full((count,), len(inverse)).scatter_reduce(0, inverse, rows, "amin")


def _marked(groups: Tensor, inverse: Tensor) -> Tensor:
    """(N,) bool, whether the group of each row is one of ``groups``."""
    return torch.isin(inverse, groups)


def _gray(images: Tensor) -> Tensor:
    return images.float().mean(1)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of the gray pixels of N pairs; 0 where a face is flat."""
    a, b = (_gray(images).flatten(1) for images in (first, second))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    deviations = a.square().mean(1).sqrt(), b.square().mean(1).sqrt()
    correlation = (a * b).mean(1) / (deviations[0] * deviations[1]).clamp(min=1e-6)
    return torch.where((deviations[0] >= _FLAT) & (deviations[1] >= _FLAT), correlation, 0.0)
