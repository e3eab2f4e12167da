"""How well faces are recognized: accuracy, macro-F1, balanced accuracy, always over the whole split, with intervals.

Every score is a function of the confusion matrix alone, so a point estimate and each of its bootstrap replicates go
through the same few lines. Macro averages run over the classes that the split holds (as balanced accuracy in
Brodersen et al., 2010); a class without a face in the split is left out and named, never counted as 0 or 1.
The intervals are percentile bootstraps (Efron and Tibshirani, 1993).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.metrics.bootstrap import interval, mean_over_seeds, resampled_sums

METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "minority_recall")
"""Scores that intervals and comparisons know; ``minority_recall`` needs the minority classes named."""


@dataclass(frozen=True)
class RecognitionResult:
    """Scores of one recognizer on one split of N labelled faces and K classes.

    Attributes:
        accuracy: share of faces recognized, in [0, 1].
        macro_f1: mean F1 over the classes in the split, in [0, 1].
        balanced_accuracy: mean recall over the classes in the split, in [0, 1].
        per_class_recall, per_class_f1: by class name; None for a class without a face in the split.
        confusion: K rows (true class) of K counts (recognized class).
        count: faces with a label. missing: faces without one, left out of everything else.
        absent: classes without a face in the split, left out of the macro averages.
    """

    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    per_class_recall: dict[str, float | None]
    per_class_f1: dict[str, float | None]
    confusion: list[list[int]]
    count: int
    missing: int
    absent: list[str]

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def recognition_metrics(probabilities: Tensor, expression: Tensor, classes: Sequence[str]) -> RecognitionResult:
    """Scores of ``probabilities`` (N, K) against ``expression`` (N,) int64, -1 = missing.

    Raises:
        InputError: if shapes, labels and ``classes`` disagree, a probability is NaN, or no face has a label.
    """
    if torch.as_tensor(probabilities).ndim != 2:
        raise InputError(f"probabilities must be (faces, classes), not {tuple(probabilities.shape)}")
    predictions, truth, missing = labelled_predictions(probabilities, expression, classes)
    # Resampling needs the scores vectorized over confusion matrices; taking the point from there keeps the two one.
    matrix = confusion_matrices(predictions[0], truth, len(classes))
    recall, f1, present = _per_class(matrix)
    return RecognitionResult(
        accuracy=float(score(matrix, "accuracy")),
        macro_f1=float(score(matrix, "macro_f1")),
        balanced_accuracy=float(score(matrix, "balanced_accuracy")),
        per_class_recall=_by_class(classes, recall, present),
        per_class_f1=_by_class(classes, f1, present),
        confusion=matrix.tolist(),
        count=len(truth),
        missing=missing,
        absent=[name for name, here in zip(classes, present, strict=True) if not here],
    )


def bootstrap_intervals(
    outputs: Tensor,
    expression: Tensor,
    classes: Sequence[str],
    *,
    subject: Tensor | None = None,
    minority: Sequence[str] = (),
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Percentile bootstrap interval of each score: ``{metric: [low, high]}``.

    Each replicate draws people with replacement, the same ones for every seed, with all of their faces, and S training
    seeds with replacement; its value is the mean score over the drawn seeds. So the interval covers another test set of
    the same kind *and* another set of training seeds. With one seed it covers the people only. With few seeds it is
    too narrow: the bootstrap of a mean of S values has (S - 1) / S of its variance.

    Args:
        outputs: probabilities (N, K) or (S, N, K), floating; or predicted classes (N,) or (S, N), integers.
        expression: (N,) int64, -1 = missing.
        subject: (N,) int64, -1 = unknown, see :func:`~synthmtl.metrics.bootstrap.people`; None: faces are drawn, which
            makes the interval too narrow where several show one person.
        minority: classes of ``minority_recall``; without them that metric is left out.
        samples: replicates.
        confidence: coverage in (0, 1).
        seed: of the resampling.

    Raises:
        InputError: as :func:`recognition_metrics`; or if no minority class is in the split.
    """
    predictions, truth, _ = labelled_predictions(outputs, expression, classes)
    metrics = [name for name in METRICS if name != "minority_recall" or minority]
    replicates = resampled_scores(
        predictions[None],
        truth,
        classes,
        subject=of_labelled(subject, expression),
        metrics=metrics,
        minority=minority,
        samples=samples,
        seed=seed,
    )
    return {name: interval(values[0], confidence) for name, values in replicates.items()}


def resampled_scores(
    predictions: np.ndarray,
    truth: np.ndarray,
    classes: Sequence[str],
    *,
    subject: Tensor | None = None,
    metrics: Sequence[str],
    minority: Sequence[str] = (),
    samples: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Bootstrap replicates of M methods on the same drawn people and the same drawn seeds: ``{metric: (M, samples)}``.

    Args:
        predictions: (M, S, N) predicted classes of M methods, S seeds, N faces.
        truth: (N,) true classes, none missing.
        subject: (N,) of the same faces, see :func:`of_labelled`; None: faces are drawn.
    """
    rare = minority_index(minority, classes, truth) if "minority_recall" in metrics else None
    confusion, drawn_seeds = resampled_sums(
        confusion_statistics(predictions, truth, len(classes)), samples=samples, seed=seed, subject=subject
    )
    confusion = confusion.reshape(*confusion.shape[:-1], len(classes), len(classes))
    return {name: mean_over_seeds(score(confusion, name, minority=rare), drawn_seeds) for name in metrics}


def confusion_matrices(predictions: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """(..., K, K) int64, a row for each true class, of predictions (..., N) and truth (N,)."""
    cells = (truth * classes + predictions).reshape(-1, len(truth))
    counts = np.stack([np.bincount(row, minlength=classes**2) for row in cells])
    return counts.reshape(*predictions.shape[:-1], classes, classes)


def confusion_statistics(predictions: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Each face's own confusion matrix, (..., N, K · K) float32, of predictions (..., N) and truth (N,)."""
    statistics = np.zeros((*predictions.shape, classes * classes), dtype=np.float32)
    np.put_along_axis(statistics, (truth * classes + predictions)[..., None], 1, axis=-1)
    return statistics


def score(confusion: np.ndarray, metric: str, *, minority: Sequence[int] | None = None) -> np.ndarray:
    """One of :data:`METRICS` of confusion counts (..., K true, K recognized): (...), NaN where no class takes part.

    accuracy = Σ tp / N; recall = tp / (tp + fn); F1 = 2 tp / (2 tp + fp + fn); macro averages over the classes present.

    Args:
        minority: indices of the classes of ``minority_recall``.

    Raises:
        InputError: if ``metric`` is not one of :data:`METRICS` or ``minority_recall`` comes without classes.
    """
    if metric not in METRICS:
        raise InputError(f"unknown metric {metric!r}: use one of {', '.join(METRICS)}")
    if metric == "accuracy":
        return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1), dtype=np.float64)
    recall, f1, present = _per_class(confusion)
    if metric == "minority_recall":
        if minority is None or not len(minority):
            raise InputError("minority_recall needs the minority classes: pass minority=[...]")
        chosen = np.zeros(confusion.shape[-1], dtype=bool)
        chosen[list(minority)] = True
        present = present & chosen
    values = np.where(present, f1 if metric == "macro_f1" else recall, 0.0)
    taking_part = present.sum(-1)
    return np.where(taking_part > 0, values.sum(-1) / np.maximum(taking_part, 1), np.nan)


def _per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, F1 (0 where absent) and presence of each class, each (..., K)."""
    correct = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true, recognized = confusion.sum(-1, dtype=np.float64), confusion.sum(-2, dtype=np.float64)
    return correct / np.maximum(true, 1), 2 * correct / np.maximum(true + recognized, 1), true > 0


def _by_class(classes: Sequence[str], values: np.ndarray, present: np.ndarray) -> dict[str, float | None]:
    return {name: float(v) if here else None for name, v, here in zip(classes, values, present, strict=True)}


def minority_index(minority: Sequence[str], classes: Sequence[str], truth: np.ndarray) -> list[int]:
    unknown = [name for name in minority if name not in classes]
    if unknown:
        raise InputError(f"unknown minority class {unknown[0]!r}: use some of {', '.join(classes)}")
    index = [list(classes).index(name) for name in minority]
    if not np.isin(truth, index).any():
        raise InputError(f"no face of the minority classes ({', '.join(minority) or 'none given'}) is in the split")
    return index


def of_labelled(subject: Tensor | None, expression: Tensor) -> Tensor | None:
    """Subjects of the faces that have an expression, of the subjects (N,) and expressions (N,) of all.

    Raises:
        InputError: if they are not as many.
    """
    if subject is None:
        return None
    if len(subject) != len(expression):
        raise InputError(f"{len(subject)} subjects do not fit {len(expression)} labels")
    return torch.as_tensor(subject)[torch.as_tensor(expression) >= 0]


def labelled_predictions(
    outputs: Tensor | np.ndarray, expression: Tensor | np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Predictions (S, N) and truth (N,) of the faces that have a label, and how many have none."""
    outputs, expression = torch.as_tensor(outputs).detach().cpu(), torch.as_tensor(expression).detach().cpu()
    if len(classes) < 2:
        raise InputError(f"recognition needs at least 2 classes, not {len(classes)}")
    if outputs.is_floating_point():
        if outputs.ndim not in (2, 3) or outputs.shape[-1] != len(classes):
            raise InputError(
                f"probabilities must be (faces, {len(classes)}) or (seeds, faces, {len(classes)}), "
                f"not {tuple(outputs.shape)}"
            )
        if outputs.isnan().any():
            raise InputError("probabilities hold NaN: the recognizer's weights are broken, use an earlier checkpoint")
        outputs = outputs.argmax(-1)
    predictions = outputs.reshape(1, -1) if outputs.ndim == 1 else outputs
    if predictions.ndim != 2 or not predictions.numel() or predictions.shape[1:] != expression.shape:
        raise InputError(f"{tuple(outputs.shape)} predictions do not fit {tuple(expression.shape)} labels")
    if expression.max() >= len(classes) or predictions.max() >= len(classes) or predictions.min() < 0:
        raise InputError(f"a label or prediction is not an index into the {len(classes)} classes")
    labelled = expression >= 0
    if not labelled.any():
        raise InputError("no face of the split has an expression label: nothing can be scored")
    return predictions[:, labelled].numpy(), expression[labelled].numpy(), int((~labelled).sum())
