"""How near a set of synthesized faces comes to a set of real ones, as distributions of features.

All measures take features (N, D), so that they agree on what a face is; see :mod:`synthmtl.metrics.features`.
Distances are computed in double precision.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthmtl.data.pixels import to_unit
from synthmtl.data.randomness import derive_seed
from synthmtl.errors import InputError

FID_FACES = 2048
"""Below so many faces on either side, FID says more about their number than about them (Binkowski et al., 2018)."""

NEIGHBORS = 5
"""k of precision, recall, density and coverage, as Naeem et al. recommend."""

_CHUNK = 512
_SAME = 1e-10  # of the squared scale of the features: what rounding in a network leaves between equal images


def frechet_distance(real: Tensor, synthetic: Tensor) -> float:
    """‖μ - μ'‖² + Tr(Σ + Σ' - 2 (Σ Σ')^½): FID in any features (Heusel et al., NeurIPS 2017), by torchmetrics.

    With fewer faces than features the sets are first turned into the space that they span, which changes nothing but
    the time it takes.

    Args:
        real, synthetic: (N, D) and (M, D) features.

    Raises:
        InputError: if a set has fewer than 2 faces.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # a second, which only quality cards need

    _check(real, synthetic, 2)
    real, synthetic = real.cpu(), synthetic.cpu()
    both = torch.cat([real, synthetic]).double()
    both = both - both.mean(0)
    if len(both) < both.shape[1]:
        both = both @ torch.linalg.svd(both, full_matrices=False).Vh.T
    through = nn.Identity()
    through.num_features = both.shape[1]  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=through, normalize=True)
    metric.update(both[: len(real)], real=True)
    metric.update(both[len(real) :], real=False)
    return max(float(metric.compute()), 0.0)


@dataclass(frozen=True)
class KernelDistance:
    """KID.

    Attributes:
        value: mean over the subsets; unbiased, so that it may be a little below 0 for equal distributions.
        ci95: [low, high], 2.5 % and 97.5 % quantile over the subsets.
        subsets, subset_size: how many, and of how many faces of each set.
    """

    value: float
    ci95: list[float]
    subsets: int
    subset_size: int


def kernel_distance(
    real: Tensor, synthetic: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Squared maximum mean discrepancy with the kernel (x·y / D + 1)³ (Binkowski et al., ICLR 2018), by torchmetrics.

    Subsets hold at most half of the smaller set: subsets of half a sample scatter about its value as much as that
    scatters about the truth, while subsets of a whole one would all be alike and the interval empty.

    Args:
        real, synthetic: (N, D) and (M, D) features.
        subsets: drawn, each without replacement.
        subset_size: largest number of faces of a subset.
        seed: of the draws.

    Raises:
        InputError: if a set has fewer than 4 faces.
    """
    from torchmetrics.image.kid import poly_mmd

    _check(real, synthetic, 4)
    real, synthetic = real.cpu(), synthetic.cpu()
    size = min(subset_size, len(real) // 2, len(synthetic) // 2)
    generator = torch.Generator().manual_seed(derive_seed("kernel distance", seed))
    pair = (real.double(), synthetic.double())
    values = torch.stack(
        [
            poly_mmd(*(faces[torch.randperm(len(faces), generator=generator)[:size]] for faces in pair))  # type: ignore[arg-type]
            for _ in range(subsets)
        ]
    )
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return KernelDistance(float(values.mean()), [low, high], subsets, size)


@dataclass(frozen=True)
class ManifoldScores:
    """Fidelity and variety apart, from balls around each face that reach to its k-th neighbor in its own set.

    Attributes:
        precision: share of synthesized faces inside a real ball. recall: share of real faces inside a synthesized ball.
        density: real balls around a synthesized face, mean over them, over k; may exceed 1.
        coverage: share of real balls that hold a synthesized face.
        k: which neighbor.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def manifold_scores(real: Tensor, synthetic: Tensor, *, k: int = NEIGHBORS) -> ManifoldScores:
    """Improved precision and recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al., 2020).

    Precision counts a synthesized face once; density counts every ball it lies in, so that one stray real face with a
    large ball cannot make everything precise. Coverage looks at real balls, which stray synthesized faces do not widen.
    Balls shrink as sets grow: compare sets of the same sizes.

    Args:
        real, synthetic: (N, D) and (M, D) features.
        k: balls reach to the k-th neighbor.

    Raises:
        InputError: if a set has no more than k faces.
    """
    _check(real, synthetic, k + 1)
    real, synthetic = real.cpu(), synthetic.cpu()
    radius = nearest(real, None, k=k)[0][:, -1]
    made_radius = nearest(synthetic, None, k=k)[0][:, -1]
    recalled, covered = (torch.zeros(len(real), dtype=torch.bool) for _ in range(2))
    precise, dense = 0, 0
    for rows, distance in distances(synthetic, real):
        inside = distance <= radius
        precise += int(inside.any(1).sum())
        dense += int(inside.sum())
        covered |= inside.any(0)
        recalled |= (distance <= made_radius[rows, None]).any(0)
    return ManifoldScores(
        precision=precise / len(synthetic),
        recall=float(recalled.double().mean()),
        density=dense / (k * len(synthetic)),
        coverage=float(covered.double().mean()),
        k=k,
    )


def nearest(features: Tensor, others: Tensor | None, *, k: int = 1) -> tuple[Tensor, Tensor]:
    """Distances (N, k) double, ascending, and rows (N, k) of the k nearest ``others``; None = in the set itself.

    Raises:
        InputError: if there are fewer than k others.
    """
    within = others is None
    others = features if others is None else others
    if len(others) - within < k:
        raise InputError(f"{len(others)} faces have no {k} neighbors: give more of them")
    found = []
    for rows, distance in distances(features, others):
        if within:
            distance[torch.arange(len(distance)), torch.arange(rows.start, rows.stop)] = float("inf")
        found.append(distance.topk(k, largest=False))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances (rows, M) double of N features to M others, some rows at a time; 0 for equal images."""
    center = b.double().mean(0)
    a, b = a.double() - center, b.double() - center
    squares = b.square().sum(1)
    scale = torch.maximum(a.square().sum(1).max(), squares.max())
    for start in range(0, len(a), _CHUNK):
        part = a[start : start + _CHUNK]
        squared = part.square().sum(1, keepdim=True) + squares - 2 * part @ b.T
        squared = torch.where(squared <= _SAME * scale, 0.0, squared)
        yield slice(start, start + len(part)), squared.sqrt()


def mean_pair_distance(features: Tensor) -> float:
    """Mean distance of all pairs of different faces of a set: its variety.

    Raises:
        InputError: if it has fewer than 2 faces.
    """
    _check(features, features, 2)
    total = sum(float(distance.sum()) for _, distance in distances(features, features))
    return total / (len(features) * (len(features) - 1))


def mean_perceptual_distance(
    distance: nn.Module, images: Tensor, *, pairs: int = 200, seed: int = 0, device: torch.device | str = "cpu"
) -> float:
    """Mean perceptual distance of random pairs of different faces, such as LPIPS (Zhang et al., CVPR 2018).

    Args:
        distance: (faces, faces) in [-1, 1] → (B,).
        images: (N, C, H, W) uint8.
        pairs: how many are drawn.
        seed: of the draw.
        device: where it computes.

    Raises:
        InputError: if there are fewer than 2 faces.
    """
    _check(images, images, 2)
    generator = torch.Generator().manual_seed(derive_seed("pairs", seed))
    first = torch.randint(len(images), (pairs,), generator=generator)
    second = (first + torch.randint(1, len(images), (pairs,), generator=generator)) % len(images)
    distance, total = distance.to(device), 0.0
    with torch.no_grad():
        for rows in torch.stack([first, second]).split(32, 1):
            a, b = (to_unit(images[row], device) for row in rows)
            total += float(distance(a, b).sum())
    return total / pairs


def _check(real: Tensor, synthetic: Tensor, least: int) -> None:
    for name, faces in (("real", real), ("synthesized", synthetic)):
        if len(faces) < least:
            raise InputError(f"{len(faces)} {name} faces, at least {least} are needed")
