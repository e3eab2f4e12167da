"""Faces as they are stored, uint8, and as networks see and make them, float32 in [-1, 1]."""

import torch
from torch import Tensor


def to_unit(images: Tensor, device: torch.device | str | None = None) -> Tensor:
    """uint8 faces of any shape as float32 in [-1, 1], on ``device`` if one is named."""
    return (images if device is None else images.to(device)).float().div_(127.5).sub_(1.0)


def to_pixels(faces: Tensor) -> Tensor:
    """Finite faces of any shape in [-1, 1] as uint8, rounded; what lies beyond is cut."""
    return faces.clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)
