"""The loss of action units, each of which may be missing on its own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.losses.weighting import per_row, weighted_mean


class ActionUnitLoss(nn.Module):
    """Binary cross-entropy of logits against intensities y in [0, 1], over the units that each face carries.

        l_ia = -p_a y_ia log σ(x_ia) - (1 - y_ia) log(1 - σ(x_ia)),   L = Σ w_i m_ia l_ia / Σ w_i m_ia

    Every label counts the same, so that masks are linear: a face with half of the units has half the weight. Against
    intensities between 0 and 1 the least possible loss is not 0 but their entropy, the mean of H(y_ia) where p = 1.

    Args:
        prevalence: share π_a of active faces per unit in training, (A,), see :func:`unit_prevalence`; positive labels
            are then weighted p_a = (1 - π_a) / π_a, within [1 / ``largest``, ``largest``], which shifts probabilities
            of rare units up. NaN (never labelled) and None: p = 1.
        largest: bound of the weights.
    """

    positive_weights: Tensor | None

    def __init__(self, prevalence: Sequence[float] | None = None, *, largest: float = 10.0):
        super().__init__()
        weights = None
        if prevalence is not None:
            share = torch.as_tensor(prevalence, dtype=torch.float32)
            weights = ((1 - share) / share).clamp(1 / largest, largest).nan_to_num(1.0)
        self.register_buffer("positive_weights", weights)

    def each(self, logits: Tensor, action_units: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and share of each label, both (B, A); the share is 1 / A, or 0 where the label is missing (NaN)."""
        present = ~action_units.isnan()
        logits, target = torch.where(present, logits.float(), 0.0), torch.where(present, action_units, 0.0)
        values = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=self.positive_weights)
        return values, present.to(values.dtype) / present.shape[1]

    def forward(self, logits: Tensor, action_units: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean over all labels of logits (B, A), each with its face's ``weight`` (B,); zero if there is none."""
        values, shares = self.each(logits, action_units)
        return weighted_mean(values, shares if weight is None else shares * per_row(weight, shares))


def unit_prevalence(action_units: Tensor, threshold: float = 0.5) -> Tensor:
    """Share of faces on which each unit is active (intensity at least ``threshold``), (N, A) → (A,).

    Of the faces that carry the unit; NaN for a unit that none carries. Published thresholds are 0.4 for DISFA (grade 2
    of 5) and 0.2 for CK+ (any grade).
    """
    active = torch.where(action_units.isnan(), action_units, (action_units >= threshold).to(action_units.dtype))
    return active.nanmean(0)
