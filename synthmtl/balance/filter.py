"""Which synthesized faces are good enough, by a recognizer that did not train with the generator."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthmtl.balance.calibration import JudgeCalibration, judge_classes, judge_columns, judge_probabilities
from synthmtl.balance.copies import TrainingFaces, mean_difference
from synthmtl.data.duplicates import MIN_CORRELATION, MIN_MATCH
from synthmtl.errors import InputError

REASONS = ("broken", "unchanged", "copy", "disagreement")
"""Why a face is rejected: pixels that are not finite; hardly differs from its source; repeats a training face; the
judge does not see the target."""


class Verdict(NamedTuple):
    """``reason`` (B,) int64, an index into :data:`REASONS` or -1 = kept; ``agreement`` (B,), the judge's
    probability of the target; ``margin`` (B,), agreement over the class's threshold."""

    reason: Tensor
    agreement: Tensor
    margin: Tensor


class FaceFilter:
    """Keeps a face of target c if the judge's p(c) reaches its threshold and the face repeats no training face.

    Args:
        judge: as for :func:`~synthmtl.balance.calibration.calibrate_judge`.
        calibration: of this judge.
        references: (N, C, H, W) uint8, the training faces.
        classes: expressions that targets index.
        wanted: those of them that targets may be, which the judge has to know; None = all. No face of another one that
            it does not know is kept.
        subject: (N,) int64, whom the training faces show; None = unknown.
        min_change: least mean |edited − source|, as a share of the pixel range. Below it the face shows the source's
            expression under another name.
        min_distance: least mean |edited − training face|, as a share of the pixel range, whomever it shows. Below it
            the face adds nothing to the training set.
        max_correlation: pixels of a face that correlate above it with a training face of another person than the
            source's, mirrored or not, were memorized. Faces of the source's own person may come that near: the edit
            keeps all but the expression.
        max_match: likewise once a training face is moved, scaled and turned, as augmentation does. Of a source whose
            subject is unknown, training faces that resemble it so count as of its person.
    """

    def __init__(
        self,
        judge: nn.Module,
        calibration: JudgeCalibration,
        references: Tensor,
        classes: tuple[str, ...],
        *,
        wanted: Sequence[str] | None = None,
        subject: Tensor | None = None,
        min_change: float = 0.002,
        min_distance: float = 0.004,
        max_correlation: float = MIN_CORRELATION,
        max_match: float = MIN_MATCH,
        device: torch.device | str = "cpu",
    ):
        if calibration.classes != judge_classes(judge):
            raise InputError("the calibration is of a judge with other classes: calibrate this judge")
        self.judge, self.device = judge.to(device), device
        self.columns = judge_columns(judge, classes, wanted)
        self.thresholds = torch.where(self.columns < 0, torch.inf, calibration.thresholds[self.columns])
        self.min_change, self.min_distance = min_change, min_distance
        self.max_correlation, self.max_match = max_correlation, max_match
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
        copied = (distance < self.min_distance) | (correlation > self.max_correlation)
        copied |= self.references.match(images, rows) > self.max_match
        reason[copied] = REASONS.index("copy")
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
