"""Two pictures laid over each other: how alike they are once one is moved, scaled and turned, however bright."""

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""Pictures are compared at this side in pixels, where sensor noise and compression hardly count."""

MARGIN = 2
"""Pixels at each edge that do not count, since a picture that was cropped has nothing to put there."""

_FLAT = 1.0  # gray levels of standard deviation below which a correlation measures noise
_FARTHEST = 0.06  # that each number of a window changes in one step, image = [-1, 1]
_TURN_COSTS = 0.005  # of correlation: by so much turning lets strangers in one studio and pose fit better (London set)
_UPRIGHT, _TURNED = 0.01, 0.03  # turns from which it costs, and from which it costs that much

WHOLE = (0.0, 0.0, 1.0, 1.0, 0.0)
"""The window that is the picture itself."""


def reduced(images: Tensor, side: int = SIDE) -> Tensor:
    """Gray pictures (N, 1, side, side) float of images (N, C, H, W) uint8 or float, in their gray levels."""
    gray = images.float().mean(1, keepdim=True)
    return F.interpolate(gray, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def center(pictures: Tensor, counts: Tensor | None = None) -> Tensor:
    """Pictures (..., S, S) without their margin, (..., S - 4, S - 4).

    Args:
        counts: (S, S) bool, the P pixels that count (:func:`~synthmtl.data.surround.pixels_that_count`); the result
            is (..., P) then. None = all inside the margin.
    """
    return pictures[..., MARGIN:-MARGIN, MARGIN:-MARGIN] if counts is None else pictures[..., counts]


def unit(pictures: Tensor) -> Tensor:
    """Pixels (N, S²) without their mean and of length 1, so that products are correlations; 0 where flat."""
    flat = pictures.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > _FLAT * flat.shape[1] ** 0.5, flat / length.clamp(min=1e-6), 0.0)


def windows(pictures: Tensor, window: Tensor) -> Tensor:
    """Parts of pictures (N, 1, S, S), enlarged to the whole.

    Args:
        pictures: to cut from.
        window: (N, 5), image ±1: middle x and y, half sides along x and y, and the turn, by which the ends of the half
            sides are moved across them: the sine of the angle for half sides that are its cosine.
    """
    theta = torch.zeros(len(window), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = window[:, 2], window[:, 3], window[:, :2]
    theta[:, 0, 1], theta[:, 1, 0] = -window[:, 4], window[:, 4]
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bicubic", padding_mode="border", align_corners=False)


def best_match(
    first: Tensor, second: Tensor, window: Tensor | None = None, *, steps: int = 3, counts: Tensor | None = None
) -> Tensor:
    r"""Highest correlation of ``second`` with a part of ``first``, by a search of the part.

    Gauss-Newton steps on |g · first(A x + t) + b − second(x)|² in gain g, offset b and the window's shift t, half sides
    and turn in A, each linear in the window's gradients (Lucas & Kanade, An Iterative Image Registration Technique,
    1981). From the whole it finds turns of up to 10° in 5 steps, and up to 8° in 3. Shear is not looked for: no copy
    needs it, and whatever may be bent fits strangers better.

    Args:
        first, second: (N, 1, S, S), pair by pair (:func:`reduced`).
        window: (N, 5) where to start, as for :func:`windows`; None = the whole. Half sides may exceed 1 on the way,
            so that it does not matter which of two pictures was cropped.
        steps: of the search; 0 = the correlation at the start.
        counts: as for :func:`center`, pixels of ``second``.

    Returns:
        (N,) correlation of the pixels that count at the best step, less 0.005 where the part is turned by 2° or
        more (between 0.6° and that, in proportion); 0 where one is flat.
    """
    if not len(first):
        return torch.empty(0)
    window = torch.tensor(WHOLE).expand(len(first), -1) if window is None else window
    target = unit(center(second, counts))
    part = windows(first, window)[:, 0]
    best = _fit(part, target, window, counts)
    for _ in range(steps):
        slopes = _centered(torch.stack([part, *_slopes(part, window)], 1), counts).mT
        normal = slopes.mT @ slopes
        ridge = 1e-4 * torch.diagonal(normal, dim1=1, dim2=2) + 1e-6
        change = torch.linalg.solve(normal + torch.diag_embed(ridge), slopes.mT @ target[:, :, None])[:, :, 0]
        gain = change[:, :1].clamp(min=1e-6)
        window = window + (change[:, 1:] / gain).clamp(-_FARTHEST, _FARTHEST)
        part = windows(first, window)[:, 0]
        best = torch.maximum(best, _fit(part, target, window, counts))
    return best


def _fit(part: Tensor, target: Tensor, window: Tensor, counts: Tensor | None) -> Tensor:
    """Correlation (N,) of parts with unit targets, less what their turn costs."""
    turned = ((window[:, 4].abs() - _UPRIGHT) / (_TURNED - _UPRIGHT)).clamp(0, 1)
    return (unit(center(part, counts)) * target).sum(1) - _TURN_COSTS * turned


def _slopes(part: Tensor, window: Tensor) -> tuple[Tensor, ...]:
    """How parts (N, S, S) change with each number of their windows (N, 5)."""
    size = part.shape[-1]
    x = (torch.arange(size) + 0.5) * 2 / size - 1
    y = x[:, None]
    down, right = torch.gradient(part, spacing=2 / size, dim=(1, 2))
    # Along the axes of the picture that the part was cut from, by the inverse of A.
    wide, high, turn = (column[:, None, None] for column in window[:, 2:].unbind(1))
    area = wide * high + turn**2
    right, down = (right * high - down * turn) / area, (right * turn + down * wide) / area
    return right, down, right * x, down * y, down * x - right * y


def _centered(pictures: Tensor, counts: Tensor | None) -> Tensor:
    """What counts of pictures (N, K, S, S) without its mean, (N, K, pixels)."""
    flat = center(pictures, counts).flatten(2)
    return flat - flat.mean(2, keepdim=True)
