"""Identical and nearly identical faces: one photograph, though mirrored, compressed, brightened, cropped or turned.

Candidates are found for all pairs at once by their tangent similarity: the share of one face's low frequencies that
the other face explains together with its derivatives by shift, scale and rotation (Simard et al., "Efficient Pattern
Recognition Using a New Transformation Distance", 1993). They are confirmed by the correlation of their pixels, once
one is laid over the other.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy  # which reads a part of itself when it is first named
import torch
from torch import Tensor
from torch.nn import functional as F

from synthmtl.data.alignment import MARGIN, SIDE, best_match, center, reduced, unit
from synthmtl.data.storage import FaceRows
from synthmtl.data.surround import pixels_that_count
from synthmtl.progress import shown

MIN_MATCH = 0.98
"""Correlation, once one lies on the other, from which two faces are the same photograph. Of copies with up to 4 % of
the side cut off at each edge, 99 in 100 reach 0.985. Different people in one studio, pose and light (London set) stay
below 0.976; of the two pictures of one person there, neutral and smiling, about half are above 0.98."""

MIN_CORRELATION = 0.99
"""Correlation in place from which two faces are the same photograph, neither moved nor scaled."""

_EXPLAINED = 0.95  # tangent similarity of candidates; below it lie 1 in 200 copies, cropped all around
_LOW = 5  # lowest frequencies along each side that candidates are compared by
_HASH = 8
_CHUNK = 1024  # faces compared with as many others at once: larger products take longer, and hold hundreds of MiB
_PICTURES = 128  # described or laid over each other at once: holes that so many leave in the memory are small


Wanted = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Told K candidates, rows (K,) of the first and (K,) of the second set and (K,) bool, whether one is alike the mirror
image of the other: (K,) bool, which to lay over each other."""


@dataclass(frozen=True)
class Duplicates:
    """M pairs of rows that show the same picture, ordered by ``first``, then ``second``.

    Attributes:
        first, second: (M,) int64 rows of the two sets.
        exact: (M,) bool, equal in every pixel.
        mirrored: (M,) bool, one is alike the mirror image of the other.
        correlation: (M,) float, of the gray pixels, mirrored if need be; 1 for exact pairs.
        match: (M,) float, likewise once one is moved, scaled and turned to lie on the other.
    """

    first: Tensor
    second: Tensor
    exact: Tensor
    mirrored: Tensor
    correlation: Tensor
    match: Tensor

    def __len__(self) -> int:
        return len(self.first)


def perceptual_hash(images: Tensor) -> Tensor:
    """Signs of the 8x8 lowest DCT coefficients of the faces at 32x32, about their median.

    After Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, 64) bool; brightness and contrast do not change it but by rounding.
    """
    basis = _cosines(_HASH, SIDE)
    bits = [torch.empty(0, _HASH * _HASH, dtype=torch.bool)]
    for chunk in images.split(_CHUNK):
        small = F.adaptive_avg_pool2d(chunk.float().mean(1), SIDE)
        coefficients = (basis @ (small - small.mean((1, 2), keepdim=True)) @ basis.T).flatten(1)
        bits.append(coefficients > coefficients[:, 1:].median(1, keepdim=True).values)
    return torch.cat(bits)


def exact_hash(images: Tensor | FaceRows) -> Tensor:
    """(N,) int64, equal for faces that are equal in every pixel (64 bits of BLAKE2)."""
    rows = (row for chunk in images.split(_CHUNK) for row in chunk.flatten(1).contiguous().numpy())
    digests = (hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
    numbers = (int.from_bytes(digest, "little", signed=True) for digest in digests)
    return torch.from_numpy(np.fromiter(numbers, np.int64, len(images)))


def near_duplicates(
    first: Tensor | FaceRows, second: Tensor | FaceRows | None = None, *, min_match: float = MIN_MATCH
) -> Duplicates:
    """All pairs of equal or nearly equal faces; 27,000 against 3,400 take about 5 seconds of one core.

    Args:
        first: (N, C, H, W) uint8.
        second: (M, C, H, W) uint8 of the same size; None = pairs i < j within ``first``.
        min_match: pixels of a pair correlate above it, once one lies on the other. Faces with less than one gray
            level of contrast are paired only when they are identical. What all faces have around them, such as a
            mask, does not count (:mod:`~synthmtl.data.surround`).
    """
    none = torch.empty(0, dtype=torch.int64)
    parts = [Duplicates(none, none, none.bool(), none.bool(), none.float(), none.float())]
    parts += confirmed_pairs(first, second, min_match=min_match)
    pairs = {name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    order = np.lexsort((pairs["second"].numpy(), pairs["first"].numpy()))
    return Duplicates(**{name: column[order] for name, column in pairs.items()})


def confirmed_pairs(
    first: Tensor | FaceRows,
    second: Tensor | FaceRows | None = None,
    *,
    min_match: float = MIN_MATCH,
    wanted: Wanted | None = None,
) -> Iterator[Duplicates]:
    """The pairs of :func:`near_duplicates` a few at a time, in no order, for those who need only some of them.

    Every two of N frames of a clip look alike: N² / 2 pairs, of which a chain of N tells all that a count needs.

    Args:
        first, second, min_match: as for :func:`near_duplicates`.
        wanted: chooses between candidates whenever some are to be compared, and may heed the pairs that came before;
            identical faces are paired in any case. None = all.
    """
    keys = [exact_hash(images) for images in (first, first if second is None else second)]
    counts = pixels_that_count(first, second)
    for candidates in _batches(_candidates(first, second, keys, counts), wanted):
        i, j, mirrored, exact = candidates[:, 0], candidates[:, 1], candidates[:, 2] == 1, candidates[:, 3] == 1
        others = reduced((first if second is None else second)[j])
        others = torch.where(mirrored[:, None, None, None], others.flip(-1), others)
        faces = reduced(first[i])
        match = torch.where(exact, 1.0, best_match(faces, others, counts=counts))
        correlation = torch.where(exact, 1.0, best_match(faces, others, steps=0, counts=counts))
        keep = exact | (match > min_match)
        if keep.any():
            found = (i, j, exact, mirrored & ~exact, correlation, match)
            yield Duplicates(*(column[keep] for column in found))


def _batches(parts: Iterable[Tensor], wanted: Wanted | None) -> Iterator[Tensor]:
    """The candidates of all parts that are wanted when their turn comes, :data:`_PICTURES` at a time."""

    def still_wanted(candidates: Tensor) -> Tensor:
        if wanted is None or not len(candidates):
            return candidates
        i, j, mirrored, exact = candidates.T
        return candidates[(exact == 1) | wanted(i, j, mirrored == 1)]

    waiting = torch.empty(0, 4, dtype=torch.int64)
    for part in parts:
        for few in part.split(_CHUNK):
            waiting = still_wanted(torch.cat([waiting, few]))
            while len(waiting) >= _PICTURES:
                yield waiting[:_PICTURES]
                waiting = still_wanted(waiting[_PICTURES:])
    if len(waiting):
        yield waiting


def _candidates(
    first: Tensor | FaceRows, second: Tensor | FaceRows | None, keys: list[Tensor], counts: Tensor | None
) -> Iterator[Tensor]:
    """Pairs that may show the same picture, (K, 4) int64 at a time: i, j, 1 where mirrored, 1 where equal by keys."""
    others = first if second is None else second
    if not (len(first) and len(others)):
        return
    points = torch.empty(len(others), _LOW**2 - 1)
    for part, faces in zip(points.split(_PICTURES), others.split(_PICTURES), strict=True):
        part[:] = tangent_points(faces, counts)
    blocks = _Blocks(min(_CHUNK, len(first)), min(_CHUNK, len(others)))
    chunks = shown(first.split(_CHUNK), "comparing pictures", unit="face", total=len(first), count=len)
    for chunk, faces in enumerate(chunks):
        start = chunk * _CHUNK
        planes = torch.cat([tangent_planes(part, counts) for part in faces.split(_PICTURES)])
        for offset in range(start if second is None else 0, len(points), _CHUNK):  # no column before the chunk's own
            rows, columns = slice(start, start + _CHUNK), slice(offset, offset + _CHUNK)
            same = keys[0][rows, None], keys[1][columns]
            found = blocks.close(planes, points[columns], same, triangle=second is None and start == offset)
            if len(found):
                # Diagonal by diagonal, in each of which a row comes once: few of those that are compared together ask
                # the same, and neighbors in a clip come first, which are the most alike.
                diagonal = ((found[:, 1] - found[:, 0]) % _CHUNK).argsort(stable=True)
                yield found[diagonal] + torch.tensor([start, offset, 0, 0])


class _Blocks:
    """Compares faces with others, a block of both at a time, each block in the memory of the one before.

    Tangent similarity is |Qᵀb|² = ⟨QQᵀ, bbᵀ⟩, with Q the basis of a face and its derivatives, b another face with
    length 1: one product of matrices for all pairs. Mirroring b changes the sign of its odd frequencies along x, hence
    of those products that have one such factor.

    Memory that each block gave back would not do for the next: glibc before 2.38 wants room to spare for aligned
    memory, finds none where something small has come to lie beside it, and takes more from the system.

    Args:
        rows, columns: of the largest block.
    """

    def __init__(self, rows: int, columns: int):
        self._products = torch.empty(2, columns * len(_FIRST))
        self._sums = torch.empty(3, rows * columns)
        self._marks = torch.empty(2, rows * columns, dtype=torch.bool)

    def close(self, planes: Tensor, points: Tensor, keys: tuple[Tensor, Tensor], *, triangle: bool) -> Tensor:
        """(K, 4) int64, as :func:`_candidates`, of N :func:`tangent_planes`, M :func:`tangent_points` and keys.

        Args:
            keys: (N, 1) and (M,).
            triangle: only pairs i < j.
        """
        n, m, terms = len(planes), len(points), len(_FIRST)
        products, factors = (memory[: m * terms].view(m, terms) for memory in self._products)
        total, sign, size = (memory[: n * m].view(n, m) for memory in self._sums)
        close, same = (memory[: n * m].view(n, m) for memory in self._marks)
        torch.index_select(points, 1, _FIRST, out=products)
        products *= torch.index_select(points, 1, _SECOND, out=factors)
        torch.mm(planes[:, :_EVEN], products[:, :_EVEN].T, out=total)
        torch.mm(planes[:, _EVEN:], products[:, _EVEN:].T, out=sign)
        total += torch.abs(sign, out=size)
        torch.gt(total, _EXPLAINED, out=close)
        close |= torch.eq(*keys, out=same)
        if triangle:
            close.triu_(1)
        found = torch.from_numpy(np.flatnonzero(close.numpy()))
        mirrored, exact = sign.view(-1)[found] < 0, same.view(-1)[found]
        return torch.stack([found // m, found % m, mirrored.long(), exact.long()], 1)


def tangent_planes(faces: Tensor, counts: Tensor | None = None) -> Tensor:
    """(N, C, H, W) uint8 → (N, 300): the entries of QQᵀ, those that mirroring changes the sign of last.

    The product with :func:`tangent_products` of another face is the tangent similarity |Qᵀb|², by the pixels that count
    (:func:`~synthmtl.data.alignment.center`).
    """
    pictures = reduced(faces)
    q = torch.linalg.qr(_tangents(pictures, counts)).Q * _has_contrast(pictures, counts)[:, :, None]
    return (q @ q.mT)[:, _FIRST, _SECOND] * torch.where(_FIRST == _SECOND, 1.0, 2.0)


def tangent_points(faces: Tensor, counts: Tensor | None = None) -> Tensor:
    """(N, C, H, W) uint8 → (N, 24): lowest frequencies b of length 1; 0 where flat."""
    pictures = reduced(faces)
    return F.normalize(_frequencies(pictures, counts) * _has_contrast(pictures, counts))


def tangent_products(points: Tensor) -> Tensor:
    """(N, 24) → (N, 300): the entries of bbᵀ, in the order of :func:`tangent_planes`."""
    return points[:, _FIRST] * points[:, _SECOND]


def _has_contrast(pictures: Tensor, counts: Tensor | None) -> Tensor:
    """(N, 1) bool."""
    return (unit(center(pictures, counts)) != 0).any(1, keepdim=True)


def _frequencies(pictures: Tensor, counts: Tensor | None) -> Tensor:
    """(N, 1, S, S) → (N, 24) lowest DCT coefficients inside the margin, without the mean, of what counts."""
    basis = F.normalize(_cosines(_LOW, SIDE - 2 * MARGIN))
    if counts is not None:
        pictures = (pictures - pictures[..., counts].mean(-1)[..., None, None]) * counts
    return (basis @ center(pictures[:, 0]) @ basis.T).flatten(1)[:, 1:]


def _tangents(pictures: Tensor, counts: Tensor | None) -> Tensor:
    """(N, 1, S, S) → (N, 24, 6): the face, and its derivatives by shift and scale along x and y and by rotation."""
    down, right = torch.gradient(pictures, dim=(2, 3))
    x = torch.linspace(-1, 1, SIDE)
    y = x[:, None]
    changes = (right, down, right * x, down * y, down * x - right * y)
    return torch.stack([_frequencies(picture, counts) for picture in (pictures, *changes)], 2)


def _cosines(count: int, side: int) -> Tensor:
    """(count, side): the DCT's lowest frequencies."""
    return torch.cos(math.pi / side * torch.outer(torch.arange(count), torch.arange(side) + 0.5))


def _order_of_products() -> tuple[Tensor, Tensor, int]:
    """Both factors of each product of two frequencies, and how many of the products mirroring does not change."""
    a, b = torch.triu_indices(_LOW**2 - 1, _LOW**2 - 1)
    column = torch.arange(1, _LOW**2) % _LOW
    odd = (column[a] + column[b]) % 2 == 1
    order = odd.int().argsort(stable=True)
    return a[order], b[order], int((~odd).sum())


_FIRST, _SECOND, _EVEN = _order_of_products()


def duplicate_groups(images: Tensor) -> Tensor:
    """(N,) int64 group numbers from 0; chains of near-duplicates share a group.

    Repeats are folded before the search, so that many copies of one picture cost nothing.
    """
    inverse = same_picture(images)
    return _chains(FaceRows(images, first_rows(inverse)))[0][inverse]


def _chains(faces: FaceRows) -> tuple[Tensor, Tensor]:
    """(N,) int64 group numbers from 0 of N faces, and (N,) bool, which resemble earlier ones only once mirrored."""
    groups = torch.arange(len(faces))
    alike, straight = torch.zeros(2, len(faces), dtype=torch.bool)  # to an earlier face, and that without mirroring

    def tells_more(i: Tensor, j: Tensor, mirrored: Tensor) -> Tensor:
        return (groups[i] != groups[j]) | ~torch.where(mirrored, alike[j], straight[j])

    for pairs in confirmed_pairs(faces, wanted=tells_more):
        alike[pairs.second] = True
        straight[pairs.second[~pairs.mirrored]] = True
        edges = groups[pairs.first].numpy(), groups[pairs.second].numpy()
        graph = scipy.sparse.coo_array((np.ones(len(pairs)), edges), (len(faces), len(faces)))
        groups = torch.from_numpy(scipy.sparse.csgraph.connected_components(graph, directed=False)[1]).long()[groups]
    return groups, alike & ~straight


def repeats(images: Tensor) -> dict[str, int]:
    """How many of N faces repeat another of them.

    Returns:
        ``exact``: equal in every pixel to an earlier face. ``near``: equal or nearly equal to one, in chains.
        ``mirrored``: of ``near``, those that resemble earlier faces only once mirrored.
    """
    inverse = same_picture(images)
    groups, mirrored = _chains(FaceRows(images, first_rows(inverse)))
    return {
        "exact": len(images) - len(groups),
        "near": len(images) - len(torch.unique(groups)),
        "mirrored": int(mirrored.sum()),
    }


def same_picture(images: Tensor, *columns: Tensor) -> Tensor:
    """(N,) int64 numbers from 0 in the order of first rows, equal where images and columns are equal."""
    groups = torch.unique(torch.stack([exact_hash(images), *columns], 1), dim=0, return_inverse=True)[1]
    return first_rows(groups).argsort().argsort()[groups]


def first_rows(groups: Tensor) -> Tensor:
    """The first row of each group 0..G-1."""
    count = int(groups.max()) + 1 if len(groups) else 0
    rows = torch.arange(len(groups))
    return torch.full((count,), len(groups)).scatter_reduce(0, groups, rows, "amin")
