"""Layers that the systems are built of."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor, whose gradient is the sum of every process's gradient.

    Where all processes compute the same number from such sums, the gradients that they average are those of one process
    on the joined batch. All must take part, forwards and backwards.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class CrossProcessBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over the global batch (Ioffe and Szegedy, 2015), on the CPU too.

    In one process it is ``nn.BatchNorm2d``. In several, mean and variance are those of all processes' rows, with
    gradients through them, so that W processes train exactly as one does on the joined batch. (``nn.SyncBatchNorm``
    exists for CUDA only.) The rows must be shared out evenly.
    """

    # Statistics are always kept, as moving means.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        x32 = x.float()
        world = dist.get_world_size()
        mean = SumOverProcesses.apply(x32.mean((0, 2, 3))) / world
        centered = x32 - mean[:, None, None]
        # From centered values: the mean of squares less the squared mean cancels where the mean is large.
        variance = SumOverProcesses.apply(centered.square().mean((0, 2, 3))) / world
        with torch.no_grad():
            count = world * x32.numel() / x32.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


@contextmanager
def unrecorded_statistics(model: nn.Module) -> Iterator[None]:
    """Within it, batch normalization in ``model`` leaves its running statistics alone, for batches of made faces."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def normalization(kind: str, channels: int) -> nn.Module:
    """A normalization layer by name: ``batch``, ``instance``, ``group`` (8 channels each), affine, or ``none``."""
    if kind == "batch":
        return CrossProcessBatchNorm2d(channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if kind == "group":
        groups = next(g for g in range(max(1, channels // 8), 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"unknown normalization {kind!r}: use batch, instance, group or none")


class ConvNorm(nn.Sequential):
    """3×3 convolution, normalization, ReLU: (B, in, H, W) → (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=norm == "none"),
            normalization(norm, out_channels),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """The basic residual block (He et al., 2016): (B, in, H, W) → (B, out, H, W), a 1×1 shortcut where they differ."""

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, norm)
        self.second = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=norm == "none"), normalization(norm, out_channels)
        )
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class Stem(nn.Sequential):
    """From pixels to (B, out, H/2, W/2).

    ``pool``: convolution, norm, ReLU at full size, then 2×2 max pooling, as published. ``unshuffle``: 2×2 pixels
    become channels first, so that nothing runs at full size; about a third of the cost.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str, kind: str):
        if kind == "pool":
            super().__init__(ConvNorm(in_channels, out_channels, norm), nn.MaxPool2d(2))
        elif kind == "unshuffle":
            super().__init__(nn.PixelUnshuffle(2), ConvNorm(4 * in_channels, out_channels, norm))
        else:
            raise ValueError(f"unknown stem {kind!r}: use pool or unshuffle")


class Stage(nn.Sequential):
    """A residual block and a 2×2 max pooling: (B, in, H, W) → (B, out, H/2, W/2).

    ``pool_first=False`` is as published; True pools before the block, a quarter of the cost at equal widths.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str, pool_first: bool):
        parts = [ResidualBlock(in_channels, out_channels, norm), nn.MaxPool2d(2)]
        super().__init__(*(reversed(parts) if pool_first else parts))


class AdaptiveInstanceNorm(nn.Module):
    """Instance normalization whose scale and shift come from a condition (Huang and Belongie, 2017).

    x (B, C, H, W), condition (B, E) → (1 + γ) · norm(x) + β with γ, β linear in the condition, near zero at the start.
    """

    def __init__(self, channels: int, condition_dim: int):
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels, affine=False)
        self.affine = nn.Linear(condition_dim, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.affine(condition)[:, :, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift
