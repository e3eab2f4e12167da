"""Two pictures laid over each other: how alike they are once one is moved and scaled, whatever their brightness."""

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""Pictures are compared at this side in pixels, where sensor noise and compression hardly count."""

MARGIN = 2
"""Pixels at each edge that do not count, since a picture that was cropped has nothing to put there."""

_FLAT = 1.0  # gray levels of standard deviation below which a correlation measures noise
_FARTHEST = 0.06  # that a window's middle or half side moves in one step, image = [-1, 1]


def reduced(images: Tensor, side: int = SIDE) -> Tensor:
    """Gray pictures (N, 1, side, side) float of images (N, C, H, W) uint8 or float, in their gray levels."""
    gray = images.float().mean(1, keepdim=True)
    return F.interpolate(gray, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def center(pictures: Tensor) -> Tensor:
    """Pictures (..., S, S) without their margin."""
    return pictures[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def unit(pictures: Tensor) -> Tensor:
    """Pixels (N, S²) without their mean and of length 1, so that products are correlations; 0 where flat."""
    flat = pictures.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > _FLAT * flat.shape[1] ** 0.5, flat / length.clamp(min=1e-6), 0.0)


def windows(pictures: Tensor, window: Tensor) -> Tensor:
    """Parts of pictures (N, 1, S, S), enlarged to the whole; windows (N, 4): middle x, y and half sides, image ±1."""
    theta = torch.zeros(len(window), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = window[:, 2], window[:, 3], window[:, :2]
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bicubic", padding_mode="border", align_corners=False)


def best_match(first: Tensor, second: Tensor, window: Tensor | None = None, *, steps: int = 3) -> Tensor:
    r"""Highest correlation of ``second`` with a part of ``first``, by a search of the part.

    Gauss-Newton steps on |g · first(s x + t) + b − second(x)|² in gain g, offset b and the window's shift t and half
    sides s, each linear in the window's gradients (Lucas & Kanade, An Iterative Image Registration Technique, 1981).

    Args:
        first, second: (N, 1, S, S), pair by pair (:func:`reduced`).
        window: (N, 4) where to start, as for :func:`windows`; None = the whole. Half sides may exceed 1 on the way,
            so that it does not matter which of two pictures was cropped.
        steps: of the search; 0 = the correlation at the start.

    Returns:
        (N,) correlation of the pixels inside the margin at the best step; 0 where one is flat.
    """
    size = second.shape[-1]
    window = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(first), 4) if window is None else window
    x = (torch.arange(size) + 0.5) * 2 / size - 1
    target = unit(center(second))

    def centered(pictures: Tensor) -> Tensor:
        flat = center(pictures).flatten(1)
        return flat - flat.mean(1, keepdim=True)

    part = windows(first, window)[:, 0]
    best = (unit(center(part)) * target).sum(1)
    for _ in range(steps):
        down, right = torch.gradient(part, spacing=2 / size, dim=(1, 2))
        right, down = right / window[:, 2, None, None], down / window[:, 3, None, None]
        slopes = torch.stack([centered(c) for c in (part, right, down, right * x, down * x[:, None])], 2)
        normal = slopes.mT @ slopes
        ridge = 1e-4 * torch.diagonal(normal, dim1=1, dim2=2) + 1e-6
        change = torch.linalg.solve(normal + torch.diag_embed(ridge), slopes.mT @ target[:, :, None])[:, :, 0]
        gain = change[:, :1].clamp(min=1e-6)
        window = window + (change[:, 1:] / gain).clamp(-_FARTHEST, _FARTHEST)
        part = windows(first, window)[:, 0]
        best = torch.maximum(best, (unit(center(part)) * target).sum(1))
    return best
