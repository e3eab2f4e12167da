"""Moving pixels by a flow field."""

import torch
from torch import Tensor
from torch.nn import functional as F


def identity_grid(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Sampling grid (1, H, W, 2) of ``grid_sample(align_corners=False)`` that leaves an image as it is."""
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2 / height) - 1
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2 / width) - 1
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)[None]


def smooth_field(field: Tensor) -> Tensor:
    """Each channel of (B, C, H, W) averaged with its neighbors by the binomial weights 1, 4, 6, 4, 1 in x and y.

    A field that alternates from pixel to pixel becomes zero, a constant one stays; beyond the border its values repeat.
    """
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=field.device, dtype=field.dtype) / 16
    kernel = taps.outer(taps).expand(field.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(field, (2, 2, 2, 2), mode="replicate"), kernel, groups=field.shape[1])


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Each output pixel fetches the input at its own place plus ``flow``.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W) offsets (x, y) in half image sides, so 2 crosses the image.

    Returns:
        (B, C, H, W) float32; beyond the border the border's pixels repeat.
    """
    grid = identity_grid(*image.shape[-2:], device=image.device) + flow.float().permute(0, 2, 3, 1)
    return F.grid_sample(image.float(), grid, padding_mode="border", align_corners=False)
