"""The critic of the synthesis branch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from synthmtl.errors import InputError


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al., 2017) that sees the face and an expression, (B, C, H, W) and (B,) → (B, 1, h, w) scores.

    ``conditioning="label_map"`` joins a one-hot label map to the pixels, as FERSNet does; ``"projection"`` adds the
    mean product of a class vector and the features (Miyato and Koyama, 2018), which cannot ignore the label.

    Args:
        image_channels: C.
        classes: number of expressions.
        channels: widths of the stride-2 convolutions; 64-512 as published.
        conditioning: ``label_map`` or ``projection``.
        spectral: divide weights by their spectral norm (Miyato et al., 2018) instead of instance normalization.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        classes: int,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        conditioning: str = "label_map",
        spectral: bool = False,
    ):
        super().__init__()
        if conditioning not in ("label_map", "projection"):
            raise ValueError(f"unknown conditioning {conditioning!r}: use label_map or projection")
        self.classes = classes
        self.least_size = 2 ** (len(channels) + (0 if spectral else 1))  # normalization needs more than one pixel
        self.label_map = conditioning == "label_map"
        wrap = spectral_norm if spectral else (lambda layer: layer)
        layers: list[nn.Module] = []
        width = image_channels + (classes if self.label_map else 0)
        for i, out in enumerate(channels):
            normalized = i > 0 and not spectral
            layers.append(wrap(nn.Conv2d(width, out, 4, stride=2, padding=1, bias=not normalized)))
            if normalized:
                layers.append(nn.InstanceNorm2d(out))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            width = out
        self.features = nn.Sequential(*layers)
        self.score = wrap(nn.Conv2d(width, 1, 3, padding=1))
        self.projection = None if self.label_map else nn.Embedding(classes, width)

    def forward(self, image: Tensor, expression: Tensor) -> Tensor:
        if min(image.shape[-2:]) < self.least_size:
            raise InputError(
                f"the critic takes images of at least {self.least_size} pixels a side, not {image.shape[-1]}"
            )
        if self.label_map:
            code = F.one_hot(expression, self.classes).to(image.dtype)[:, :, None, None]
            image = torch.cat([image, code.expand(-1, -1, *image.shape[-2:])], 1)
        features = self.features(image)
        score = self.score(features)
        if self.projection is not None:
            score = score + (features * self.projection(expression)[:, :, None, None]).mean(1, keepdim=True)
        return score.float()
