"""Losses of landmark coordinates."""

import math

import torch
from torch import Tensor, nn

from synthmtl.losses.weighting import weighted_mean


def wing(error: Tensor, width: float = 10.0, curvature: float = 2.0) -> Tensor:
    """Wing loss (Feng et al., CVPR 2018) of coordinate errors of any shape, in the unit of ``width`` and ``curvature``.

        wing(x) = w ln(1 + |x| / e)   where |x| < w,   |x| - C   elsewhere,   C = w - w ln(1 + w / e)

    Small errors keep a gradient, up to w / e, that L1 would not give them. The defaults are the published ones.
    """
    size = error.abs()
    constant = width - width * math.log1p(width / curvature)
    return torch.where(size < width, width * torch.log1p(size / curvature), size - constant)


class LandmarkLoss(nn.Module):
    """Wing or L1 loss: for each face the mean over the points that it carries and their two coordinates.

    Every face with landmarks counts the same, however many of its points are known. Coordinates are counted in
    ``unit``: a face is ``unit`` long and wide, whatever its pixels, so that w, e and the loss mean the same at every
    image size; wing(s x; s w, s e) = s wing(x; w, e), so another unit with w and e scaled alike is a factor only.

    Args:
        kind: ``wing`` or ``l1``.
        unit: sides of a face in the unit of the loss; 64 reads errors in pixels of a 64-pixel face.
        width, curvature: w and e of :func:`wing`, in that unit.
    """

    def __init__(self, kind: str = "wing", *, unit: float = 64.0, width: float = 10.0, curvature: float = 2.0):
        super().__init__()
        if kind not in ("wing", "l1"):
            raise ValueError(f"unknown landmark loss {kind!r}: use wing or l1")
        if min(unit, width, curvature) <= 0:
            raise ValueError(f"unit, width and curvature must be above 0, not {unit}, {width} and {curvature}")
        self.kind, self.unit, self.width, self.curvature = kind, unit, width, curvature

    def each(self, output: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and share (1 with landmarks, else 0) of each face, (B,), of coordinates (B, P, 2) in [0, 1].

        A point is missing where one of its coordinates in ``landmarks`` is NaN.
        """
        present = ~landmarks.isnan().any(-1)
        chosen = present[..., None]
        error = self.unit * (torch.where(chosen, output.float(), 0.0) - torch.where(chosen, landmarks, 0.0))
        values = error.abs() if self.kind == "l1" else wing(error, self.width, self.curvature)
        points = present.sum(1)
        return values.mean(-1).sum(1) / points.clamp(min=1), (points > 0).to(values.dtype)

    def forward(self, output: Tensor, landmarks: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean over the faces with landmarks, each with its ``weight`` (B,); zero if there is none."""
        values, shares = self.each(output, landmarks)
        return weighted_mean(values, shares if weight is None else shares * weight)
