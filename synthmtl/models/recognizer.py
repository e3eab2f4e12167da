"""A recognition network without a synthesis branch: the baseline, the guide and the judge."""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.blocks import ResidualBlock, Stage, Stem, in_precision_of
from synthmtl.models.encoder import ExpressionHead


class Recognizer(ModelMixin, ConfigMixin):
    """FERSNet's recognition branch on its own: stem, stages, one more block, classifier.

    Args:
        classes: expressions, in canonical order.
        image_size: side of the faces in pixels.
        image_channels: 1 for gray, 3 for RGB.
        stem_channels, stage_channels, joint_channels: widths; ``joint_channels`` is that of the last block.
        norm, stem_kind, pool_first: as in ``blocks.normalization``, ``blocks.Stem`` and ``blocks.Stage``.
        dropout: in front of the linear classifier.

    Raises:
        InputError: if a width, the size of the faces or the dropout does not suit.
    """

    @register_to_config
    def __init__(
        self,
        classes: Sequence[str],
        image_size: int = 48,
        image_channels: int = 1,
        stem_channels: int = 16,
        stage_channels: Sequence[int] = (32, 64, 96),
        joint_channels: int = 96,
        norm: str = "batch",
        stem_kind: str = "unshuffle",
        pool_first: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        widths = [stem_channels, *stage_channels]
        if not stage_channels or min(*widths, joint_channels) < 1:
            raise InputError(
                f"stem_channels, stage_channels and joint_channels are {stem_channels}, {list(stage_channels)} and "
                f"{joint_channels}: use widths of at least 1, and at least one stage"
            )
        least = 2 ** (1 + len(stage_channels))
        if image_size < least or (stem_kind == "unshuffle" and image_size % 2):
            even = "an even number " if stem_kind == "unshuffle" else ""
            raise InputError(f"image_size {image_size} does not suit the network: use {even}from {least}")
        self.stem = Stem(image_channels, stem_channels, norm, stem_kind)
        self.stages = nn.ModuleList(Stage(widths[i], width, norm, pool_first) for i, width in enumerate(stage_channels))
        self.last = ResidualBlock(stage_channels[-1], joint_channels, norm)
        self.head = ExpressionHead(joint_channels, len(classes), norm, dropout)

    @property
    def classes(self) -> tuple[str, ...]:
        """Expressions, in the order of the logits."""
        return tuple(self.config.classes)

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps after the stem, each stage and the last block, shallow to deep."""
        maps = [self.stem(in_precision_of(self.stem, images))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [*maps, self.last(maps[-1])]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), float32, of faces (B, C, H, W) in [-1, 1]."""
        return self.head(self.features(images)[-1])

    @torch.no_grad()
    def recognize(self, images: Tensor) -> Tensor:
        """Probabilities (B, K) of faces (B, C, H, W) in [-1, 1]."""
        return self(images).softmax(1)

    def recognition_parameters(self) -> int:
        """How many parameters take part in recognition: all."""
        return sum(p.numel() for p in self.parameters())
