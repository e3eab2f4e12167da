"""Linear probes: what can be read from features by a linear map (Alain and Bengio, 2016, arXiv 1610.01644).

Both kinds are closed forms that need one eigendecomposition for all penalties, so that a study can afford hundreds:
ridge regression for numbers (yaw, light direction), and for classes (expression, subject) linear discriminant analysis
with a ridge on the covariance within classes (Friedman: Regularized Discriminant Analysis, 1989). Regression on class
indicators would be as cheap, but never names a class whose mean lies between two others.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from synthmtl.errors import InputError

PENALTIES = tuple(10.0**k for k in range(-4, 4))
"""Penalties to choose from, per row and for features of variance one."""

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class ProbeSplit:
    """Rows to fit a probe on, to choose its penalty on, and to score it on: int64 indices."""

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True)
class ProbeResult:
    """What a probe read on rows that it never saw.

    Attributes:
        kind: ``classes`` or ``numbers``.
        value: balanced accuracy (mean recall over the classes in the test rows), or R² (1 - squared error / variance,
            mean over the columns). None where there is nothing to read: one class, or a constant.
        score: ``value`` corrected for chance, in [0, 1]: (value - 1/K) / (1 - 1/K) of K classes or R², at least 0.
        chance: 1/K, or 0 of numbers.
        penalty: the chosen one.
        rows: labelled rows of ``train``, ``validation`` and ``test``.
    """

    kind: str
    value: float | None
    score: float | None
    chance: float | None
    penalty: float | None
    rows: dict[str, int]

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def split_rows(
    unit: Tensor,
    *,
    within: Tensor | None = None,
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> ProbeSplit:
    """Rows for training, validation and test; rows of one unit stay on one side.

    With ``unit`` = subject, a probe is scored on new people. A probe *of* the subject needs the same people on all
    sides: then ``within`` = subject, and ``unit`` = session, so that it cannot read the session's light and background
    instead, or ``torch.arange(N)`` where sessions are unknown.

    Args:
        unit: (N,) int64; rows with -1 are left out.
        within: (N,) int64 or None; the units of each value are shared out on their own. Rows with -1 are left out.
        shares: of train, validation and test, about as many units each.
        seed: of the draw.

    Raises:
        InputError: if a part stays empty.
    """
    unit = unit.cpu()
    stratum = torch.zeros_like(unit) if within is None else within.cpu()
    known = (unit >= 0) & (stratum >= 0)
    keys, inverse = torch.unique(torch.stack([stratum[known], unit[known]], 1), dim=0, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.tensor(shares, dtype=torch.float64).cumsum(0)[:2]
    part = torch.empty(len(keys), dtype=torch.int64)
    for value in keys[:, 0].unique():
        own = torch.where(keys[:, 0] == value)[0]
        own = own[torch.randperm(len(own), generator=generator)]
        # With few units in each of many strata, a random phase brings the parts to their shares all the same.
        phase = 0.5 if within is None else float(torch.rand((), generator=generator))
        part[own] = torch.searchsorted(bounds, (torch.arange(len(own)) + phase) / len(own))
    rows = torch.where(known)[0]
    parts = [rows[part[inverse] == i] for i in range(3)]
    for name, chosen in zip(_PARTS, parts, strict=True):
        if not len(chosen):
            raise InputError(f"{len(keys)} units leave no row for the probe's {name} part: give faces of more units")
    return ProbeSplit(*parts)


def linear_probe(features: Tensor, target: Tensor, split: ProbeSplit) -> ProbeResult:
    """Fit on the training rows, choose the penalty on the validation rows, score on the test rows.

    Features are standardized by the training rows.

    Args:
        features: (N, D).
        target: (N,) int64 classes, -1 = missing; or (N,) or (N, T) floating numbers, NaN = missing.
        split: e.g. of :func:`split_rows`. Validation and test rows of a class without a training row are left out.

    Raises:
        InputError: if shapes disagree, a feature of a labelled row is not finite, or a part has no labelled row.
    """
    if features.ndim != 2 or len(features) != len(target):
        raise InputError(f"features {tuple(features.shape)} and target {tuple(target.shape)} must have N rows each")
    numbers = target.is_floating_point()
    features, target = features.detach().cpu(), target.detach().cpu()
    target = target.double().reshape(len(target), -1) if numbers else target.long()
    labelled = ~target.isnan().any(1) if numbers else target >= 0
    parts = [rows[labelled[rows]] for rows in (split.train, split.validation, split.test)]
    if not numbers:
        seen, _ = torch.unique(target[parts[0]], return_inverse=True)
        parts = [rows[torch.isin(target[rows], seen)] for rows in parts]
        target = torch.searchsorted(seen, target) if len(seen) else target
    counts = {name: len(rows) for name, rows in zip(_PARTS, parts, strict=True)}
    for name, count in counts.items():
        if not count:
            raise InputError(f"no labelled row in the probe's {name} part: give faces with this label on every side")
    x = [features[rows].double() for rows in parts]
    y = [target[rows] for rows in parts]
    if not all(rows.isfinite().all() for rows in x):
        raise InputError("a feature is not finite: a probe cannot read it")
    kind = "numbers" if numbers else "classes"
    if not numbers and len(seen) < 2:
        return ProbeResult(kind, None, None, None, None, counts)
    mean, spread = x[0].mean(0), x[0].std(0, correction=0)
    x = [(rows - mean) / torch.where(spread > 0, spread, 1.0) for rows in x]
    fit, measure = (fit_ridge, _r_squared) if numbers else (fit_discriminant, _balanced_accuracy)
    weights, offsets = fit(x[0], y[0], PENALTIES)
    validation = [measure(x[1] @ w + b, y[1]) for w, b in zip(weights, offsets, strict=True)]
    scored = [value for value in validation if value is not None]  # all or none: whether there is one is up to y
    if not scored:
        return ProbeResult(kind, None, None, None, None, counts)
    best = max(range(len(PENALTIES)), key=scored.__getitem__)
    value = measure(x[2] @ weights[best] + offsets[best], y[2])
    if value is None:
        return ProbeResult(kind, None, None, None, None, counts)
    chance = 0.0 if numbers else 1 / len(seen)
    score = min(1.0, max(0.0, (value - chance) / (1 - chance)))
    return ProbeResult(kind, value, score, chance, PENALTIES[best], counts)


def probe_targets(
    features: Tensor,
    targets: Mapping[str, Tensor],
    subject: Tensor,
    *,
    session: Tensor | None = None,
    seed: int = 0,
) -> dict[str, ProbeResult]:
    """A probe of every target; all but ``subject`` are scored on new subjects, as :func:`split_rows` says.

    Args:
        features: (N, D).
        targets: by name, as in :func:`linear_probe`; the one named ``subject`` is split within subjects.
        subject: (N,) int64, -1 = unknown: left out.
        session: (N,) int64, unique over subjects or not, -1 = unknown: left out of the subject's probe. Without it the
            subject's probe is split by row.
        seed: of the splits.
    """
    rows = torch.arange(len(subject)) if session is None else session
    return {
        name: linear_probe(
            features,
            target,
            split_rows(rows, within=subject, seed=seed) if name == "subject" else split_rows(subject, seed=seed),
        )
        for name, target in targets.items()
    }


def fit_ridge(x: Tensor, y: Tensor, penalties: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Ridge regression: the W, b that minimize |x W + b - y|² / N + λ |W|², for each λ of P penalties.

    Args:
        x: (N, D) float64.
        y: (N, T) float64.

    Returns:
        W (P, D, T) and b (P, T).
    """
    x_mean, y_mean = x.mean(0), y.mean(0)
    centered = x - x_mean
    weights = _ridge_solve(centered.T @ centered / len(x), centered.T @ (y - y_mean) / len(x), penalties)
    return weights, y_mean - x_mean @ weights


def fit_discriminant(x: Tensor, y: Tensor, penalties: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Discriminant functions x W + b with W = (S + λ)⁻¹ M, b = -½ diag(Mᵀ W), for each λ of P penalties.

    S (D, D) is the covariance within classes, M (D, K) are the class means; all classes are taken as equally likely,
    as balanced accuracy does. The largest function names the class.

    Args:
        x: (N, D) float64.
        y: (N,) classes 0..K-1, each with a row.

    Returns:
        W (P, D, K) and b (P, K).
    """
    one_hot = torch.nn.functional.one_hot(y).to(x.dtype)
    means = one_hot.T @ x / one_hot.sum(0)[:, None]
    centered = x - means[y]
    weights = _ridge_solve(centered.T @ centered / len(x), means.T, penalties)
    return weights, -0.5 * (means.T * weights).sum(1)


def _ridge_solve(matrix: Tensor, right: Tensor, penalties: tuple[float, ...]) -> Tensor:
    """(matrix + λ)⁻¹ right for each λ, of a symmetric (D, D) matrix without negative eigenvalues: (P, D, T)."""
    values, vectors = torch.linalg.eigh(matrix)
    shifted = values.clamp(min=0)[None, :, None] + torch.tensor(penalties, dtype=matrix.dtype)[:, None, None]
    return vectors @ ((vectors.T @ right) / shifted)


def _r_squared(predicted: Tensor, truth: Tensor) -> float | None:
    """Mean R² over the columns (N, T) that vary, None if none does."""
    variance = (truth - truth.mean(0)).square().mean(0)
    varying = variance > 1e-12 * truth.square().mean(0)
    if not varying.any():
        return None
    error = (predicted - truth).square().mean(0)
    return float((1 - error[varying] / variance[varying]).mean())


def _balanced_accuracy(functions: Tensor, truth: Tensor) -> float:
    """Mean recall over the classes in ``truth`` (N,), of the largest of ``functions`` (N, K)."""
    right = (functions.argmax(1) == truth).double()
    return float(torch.stack([right[truth == k].mean() for k in truth.unique()]).mean())
