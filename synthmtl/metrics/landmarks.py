"""How well landmarks are found: mean error by inter-ocular distance and its cumulative curve, over the whole split."""

from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.metrics.bootstrap import FaceSums, matched_arrays

OUTER_EYE_CORNERS = (36, 45)
"""Points of the 68 whose distance is the inter-ocular distance of the 300-W benchmark (Sagonas et al., 2013)."""


@dataclass(frozen=True)
class LandmarkResult:
    """Errors of one network on one split; an error of 0.035 is 3.5 % of the distance of the outer eye corners.

    Attributes:
        nme: normalized mean error: over faces, of the mean over a face's known points of their distance from the truth,
            divided by the distance of the true outer eye corners.
        auc: area under the cumulative curve of the faces' errors up to ``threshold``, divided by it: 1 = no error.
        failure_rate: share of faces whose error is above ``threshold``.
        threshold: of the two above.
        count: faces scored. missing: faces without a point. without_eyes: faces with points but without both outer eye
            corners, or with both in one place, which have no error; both are left out of everything else.
    """

    nme: float
    auc: float
    failure_rate: float
    threshold: float
    count: int
    missing: int
    without_eyes: int

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def landmark_metrics(output: Tensor, landmarks: Tensor, *, threshold: float = 0.08) -> LandmarkResult:
    """Errors of ``output`` (N, 68, 2) against ``landmarks`` (N, 68, 2), NaN = missing, both in one unit.

    Raises:
        InputError: if the shapes disagree, an output is NaN, the threshold is not above 0, or no face can be scored.
    """
    if not threshold > 0:
        raise InputError(f"the threshold of landmark errors must be above 0, not {threshold}")
    errors, scored, known = _errors(output, landmarks)
    errors = errors[0]
    return LandmarkResult(
        nme=float(errors.mean()),
        # The curve is a staircase: each face adds the stretch between its error and the threshold.
        auc=float((1 - errors / threshold).clip(min=0).mean()),
        failure_rate=float((errors > threshold).mean()),
        threshold=threshold,
        count=int(scored.sum()),
        missing=int((~known).sum()),
        without_eyes=int((known & ~scored).sum()),
    )


def landmark_sums(outputs: Tensor, landmarks: Tensor) -> FaceSums:
    """The NME of outputs (S, N, 68, 2) as a score of sums. Errors as :func:`landmark_metrics`."""
    errors, scored, _ = _errors(outputs, landmarks)
    return FaceSums(np.stack([errors, np.ones_like(errors)], -1), scored, lambda sums: sums[..., 0] / sums[..., 1])


def _errors(outputs: Tensor | np.ndarray, landmarks: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors (S, scored faces), and which faces (N,) are scored and which have any point."""
    outputs, truth = matched_arrays(outputs, landmarks, "landmarks")
    if truth.shape[1:] != (68, 2):
        raise InputError(f"landmarks must be (faces, 68, 2), not {truth.shape}")
    present = ~np.isnan(truth).any(-1)
    left, right = OUTER_EYE_CORNERS
    between = np.linalg.norm(truth[:, left] - truth[:, right], axis=-1)
    scored = between > 0  # False where a corner is missing: NaN
    if not scored.any():
        raise InputError(
            f"no face of the split has both outer eye corners (points {left} and {right}): no landmark can be scored"
        )
    points = present[scored]
    distances = np.where(points, np.linalg.norm(outputs[:, scored] - truth[scored], axis=-1), 0.0)
    return distances.sum(-1) / points.sum(-1) / between[scored], scored, present.any(1)
