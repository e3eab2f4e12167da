"""Perceptual distances by name."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import AlexNet_Weights

from synthmtl.errors import InputError
from synthmtl.losses.reconstruction import FeatureDistance

PERCEPTUAL = ("auto", "guide", "lpips")
"""Names that :func:`perceptual_distance` knows."""


def lpips_weights() -> Path:
    """Where torchvision keeps AlexNet's weights, on which LPIPS stands; the file exists once they were downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(AlexNet_Weights.IMAGENET1K_V1.url).path).name


class LpipsDistance(nn.Module):
    """Learned perceptual similarity (Zhang et al., CVPR 2018) on AlexNet, one value per pair of faces.

    Faces (B, 1 or 3, H, W) in [-1, 1]; gray ones are repeated, small ones enlarged to 64 px, the least that the
    network takes.

    Args:
        network: an ``lpips.LPIPS``; None builds it with AlexNet's weights, which torchvision downloads if they are
            not there.
    """

    def __init__(self, network: nn.Module | None = None):
        super().__init__()
        if network is None:
            from lpips import LPIPS

            network = LPIPS(net="alex", verbose=False)
        self.network = network.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.network(self._prepared(a), self._prepared(b)).flatten()

    @staticmethod
    def _prepared(faces: Tensor) -> Tensor:
        if faces.shape[-1] < 64:
            faces = F.interpolate(faces, size=(64, 64), mode="bilinear", align_corners=False)
        return faces.expand(-1, 3, -1, -1)


def perceptual_distance(name: str, features: Callable[[Tensor], list[Tensor]] | None) -> tuple[nn.Module | None, str]:
    """The distance called ``name``, and which one it is: (faces, faces) → (B,).

    Args:
        name: ``lpips``; ``guide``, the features of a recognizer; or ``auto``, LPIPS if its weights are on this machine,
            else the guide's features.
        features: of the guide; None = there is no guide.

    Returns:
        The module and ``lpips`` or ``guide``; (None, ``none``) if features are wanted and there is no guide.

    Raises:
        InputError: if the name is unknown, or LPIPS is wanted and its weights can neither be found nor downloaded.
    """
    if name not in PERCEPTUAL:
        raise InputError(f"unknown perceptual distance {name!r}: use one of {', '.join(PERCEPTUAL)}")
    if name == "lpips" or (name == "auto" and lpips_weights().is_file()):
        try:
            return LpipsDistance(), "lpips"
        except OSError as error:
            raise InputError(
                f"LPIPS needs AlexNet's weights in {lpips_weights()} and cannot download them ({error}); "
                "put them there, or choose the perceptual distance guide"
            ) from None
    if features is None:
        return None, "none"
    return FeatureDistance(features), "guide"
