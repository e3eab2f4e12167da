"""Which synthesized faces are good enough, by a recognizer that did not train with the generator."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthmtl.balance.copies import TrainingFaces, mean_difference
from synthmtl.data.duplicates import MIN_CORRELATION
from synthmtl.data.pixels import to_unit
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

REASONS = ("broken", "unchanged", "copy", "disagreement")
"""Why a face is rejected: pixels that are not finite; hardly differs from its source; repeats a training face; the
judge does not see the target."""


@contextmanager
def evaluating(model: nn.Module):
    """The model in evaluation mode and without gradients; afterwards in the mode it had."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(training)


def judge_classes(judge: nn.Module) -> tuple[str, ...]:
    """What a judge tells apart, in the order of its outputs."""
    return tuple(judge.classes)  # type: ignore[arg-type]


def judge_probabilities(
    judge: nn.Module, images: Tensor, *, batch_size: int = 256, device: torch.device | str = "cpu"
) -> Tensor:
    """Probabilities (N, K) float32 on the CPU that a judge gives to faces (N, C, H, W) uint8, in evaluation mode."""
    with evaluating(judge.to(device)):
        parts = [
            judge.recognize(to_unit(part, device)).float().cpu()  # type: ignore[operator]
            for part in images.split(batch_size)
        ]
    return torch.cat(parts) if parts else torch.empty(0, len(judge_classes(judge)))


@dataclass(frozen=True)
class JudgeCalibration:
    """The least probability at which a judge is taken to see each class.

    One threshold for all classes would be wrong: a judge that learned from a long tail gives real faces of its rare
    classes probabilities of a few percent. So the threshold of class c is the ``quantile`` of p(c | face) over real
    validation faces of class c: by construction it keeps 1 − ``quantile`` of real faces.

    How much such a filter is worth is another matter: a weak judge may let as many faces of other classes pass. The
    share of real faces of the other classes that would pass is measured, and where ``mistaken_at_most`` bounds it, the
    threshold is raised until it holds. Faces to edit are of other classes: where the generator left them as they are,
    about that share passes.

    Attributes:
        classes: of the judge, in the order of its outputs.
        thresholds: (K,) float32.
        quantile: share of real faces that falls below.
        faces: validation faces of each class.
        mistaken: (K,) float32, share of the other classes' validation faces that reach the threshold.
        mistaken_at_most: what it was held to; None = it was left alone.
        borrowed: classes with too few faces, which took the lowest threshold of the others (the quantile over all
            faces if every class has too few): a doubtful face is kept rather than a good one lost.
    """

    classes: tuple[str, ...]
    thresholds: Tensor
    quantile: float
    faces: dict[str, int]
    borrowed: tuple[str, ...]
    mistaken: Tensor
    mistaken_at_most: float | None = None

    def as_dict(self) -> dict:
        """For ``balance.json``."""
        return {
            "quantile": self.quantile,
            "thresholds": {n: round(t, 6) for n, t in zip(self.classes, self.thresholds.tolist(), strict=True)},
            "validation_faces": self.faces,
            "borrowed": list(self.borrowed),
            "mistaken": {n: round(t, 6) for n, t in zip(self.classes, self.mistaken.tolist(), strict=True)},
            "mistaken_at_most": self.mistaken_at_most,
        }


def calibrate_judge(
    judge: nn.Module,
    validation: FaceTable,
    *,
    quantile: float = 0.2,
    mistaken_at_most: float | None = None,
    min_faces: int = 5,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> JudgeCalibration:
    """Calibrate a judge on real faces that it did not train on.

    Args:
        judge: network with ``classes`` and ``recognize(images) -> (B, K)``; it must not have taken part in the
            generator's training, or it agrees with whatever pleases it.
        validation: labelled faces; synthesized ones are left out.
        quantile: share of real faces of each class that would be rejected, in [0, 1).
        mistaken_at_most: share of real faces of the other classes that may pass as a class, in [0, 1]; None = any.
        min_faces: fewest faces from which a threshold is estimated.

    Raises:
        InputError: if there is no usable face, a class is unknown to the judge, or a share is out of range.
    """
    if not 0 <= quantile < 1:
        raise InputError(f"quantile must lie in [0, 1), not {quantile}")
    if mistaken_at_most is not None and not 0 <= mistaken_at_most <= 1:
        raise InputError(f"mistaken_at_most must lie in [0, 1], not {mistaken_at_most}")
    usable = (validation.expression >= 0) & ~validation.synthetic
    if not usable.any():
        raise InputError("cannot calibrate the judge: the validation split has no real labelled face")
    real = validation.select(usable)
    classes, index = judge_classes(judge), judge_columns(judge, real.classes)
    target = index[real.expression]
    probabilities = judge_probabilities(judge, real.images, batch_size=batch_size, device=device)
    own = probabilities[torch.arange(len(real)), target]
    count = torch.bincount(target, minlength=len(classes))
    enough = count >= min_faces
    thresholds = torch.zeros(len(classes))
    for k in torch.where(enough)[0].tolist():
        thresholds[k] = torch.quantile(own[target == k], quantile)
    thresholds[~enough] = thresholds[enough].min() if enough.any() else torch.quantile(own, quantile)
    mistaken = torch.zeros(len(classes))
    for k in range(len(classes)):
        others = probabilities[target != k, k]
        if not len(others):
            continue
        if mistaken_at_most is not None:
            # Just above the face that would be one too many.
            allowed = int(mistaken_at_most * len(others))
            if allowed < len(others):
                bound = others.sort(descending=True).values[allowed]
                thresholds[k] = torch.maximum(thresholds[k], torch.nextafter(bound, torch.tensor(2.0)))
        mistaken[k] = (others >= thresholds[k]).float().mean()
    return JudgeCalibration(
        classes=classes,
        thresholds=thresholds,
        quantile=quantile,
        faces=dict(zip(classes, count.tolist(), strict=True)),
        borrowed=tuple(name for name, good in zip(classes, enough.tolist(), strict=True) if not good),
        mistaken=mistaken,
        mistaken_at_most=mistaken_at_most,
    )


def judge_columns(judge: nn.Module, classes: tuple[str, ...]) -> Tensor:
    """(K,) int64: the judge's output for each of ``classes``.

    Raises:
        InputError: if the judge does not know one of them.
    """
    known = judge_classes(judge)
    missing = [name for name in classes if name not in known]
    if missing:
        raise InputError(f"the judge does not know {missing[0]}: train it on {', '.join(classes)}")
    return torch.tensor([known.index(name) for name in classes], dtype=torch.int64)


class Verdict(NamedTuple):
    """``reason`` (B,) int64, an index into :data:`REASONS` or -1 = kept; ``agreement`` (B,), the judge's
    probability of the target; ``margin`` (B,), agreement over the class's threshold."""

    reason: Tensor
    agreement: Tensor
    margin: Tensor


class FaceFilter:
    """Keeps a face of target c if the judge's p(c) reaches its threshold and the face repeats no training face.

    Args:
        judge: as for :func:`calibrate_judge`.
        calibration: of this judge.
        references: (N, C, H, W) uint8, the training faces.
        classes: expressions that targets index.
        subject: (N,) int64, whom the training faces show; None = unknown.
        min_change: least mean |edited − source|, as a share of the pixel range. Below it the face shows the source's
            expression under another name.
        min_distance: least mean |edited − training face|, as a share of the pixel range, whomever it shows. Below it
            the face adds nothing to the training set.
        max_correlation: pixels of a face that correlate above it with a training face of another person than the
            source's, mirrored or not, were memorized. Faces of the source's own person may come that near: the edit
            keeps all but the expression.
    """

    def __init__(
        self,
        judge: nn.Module,
        calibration: JudgeCalibration,
        references: Tensor,
        classes: tuple[str, ...],
        *,
        subject: Tensor | None = None,
        min_change: float = 0.002,
        min_distance: float = 0.004,
        max_correlation: float = MIN_CORRELATION,
        device: torch.device | str = "cpu",
    ):
        if calibration.classes != judge_classes(judge):
            raise InputError("the calibration is of a judge with other classes: calibrate this judge")
        self.judge, self.device = judge.to(device), device
        self.columns = judge_columns(judge, classes)
        self.thresholds = calibration.thresholds[self.columns]
        self.min_change, self.min_distance, self.max_correlation = min_change, min_distance, max_correlation
        self.references = TrainingFaces(references, subject, device=device)

    def __call__(
        self, images: Tensor, sources: Tensor | None, target: Tensor, *, finite: Tensor, rows: Tensor | None = None
    ) -> Verdict:
        """Judge edited or new faces.

        Args:
            images: (B, C, H, W) uint8.
            sources: as many; None = the faces are no edits.
            target: (B,) int64.
            finite: (B,) bool, False where the generator's pixels were not numbers.
            rows: (B,) int64, which training faces the sources are; None = none of them.
        """
        probabilities = judge_probabilities(self.judge, images, batch_size=max(1, len(images)), device=self.device)
        agreement = probabilities[torch.arange(len(images)), self.columns[target]]
        threshold = self.thresholds[target]
        distance, correlation = self.references.distance(images, rows)
        reason = torch.full((len(images),), -1, dtype=torch.int64)
        # From the weakest reason to the strongest: the strongest is the one that is counted.
        reason[~(agreement >= threshold)] = REASONS.index("disagreement")
        reason[(distance < self.min_distance) | (correlation > self.max_correlation)] = REASONS.index("copy")
        if sources is not None:
            reason[mean_difference(images, sources) < self.min_change] = REASONS.index("unchanged")
        reason[~finite] = REASONS.index("broken")
        return Verdict(reason, agreement, agreement / threshold.clamp(min=1e-6))


def no_filter(
    images: Tensor, sources: Tensor | None, target: Tensor, *, finite: Tensor, rows: Tensor | None = None
) -> Verdict:
    """In place of a :class:`FaceFilter`, for studies: keeps every face whose pixels are numbers, asks no judge."""
    reason = torch.where(finite, -1, REASONS.index("broken"))
    return Verdict(reason, torch.full((len(images),), float("nan")), torch.full((len(images),), float("nan")))
