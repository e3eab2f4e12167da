"""How well action units are recognized (F1) and their intensities measured (ICC), over the whole split."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS
from synthmtl.metrics.bootstrap import FaceSums, matched_arrays, mean_of_defined, or_none

THRESHOLD = 0.5
"""Intensity from which a unit counts as active unless another threshold is given, in labels and in predictions.

Data sets have rules of their own: DISFA's is a grade of at least 2 of 5, a threshold of 0.4, and in CK+ every unit that
the coders marked is active, a threshold of 0.2, the least grade.
"""


@dataclass(frozen=True)
class ActionUnitResult:
    """Scores of one network on one split; None = undefined there.

    Attributes:
        mean_f1: mean of the units' F1 of being active, over the units that are active on some face of the split.
        mean_icc: mean of the units' ICC(3,1), the consistency of predicted with labelled intensities (Shrout and
            Fleiss, 1979), over the units whose labels vary.
        threshold: intensity from which a unit counted as active.
        per_unit_f1, per_unit_icc, per_unit_count: by unit; the last are the faces that carry it.
        count: faces with a label of some unit. missing: faces with none, left out of everything else.
        without_positives: units that are active on no labelled face, or on no face labelled; their F1 is undefined.
        without_variation: units whose labels do not vary; their ICC is undefined.
    """

    mean_f1: float | None
    mean_icc: float | None
    threshold: float
    per_unit_f1: dict[str, float | None]
    per_unit_icc: dict[str, float | None]
    per_unit_count: dict[str, int]
    count: int
    missing: int
    without_positives: list[str]
    without_variation: list[str]

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def action_unit_metrics(
    output: Tensor, action_units: Tensor, *, units: Sequence[str] = ACTION_UNITS, threshold: float = THRESHOLD
) -> ActionUnitResult:
    """Scores of intensities ``output`` (N, A) against ``action_units`` (N, A) in [0, 1], NaN = missing.

    Args:
        threshold: intensity from which a unit counts as active, in labels and in outputs alike, so that true
            intensities always have an F1 of 1: 0.4 for DISFA, 0.2 for CK+, see :data:`THRESHOLD`.

    Raises:
        InputError: if the shapes disagree, an output is NaN, no face has a label, or the threshold is not in (0, 1].
    """
    outputs, truth, _ = _labelled(output, action_units, units)
    f1 = _f1(_counts(outputs, truth, threshold)[0].sum(0, dtype=np.float64))
    icc = np.array([consistency(*pair) for pair in zip(outputs[0].T, truth.T, strict=True)])
    return ActionUnitResult(
        mean_f1=or_none(mean_of_defined(f1)),
        mean_icc=or_none(mean_of_defined(icc)),
        threshold=threshold,
        per_unit_f1={name: or_none(value) for name, value in zip(units, f1, strict=True)},
        per_unit_icc={name: or_none(value) for name, value in zip(units, icc, strict=True)},
        per_unit_count=dict(zip(units, (~np.isnan(truth)).sum(0).tolist(), strict=True)),
        count=len(truth),
        missing=len(action_units) - len(truth),
        without_positives=[name for name, value in zip(units, f1, strict=True) if np.isnan(value)],
        without_variation=[name for name, value in zip(units, icc, strict=True) if np.isnan(value)],
    )


def action_unit_sums(outputs: Tensor, action_units: Tensor, *, threshold: float = THRESHOLD) -> FaceSums:
    """The mean F1 of outputs (S, N, A) as a score of sums. Threshold and errors as :func:`action_unit_metrics`."""
    given, truth, labelled = _labelled(outputs, action_units, range(action_units.shape[-1]))
    return FaceSums(_counts(given, truth, threshold), labelled, lambda sums: mean_of_defined(_f1(sums)))


def consistency(x: np.ndarray, y: np.ndarray) -> float:
    """ICC(3,1) of two raters (Shrout and Fleiss, 1979), x and y (N,), over the faces where y is not NaN.

        ICC(3,1) = (BMS - EMS) / (BMS + EMS) = 2 s_xy / (s_x² + s_y²)

    with the mean squares between faces (s_x² + s_y² + 2 s_xy) / 2 and of the residual (s_x² + s_y² - 2 s_xy) / 2. A
    rater that is off by a constant loses nothing. NaN if y does not vary.
    """
    known = ~np.isnan(y)
    x, y = x[known], y[known]
    if not len(y) or y.max() == y.min():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(2 * (x * y).sum() / ((x * x).sum() + (y * y).sum()))


def _labelled(
    outputs: Tensor | np.ndarray, action_units: Tensor, units: Sequence
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs (S, N', A) and labels (N', A) of the faces that have a label of some unit, and which these are (N,)."""
    outputs, truth = matched_arrays(outputs, action_units, "action units")
    if truth.ndim != 2 or truth.shape[1] != len(units):
        raise InputError(f"action units must be (faces, {len(units)}), not {truth.shape}")
    labelled = ~np.isnan(truth).all(1)
    if not labelled.any():
        raise InputError("no face of the split has an action unit label: nothing can be scored")
    return outputs[:, labelled], truth[labelled], labelled


def _counts(outputs: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each unit of each face is rightly found, found, and there: (S, N, 3 A) float32."""
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold of action units lies in (0, 1], not {threshold}")
    # Labels are float32: a threshold of 0.7 in float64 is a little more than theirs.
    cut = np.float32(threshold)
    found = (outputs.astype(np.float32) >= cut) & ~np.isnan(truth)
    there = np.broadcast_to(truth.astype(np.float32) >= cut, found.shape)
    return np.concatenate([found & there, found, there], -1).astype(np.float32)


def _f1(sums: np.ndarray) -> np.ndarray:
    """F1 = 2 tp / (found + there) of each unit, (..., 3 A) → (..., A); NaN without positives."""
    right, found, there = np.split(sums, 3, axis=-1)
    return np.where(there > 0, 2 * right / np.maximum(found + there, 1), np.nan)
