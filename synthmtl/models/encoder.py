"""Branches that meet after every stage."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthmtl.models.blocks import CrossProcessBatchNorm2d, ResidualBlock, Stage, Stem, normalization
from synthmtl.sharing import ProjectedExchange, build_sharing, sharing_class

RECOGNITION, SYNTHESIS = 0, 1
"""Positions of the two tasks in a sharing unit's features."""


class Encoded(NamedTuple):
    """What the encoder hands on: joint features of each task and the synthesis branch's skips, deepest first.

    ``penalty`` is the sum of what the sharing units add to the loss, a scalar; None if none of them does.
    """

    recognition: Tensor
    synthesis: Tensor
    skips: list[Tensor]
    penalty: Tensor | None = None


class TwoBranchEncoder(nn.Module):
    """Shared stem, two branches of stages with a sharing unit after each, and a joint block.

    (B, C, H, W) → after the stem (B, stem, H/2, W/2), after stage i (B, stages[i], H/2^(i+2), ...). The joint block
    reads both branches, (B, 2 · stages[-1], ...) → (B, joint, ...), and is split in halves: one to the classifier,
    one to the decoder. With ``sharing="none"`` each task has a joint block of its own, so that nothing but the stem
    is common; with a single-trunk unit there is one branch, whose features serve both.

    Args:
        image_channels: C.
        stem_channels, stage_channels, joint_channels: widths.
        sharing: name of the sharing unit; ``sharing_options`` go to it.
        one_unit: the same unit, as wide as the widest stage, after every stage, with 1×1 projections where the widths
            differ; else each stage has its own.
        recognition_norm, synthesis_norm: normalization of each branch (``blocks.normalization``).
        stem_kind, pool_first: as in :class:`Stem` and :class:`Stage`.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        stem_channels: int,
        stage_channels: Sequence[int],
        joint_channels: int,
        sharing: str,
        sharing_options: dict | None = None,
        one_unit: bool = False,
        recognition_norm: str = "batch",
        synthesis_norm: str = "instance",
        stem_kind: str = "pool",
        pool_first: bool = False,
    ):
        super().__init__()
        self.single_trunk = sharing_class(sharing).single_trunk
        self.joined = sharing != "none"
        widths = [stem_channels, *stage_channels]
        self.stem = Stem(image_channels, stem_channels, recognition_norm, stem_kind)
        norms = [recognition_norm] if self.single_trunk else [recognition_norm, synthesis_norm]
        self.branches = nn.ModuleList(
            nn.ModuleList(Stage(widths[i], width, norm, pool_first) for i, width in enumerate(stage_channels))
            for norm in norms
        )
        widest = max(stage_channels)
        one_unit = one_unit and self.joined and not self.single_trunk
        self.units = nn.ModuleList(
            build_sharing(sharing, width, 2, sharing_options) for width in ([widest] if one_unit else stage_channels)
        )
        self.projections = nn.ModuleList(
            ProjectedExchange(width, widest if one_unit else width) for width in stage_channels
        )
        normalize_across_processes(self.units)
        last = stage_channels[-1]
        if self.joined:
            self.joint = ResidualBlock(last * len(norms), joint_channels, recognition_norm)
        else:
            self.joint = nn.ModuleList(ResidualBlock(last, joint_channels // 2, norm) for norm in norms)

    def forward(self, images: Tensor) -> Encoded:
        stem = self.stem(images)
        features = [stem, stem]
        skips = [stem]
        penalties = []
        for i, projection in enumerate(self.projections):
            if self.single_trunk:
                features = [self.branches[0][i](features[0])] * 2
            else:
                features = [branch[i](x) for branch, x in zip(self.branches, features, strict=True)]
            unit = self.units[min(i, len(self.units) - 1)]
            features = projection(features, unit)
            skips.append(features[SYNTHESIS])
            if (penalty := unit.penalty()) is not None:
                penalties.append(penalty)
        penalty = sum(penalties) if penalties else None
        skips = skips[-2::-1]  # the deepest stage reaches the decoder through the joint block
        if not self.joined:
            return Encoded(self.joint[0](features[0]), self.joint[1](features[1]), skips, penalty)
        joined = features[0] if self.single_trunk else torch.cat(features, 1)
        recognition, synthesis = self.joint(joined).chunk(2, 1)
        return Encoded(recognition, synthesis, skips, penalty)


def normalize_across_processes(module: nn.Module) -> None:
    """Make every fresh ``nn.BatchNorm2d`` in ``module`` one over all processes, keeping its parameters."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            layer = CrossProcessBatchNorm2d(child.num_features)
            layer.weight, layer.bias = child.weight, child.bias
            setattr(module, name, layer)
        else:
            normalize_across_processes(child)


class ExpressionHead(nn.Module):
    """Convolution, norm, ReLU, global average pool, dropout, linear: (B, C, h, w) → logits (B, K) in float32."""

    def __init__(self, in_channels: int, classes: int, norm: str, dropout: float = 0.0):
        super().__init__()
        self.convolution = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 1, bias=False),
            normalization(norm, in_channels),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.dropout(self.convolution(features).mean((2, 3)))).float()
