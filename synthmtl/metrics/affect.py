"""How well valence and arousal are predicted: CCC, Pearson correlation, RMSE, over the whole split.

All three are functions of the same sums over faces, so that point estimates and bootstrap replicates go through the
same lines. CCC has Lin's population moments, as the loss has; ``torchmetrics`` divides by n - 1 and knows no value for
predictions that do not vary, which here have CCC 0.
"""

from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.metrics.bootstrap import FaceSums, matched_arrays, mean_of_defined, or_none

DIMENSIONS = ("valence", "arousal")
"""Columns of ``FaceBatch.valence_arousal``."""

_CONSTANT = 1e-12  # variance up to which numbers in [-1, 1] do not vary


@dataclass(frozen=True)
class AffectResult:
    """Scores of one network on one split; None = undefined there.

    Attributes:
        ccc: mean over the dimensions of Lin's concordance correlation coefficient (1989), in [-1, 1].
        pearson: mean of their correlations. rmse: mean of their root mean squared errors.
        per_dimension: {``valence``, ``arousal``: {``ccc``, ``pearson``, ``rmse``, ``count``}}; the last are the faces
            that carry it.
        count: faces with a label of either. missing: faces with none, left out of everything else.
        absent: dimensions without a label, or whose labels do not vary, and which therefore have no CCC and no
            correlation; the means leave them out.
    """

    ccc: float | None
    pearson: float | None
    rmse: float | None
    per_dimension: dict[str, dict]
    count: int
    missing: int
    absent: list[str]

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def affect_metrics(output: Tensor, valence_arousal: Tensor) -> AffectResult:
    """Scores of ``output`` (N, 2) against ``valence_arousal`` (N, 2) in [-1, 1], NaN = missing.

    Raises:
        InputError: if the shapes disagree, an output is NaN, or no face has a label.
    """
    statistics, labelled = _statistics(output, valence_arousal)
    sums, count = statistics[0].sum(0), int(labelled.sum())
    scores = {"ccc": _ccc(sums), "pearson": _pearson(sums), "rmse": _rmse(sums)}
    per_dimension = {
        name: {key: or_none(values[i]) for key, values in scores.items()} | {"count": int(_split(sums)[i, 0])}
        for i, name in enumerate(DIMENSIONS)
    }
    return AffectResult(
        **{key: or_none(mean_of_defined(values)) for key, values in scores.items()},
        per_dimension=per_dimension,
        count=count,
        missing=len(valence_arousal) - count,
        absent=[name for name in DIMENSIONS if per_dimension[name]["ccc"] is None],
    )


def affect_sums(outputs: Tensor, valence_arousal: Tensor) -> FaceSums:
    """The mean CCC of outputs (S, N, 2) as a score of sums. Errors as :func:`affect_metrics`."""
    return FaceSums(*_statistics(outputs, valence_arousal), lambda sums: mean_of_defined(_ccc(sums)))


def _statistics(outputs: Tensor | np.ndarray, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """1, x, y, x², y², xy of both dimensions, 0 where a label is missing: (S, N', 12); and which N' have a label."""
    outputs, truth = matched_arrays(outputs, labels, "valence and arousal")
    if truth.shape[1:] != (2,):
        raise InputError(f"valence and arousal must be (faces, 2), not {truth.shape}")
    present = ~np.isnan(truth)
    labelled = present.any(1)
    if not labelled.any():
        raise InputError("no face of the split has a valence or arousal label: nothing can be scored")
    x, y = np.broadcast_arrays(outputs[:, labelled], truth[labelled])
    parts = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
    parts = np.where(present[labelled][..., None], parts, 0.0)
    return parts.reshape(*parts.shape[:2], -1), labelled


def _split(sums: np.ndarray) -> np.ndarray:
    return sums.reshape(*sums.shape[:-1], len(DIMENSIONS), 6)


def _moments(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """Means of x and y, population variances, covariance, each (..., 2); the variance of y is NaN where it is 0."""
    sums = _split(sums)
    count, *rest = np.moveaxis(sums, -1, 0)
    mean_x, mean_y, xx, yy, xy = (part / np.maximum(count, 1) for part in rest)
    variance_x, variance_y = (xx - mean_x**2).clip(min=0), yy - mean_y**2
    variance_y = np.where(variance_y > _CONSTANT, variance_y, np.nan)
    return mean_x, mean_y, variance_x, variance_y, xy - mean_x * mean_y


def _ccc(sums: np.ndarray) -> np.ndarray:
    mean_x, mean_y, variance_x, variance_y, covariance = _moments(sums)
    return 2 * covariance / (variance_x + variance_y + (mean_x - mean_y) ** 2)


def _pearson(sums: np.ndarray) -> np.ndarray:
    _, _, variance_x, variance_y, covariance = _moments(sums)
    return covariance / np.sqrt(np.where(variance_x > _CONSTANT, variance_x, np.nan) * variance_y)


def _rmse(sums: np.ndarray) -> np.ndarray:
    count, _, _, xx, yy, xy = np.moveaxis(_split(sums), -1, 0)
    squares = (xx - 2 * xy + yy).clip(min=0) / np.maximum(count, 1)
    return np.where(count > 0, np.sqrt(squares), np.nan)
