"""Whether one method is better than another: differences paired by training seed and by test face.

Two methods that saw the same test faces share most of the luck of the draw; resampling people jointly takes it out of
their difference, which two separate intervals cannot do (paired bootstrap: Efron and Tibshirani, 1993, and for
comparing systems Koehn, EMNLP 2004). The intervals are not corrected for the number of comparisons made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.metrics.bootstrap import interval
from synthmtl.metrics.recognition import (
    confusion_matrices,
    labelled_predictions,
    minority_index,
    of_labelled,
    resampled_scores,
    score,
)


@dataclass(frozen=True)
class Comparison:
    """Method a minus method b.

    Attributes:
        metric: one of ``recognition.METRICS``, or of ``multitask.HEADLINES``.
        difference: mean over seeds of a's score minus b's, in [-1, 1].
        ci95: ``[low, high]`` of the difference (at the confidence asked for).
        per_seed: (S,) the plain difference of each seed.
        faces: labelled test faces that took part.
    """

    metric: str
    difference: float
    ci95: list[float]
    per_seed: list[float]
    faces: int

    def as_dict(self, a: str, b: str) -> dict:
        """Entry of ``comparisons`` in ``report.json``, under the methods' names."""
        return {
            "a": a,
            "b": b,
            "metric": self.metric,
            "difference": self.difference,
            "ci95": self.ci95,
            "paired_by": "seed",
            "per_seed": self.per_seed,
            "faces": self.faces,
        }


@dataclass(frozen=True)
class GapShare:
    """Share of the gap between ``plain`` and ``oracle`` that a method recovers.

    Attributes:
        metric: one of ``recognition.METRICS``.
        share: (method - plain) / (oracle - plain); 1 = as good as the oracle; None where the gap is not above zero.
        ci95: ``[low, high]`` of the share, or None with it.
        gap: oracle - plain, mean over seeds.
        gap_ci95: ``[low, high]`` of the gap.
    """

    metric: str
    share: float | None
    ci95: list[float] | None
    gap: float
    gap_ci95: list[float]

    def as_dict(self, method: str) -> dict:
        """Entry of ``share_of_gap`` in ``report.json``, under the method's name."""
        return {
            "method": method,
            "metric": self.metric,
            "share": self.share,
            "ci95": self.ci95,
            "gap": self.gap,
            "gap_ci95": self.gap_ci95,
        }


def compare_paired(
    a: Tensor,
    b: Tensor,
    expression: Tensor,
    classes: Sequence[str],
    *,
    subject: Tensor | None = None,
    metric: str = "macro_f1",
    minority: Sequence[str] = (),
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Difference a - b of a score, with its bootstrap interval.

    Each replicate draws people with replacement, the same ones for both methods and all seeds, with all of their faces,
    and seeds with replacement, the same ones for both methods. As in ``bootstrap_intervals``, few seeds make it too
    narrow where seeds matter more than faces: in a simulation with 3 seeds whose scores had a standard deviation of
    0.02, the nominal 95 % were 94 % on 640 test faces and 81 % on 3,500; with a standard deviation of 0.01 they were at
    least 94 % on both.

    Args:
        a, b: predicted classes (S, N) of the two methods, integers, or probabilities (S, N, K), floating; row i of
            both was trained with the same seed, column j of both is the same face.
        expression: (N,) int64, -1 = missing.
        subject: (N,) int64, -1 = unknown; None: faces are drawn.
        metric: one of ``recognition.METRICS``.
        minority: the classes of ``minority_recall``, see ``minority_classes``.
        samples: replicates.
        confidence: coverage in (0, 1).
        seed: of the resampling.

    Raises:
        InputError: if the shapes differ, the metric is unknown, or no minority class is in the split.
    """
    points, replicates, faces = _scores_together(
        {"a": a, "b": b},
        expression,
        classes,
        subject=subject,
        metric=metric,
        minority=minority,
        samples=samples,
        seed=seed,
    )
    per_seed = points[0] - points[1]
    return Comparison(
        metric=metric,
        difference=float(per_seed.mean()),
        ci95=interval(replicates[0] - replicates[1], confidence),
        per_seed=per_seed.tolist(),
        faces=faces,
    )


def share_of_gap(
    method: Tensor,
    plain: Tensor,
    oracle: Tensor,
    expression: Tensor,
    classes: Sequence[str],
    *,
    subject: Tensor | None = None,
    metric: str = "macro_f1",
    minority: Sequence[str] = (),
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> GapShare:
    """(method - plain) / (oracle - plain) of the mean scores over seeds, resampled as in :func:`compare_paired`.

    A ratio means nothing when its denominator may be zero: unless the whole interval of oracle - plain lies above
    zero, ``share`` and ``ci95`` are None and only the gap is given. Arguments and errors as :func:`compare_paired`.
    """
    points, replicates, _ = _scores_together(
        {"method": method, "plain": plain, "oracle": oracle},
        expression,
        classes,
        subject=subject,
        metric=metric,
        minority=minority,
        samples=samples,
        seed=seed,
    )
    mean = points.mean(1)
    gap, gaps = float(mean[2] - mean[1]), replicates[2] - replicates[1]
    gap_ci95 = interval(gaps, confidence)
    if gap_ci95[0] <= 0:
        return GapShare(metric, None, None, gap, gap_ci95)
    shares = (replicates[0] - replicates[1])[gaps != 0] / gaps[gaps != 0]
    return GapShare(metric, float(mean[0] - mean[1]) / gap, interval(shares, confidence), gap, gap_ci95)


def minority_classes(train_counts: dict[str, int], held_out: dict[str, int] | None = None) -> tuple[str, ...]:
    """Classes with fewer than a third of the mean class count of the training split, in the order given.

    The mean count is what each class would have if the same faces were spread evenly; a third of it separates
    FER2013's disgust (415 of a mean of 3,863) from its next rarest class (2,860). Balanced counts give ``()``. With the
    counts of a split that is ``held_out`` those without a face there, which have no recall, are left out.
    """
    if not train_counts:
        return ()
    threshold = sum(train_counts.values()) / len(train_counts) / 3
    shown = train_counts if held_out is None else {name for name in train_counts if held_out.get(name)}
    return tuple(name for name, count in train_counts.items() if count < threshold and name in shown)


def _scores_together(
    outputs: dict[str, Tensor],
    expression: Tensor,
    classes: Sequence[str],
    *,
    subject: Tensor | None,
    metric: str,
    minority: Sequence[str],
    samples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (M, S) and joint bootstrap replicates (M, samples) of M methods, and the faces that took part."""
    predictions = []
    for values in outputs.values():
        rows, truth, _ = labelled_predictions(values, expression, classes)
        predictions.append(rows)
    sizes = {name: len(rows) for name, rows in zip(outputs, predictions, strict=True)}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(f"a paired comparison needs the same seeds of every method: {given}")
    stacked = np.stack(predictions)
    rare = minority_index(minority, classes, truth) if metric == "minority_recall" else None
    points = score(confusion_matrices(stacked, truth, len(classes)), metric, minority=rare)
    replicates = resampled_scores(
        stacked,
        truth,
        classes,
        subject=of_labelled(subject, expression),
        metrics=[metric],
        minority=minority,
        samples=samples,
        seed=seed,
    )
    return points, replicates[metric], len(truth)
