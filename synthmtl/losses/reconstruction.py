"""Losses that compare pixels or features of two faces."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def change_weights(source: Tensor, target: Tensor, *, floor: float = 0.3, cap: float = 8.0) -> Tensor:
    """Where a pair differs: (B, 1, H, W), the smoothed |target - source| relative to its mean over the face.

    An expression changes few pixels; an even L1 is almost blind to them. ``floor`` keeps the rest of the face in the
    loss, ``cap`` bounds a pixel's weight.
    """
    change = (target - source).abs().mean(1, keepdim=True)
    change = F.avg_pool2d(change, 5, stride=1, padding=2, count_include_pad=False)
    relative = change / change.mean((1, 2, 3), keepdim=True).clamp(min=0.01)
    return (floor + 1.5 * relative).clamp(max=cap)


def pixel_loss(edited: Tensor, target: Tensor, weights: Tensor, gradient: float = 1.0) -> Tensor:
    """Weighted L1 plus ``gradient`` times the L1 of the weighted error's differences to the right and lower neighbors.

    Faces (B, C, H, W), weights (B, 1, H, W) → one value per face, (B,). The second term punishes blur.
    """
    error = (edited - target) * weights
    slope = (error[..., 1:] - error[..., :-1]).abs().mean((1, 2, 3)) + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean((1, 2, 3))
    return error.abs().mean((1, 2, 3)) + gradient * slope


def smoothness(flow: Tensor) -> Tensor:
    """Squared differences of a flow (B, 2, H, W) between neighbors, mean over each face, (B,), in squared pixels."""
    pixels = flow * (flow.shape[-1] / 2)
    return (pixels[..., 1:] - pixels[..., :-1]).square().mean((1, 2, 3)) + (
        pixels[..., 1:, :] - pixels[..., :-1, :]
    ).square().mean((1, 2, 3))


def folding(flow: Tensor, *, least: float = 0.5) -> Tensor:
    """How far a flow (B, 2, H, W) smears or folds the picture: mean of relu(least - det J)^2 over each face, (B,).

    J is the Jacobian of the place that a pixel fetches from. Its determinant says how large an area of the source a
    pixel shows: 1 where nothing is stretched, 0 where a line is smeared over an area, negative where the picture is
    folded over.
    """
    x, y = flow[:, 0] * (flow.shape[-1] / 2), flow[:, 1] * (flow.shape[-2] / 2)
    x_x, x_y = 1 + x[:, :-1, 1:] - x[:, :-1, :-1], x[:, 1:, :-1] - x[:, :-1, :-1]
    y_x, y_y = y[:, :-1, 1:] - y[:, :-1, :-1], 1 + y[:, 1:, :-1] - y[:, :-1, :-1]
    return F.relu(least - (x_x * y_y - x_y * y_x)).square().mean((1, 2))


class FeatureDistance(nn.Module):
    """Perceptual distance in the features of a frozen network (Johnson et al., 2016), one value per pair of faces.

    Each map is scaled to unit length over its channels, so that no layer dominates.

    Args:
        features: images (B, C, H, W) in [-1, 1] → list of feature maps, e.g. ``Recognizer.features``.
        layers: which of them are compared.
    """

    def __init__(self, features: Callable[[Tensor], Sequence[Tensor]], layers: Sequence[int] = (0, 1, 2)):
        super().__init__()
        self.features = features
        self.layers = tuple(layers)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        maps_a, maps_b = self.features(a), self.features(b)
        distances = [
            (F.normalize(maps_a[i].float(), dim=1) - F.normalize(maps_b[i].float(), dim=1)).square().sum(1).mean((1, 2))
            for i in self.layers
        ]
        return torch.stack(distances).mean(0)
