"""The synthesis branch's way back to pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.models.blocks import AdaptiveInstanceNorm
from synthmtl.models.warp import smooth_field, warp


class Edit(NamedTuple):
    """What the decoder makes: the edited ``image`` (B, C, H, W) in [-1, 1], and how it came about.

    ``flow`` (B, 2, H, W) in half image sides, ``warped``, the source moved by it, and ``residual``, which is painted
    on that, (B, C, H, W), are None for a direct decoder.
    """

    image: Tensor
    flow: Tensor | None = None
    warped: Tensor | None = None
    residual: Tensor | None = None


class UpBlock(nn.Module):
    """Twice the size by nearest neighbor, skip features joined, convolution, adaptive norm, ReLU."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, condition_dim: int):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1, bias=False)
        self.norm = AdaptiveInstanceNorm(out_channels, condition_dim)

    def forward(self, x: Tensor, skip: Tensor, condition: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        return F.relu(self.norm(self.convolution(torch.cat([x, skip.to(x.dtype)], 1)), condition))


class EditDecoder(nn.Module):
    """From the joint features and skips back to a face with the target expression.

    The target enters here only, as adaptive instance normalization of (target, style): in the encoder a target code
    would leak the source's label, since sources never have the target's class.

    ``output="flow"`` warps the source by a learned flow, which is smoothed (a guide would tear it into stripes), and
    adds a learned residual (teeth, wrinkles, an opened mouth); both start at zero, the identity. ``output="direct"``
    paints the face anew through tanh, as published.

    Args:
        in_channels: channels of the joint features (B, in, h, w).
        skip_channels: channels of the skips, deepest first; each skip is up to twice as large as the one before.
        channels: widths of the up blocks, deepest first; None = those of the skips.
        painted_channels: width of the two layers at full size; None = half the last width.
        image_channels: C.
        code_dim: W, numbers in a target's code.
        style_dim: S, size of the style that says how an expression is shown.
        output: ``flow`` or ``direct``.
        max_flow: largest offset, in half image sides.
        condition_dim: E, size of the condition that (code, style) becomes.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        skip_channels: Sequence[int],
        image_channels: int,
        code_dim: int,
        style_dim: int,
        channels: Sequence[int] | None = None,
        painted_channels: int | None = None,
        output: str = "flow",
        max_flow: float = 0.3,
        condition_dim: int = 64,
    ):
        super().__init__()
        if output not in ("flow", "direct"):
            raise ValueError(f"unknown decoder output {output!r}: use flow or direct")
        self.output = output
        self.max_flow = max_flow
        first, second = nn.Linear(code_dim + style_dim, condition_dim), nn.Linear(condition_dim, condition_dim)
        self.condition = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        widths = [in_channels, *(channels or skip_channels)]
        self.blocks = nn.ModuleList(
            UpBlock(widths[i], skip, widths[i + 1], condition_dim) for i, skip in enumerate(skip_channels)
        )
        last = widths[-1]
        painted = painted_channels or max(8, last // 2)
        # Few channels at full size: there a map costs four times as much as one size below.
        self.narrow = nn.Sequential(nn.Conv2d(last, painted, 3, padding=1), nn.LeakyReLU(0.2, inplace=True))
        self.paint = nn.Sequential(
            nn.Conv2d(painted + image_channels, painted, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(painted, image_channels, 3, padding=1),
        )
        self.flow = nn.Conv2d(last, 2, 3, padding=1) if output == "flow" else None
        if self.flow is not None:
            for parameter in (*self.flow.parameters(), *self.paint[-1].parameters()):
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor, skips: Sequence[Tensor], source: Tensor, code: Tensor, style: Tensor) -> Edit:
        """Edit ``source`` (B, C, H, W) to the target with ``code`` (B, W), shown with ``style`` (B, S)."""
        condition = self.condition(torch.cat([code.to(style.dtype), style], 1))
        x = features
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip, condition)
        size = source.shape[-2:]
        wide = F.interpolate(self.narrow(x), size=size, mode="nearest")
        painted = self.paint(torch.cat([wide, source.to(wide.dtype)], 1)).float()
        if self.flow is None:
            return Edit(torch.tanh(painted))
        flow = smooth_field(self.max_flow * torch.tanh(self.flow(x).float()))
        flow = F.interpolate(flow, size=size, mode="bilinear", align_corners=False)
        residual, warped = 2 * torch.tanh(painted), warp(source, flow)
        return Edit((warped + residual).clamp(-1, 1), flow, warped, residual)
