"""Layers that the systems are built of."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cross_process import CrossProcessBatchNorm2d


@contextmanager
def copied_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within it the own buffers of ``modules`` are copies, so that nothing a forward pass writes to them remains."""
    places = [(module, name, buffer) for module in modules for name, buffer in module._buffers.items()]
    copies = {id(buffer): buffer.clone() for _, _, buffer in places if buffer is not None}
    try:
        for module, name, buffer in places:
            module._buffers[name] = None if buffer is None else copies[id(buffer)]
        yield
    finally:
        for module, name, buffer in places:
            module._buffers[name] = buffer


def unrecorded_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Within it, every normalization in ``model`` that keeps running statistics leaves them as they are."""
    return copied_buffers(m for m in model.modules() if getattr(m, "track_running_stats", False))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it ``model`` is in eval mode; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def in_precision_of(module: nn.Module, x: Tensor) -> Tensor:
    """``x`` in the precision of a module's weights; ``ModelMixin.dtype`` walks through the whole model for it."""
    return x.to(next(module.parameters()).dtype)


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


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, whatever autocast says and the dtype of its input and weights is."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())


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
