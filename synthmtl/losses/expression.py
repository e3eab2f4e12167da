"""Cross-entropy for expressions and its remedies against long-tailed training sets."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.losses.weighting import weighted_mean


def carries_expression(expression: Tensor, distribution: Tensor | None = None) -> Tensor:
    """(B,) bool: faces with a label (B,), -1 = missing, or annotators' shares (B, K), NaN = missing."""
    return _labelled(expression, _voted(distribution))


def _labelled(expression: Tensor, voted: Tensor | None) -> Tensor:
    labelled = expression >= 0
    return labelled if voted is None else labelled | voted


def _voted(distribution: Tensor | None) -> Tensor | None:
    """(B,) bool: faces with annotators' shares; None if there are none, or nobody has any and one row says so."""
    if distribution is None:
        return None
    if len(distribution) > 1 and distribution.stride(0) == 0 and distribution[0].isnan().any():
        return None
    return ~distribution.isnan().any(1)


class ExpressionLoss(nn.Module):
    """Cross-entropy over the faces that carry an expression (basic or compound), each with its own weight.

        L = sum_i w_i a_{y_i} CE(logits_i + tau log pi, y_i) / sum_i w_i a_{y_i}

    Where annotators' shares t_i of the classes are known, they take the label's place, as one label of every annotator
    would (Barsoum et al., ICMI 2016): CE = -sum_k t_ik log p_ik, and a = sum_k t_ik a_k.

    Args:
        counts: training faces per class, needed by the two remedies.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        class_weighted: a_y = inverse class frequency, 0 of a class without training faces; otherwise 1.
        logit_adjustment: tau, strength of the logit-adjusted loss (Menon et al., ICLR 2021), pi the class shares in
            training; 0 turns it off, 1 is theirs. Recognition uses the logits without it.

    Raises:
        InputError: if the label smoothing is not in [0, 1).
    """

    class_weights: Tensor | None
    logit_shift: Tensor | None

    def __init__(
        self,
        counts: Sequence[int] | None = None,
        *,
        label_smoothing: float = 0.0,
        class_weighted: bool = False,
        logit_adjustment: float = 0.0,
    ):
        super().__init__()
        if (class_weighted or logit_adjustment) and counts is None:
            raise ValueError("class weights and logit adjustment need the class counts")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is {label_smoothing}: it must be in [0, 1)")
        self.label_smoothing = label_smoothing
        weights = shift = None
        if counts is not None:
            faces = torch.tensor(counts, dtype=torch.float32)
            shares = faces.clamp(min=1)
            if class_weighted:
                # A class that no face has for a label has no frequency to invert: as one face, it would give those of
                # whose annotators a few voted for it nearly all of the loss.
                weights = torch.where(faces > 0, shares.sum() / (len(shares) * shares), 0.0)
            shift = logit_adjustment * (shares / shares.sum()).log() if logit_adjustment else None
        self.register_buffer("class_weights", weights)
        self.register_buffer("logit_shift", shift)

    def each(self, logits: Tensor, expression: Tensor, distribution: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """CE_i and labelled_i a_{y_i}, each (B,), of logits (B, K), expression (B,), -1 = missing, and distribution
        (B, K), NaN = missing."""
        voted = _voted(distribution)
        labelled, target = _labelled(expression, voted), expression.clamp(min=0)
        if voted is not None and bool(voted.any()):
            one = F.one_hot(target, logits.shape[1]).to(distribution.dtype)  # type: ignore[union-attr]
            target = torch.where(voted[:, None], distribution, one)  # type: ignore[arg-type]
        # Selected before any arithmetic: not even NaN gets through from behind a missing label.
        logits = logits.masked_fill(~labelled[:, None], 0.0)
        if self.logit_shift is not None:
            logits = logits + self.logit_shift
        target = target if target.ndim == 1 else target.to(logits.dtype)
        values = F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)
        shares = labelled.to(values.dtype)
        if self.class_weights is None:
            return values, shares
        return values, shares * (self.class_weights[target] if target.ndim == 1 else target @ self.class_weights)

    def forward(
        self,
        logits: Tensor,
        expression: Tensor,
        weight: Tensor | None = None,
        distribution: Tensor | None = None,
    ) -> Tensor:
        """Mean loss of logits (B, K) against expression (B,), -1 = missing, or, where it is known, distribution (B, K),
        NaN = missing; zero if all are missing."""
        values, shares = self.each(logits, expression, distribution)
        return weighted_mean(values, shares if weight is None else shares * weight)
