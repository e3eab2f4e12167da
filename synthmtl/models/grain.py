"""Sensor noise of edited faces."""

import torch
from torch import Tensor
from torch.nn import functional as F


def grain_level(images: Tensor) -> Tensor:
    """Standard deviation of the pixel noise of each image, (B,), of images (B, C, H, W).

    The second difference in both directions (Immerkaer, 1996) is blind to flat and sloping areas. Half of a small face
    are edges and texture, so the level is read from the quietest fifth of the pixels. A constant image has level 0.
    """
    kernel = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], device=images.device)
    channels = images.shape[1]
    response = F.conv2d(images.float(), kernel.expand(channels, 1, 3, 3), groups=channels)
    # The kernel's weights have length 6; 0.2533 is the 20 % quantile of |x| of a standard normal x.
    return response.float().abs().flatten(1).quantile(0.2, dim=1) / (6 * 0.2533)


def restore_grain(edited: Tensor, source: Tensor, noise: Tensor) -> Tensor:
    """Give edited faces as much grain as their sources have.

    Noise cannot be predicted, so a trained editor smooths it away; a recognizer would then tell synthesized faces, and
    with them the rare classes, by their smoothness.

    Args:
        edited, source: (B, C, H, W) in [-1, 1].
        noise: standard normal, (B, C, H, W).

    Returns:
        (B, C, H, W) in [-1, 1]; nothing is added where the edited face has the source's grain already.
    """
    lacking = (grain_level(source).square() - grain_level(edited).square()).clamp(min=0).sqrt()
    return (edited + lacking[:, None, None, None] * noise).clamp(-1, 1)
