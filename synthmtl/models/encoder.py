"""Branches that meet after every stage."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.blocks import ResidualBlock, normalization
from synthmtl.models.trunk import MultiTaskTrunk

JOINTS = ("common", "apart")
"""Joint block: one that reads both branches, or one for each of recognition and synthesis."""

RECOGNITION, SYNTHESIS = 0, 1
"""Positions of the two tasks in a sharing unit's features."""


class Encoded(NamedTuple):
    """What the encoder hands on: joint features of each task and the synthesis branch's skips, deepest first.

    ``penalty`` is the sum of what the sharing units add to the loss, a scalar; None if none of them does. ``further``
    are the features (B, stages[-1], h, w) of each further task.
    """

    recognition: Tensor
    synthesis: Tensor
    skips: list[Tensor]
    penalty: Tensor | None = None
    further: Sequence[Tensor] = ()


class TwoBranchEncoder(MultiTaskTrunk):
    """A :class:`MultiTaskTrunk` of two branches or more that share nothing but the stem, and a joint block of two.

    (B, C, H, W) → after the stem (B, stem, H/2, W/2), after stage i (B, stages[i], H/2^(i+2), ...). The joint block
    reads both branches, (B, 2 · stages[-1], ...) → (B, joint, ...), and is split in halves: one to the classifier,
    one to the decoder. Through it, what a gate kept out comes back; with ``joint="apart"`` each of the two tasks has a
    block of its own, (B, stages[-1], ...) → (B, joint / 2, ...), which reads that task's features alone. So it is with
    ``sharing="none"``, where nothing but the stem is common. With a single-trunk unit there is one branch, whose
    features serve both. Further tasks have a branch each, which takes part in the exchange and ends before the joint
    block.

    Args:
        further: how many tasks there are beside recognition and synthesis.
        image_channels: C.
        stem_channels, stage_channels, joint_channels: widths.
        sharing: name of the sharing unit; ``sharing_options`` go to it.
        one_unit: the same unit, as wide as the widest stage, after every stage, with 1×1 projections where the widths
            differ; else each stage has its own.
        recognition_norm, synthesis_norm: normalization of each branch (``blocks.normalization``); further tasks have
            that of recognition.
        stem_kind, pool_first: as in :class:`Stem` and :class:`Stage`.
        joint: ``common`` or ``apart``, see above.

    Raises:
        InputError: if ``joint`` is neither, or as :class:`MultiTaskTrunk`.
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
        joint: str = "common",
        further: int = 0,
    ):
        if joint not in JOINTS:
            raise InputError(f"joint is {joint!r}: use {' or '.join(JOINTS)}")
        super().__init__(
            tasks=2 + further,
            image_channels=image_channels,
            stem_channels=stem_channels,
            stage_channels=stage_channels,
            sharing=sharing,
            sharing_options=sharing_options,
            one_unit=one_unit,
            norm=(recognition_norm, synthesis_norm, *[recognition_norm] * further),
            stem_kind=stem_kind,
            pool_first=pool_first,
        )
        last = stage_channels[-1]
        self.one_joint = self.joined and joint == "common"
        if self.one_joint:
            read = last * (1 if self.single_trunk else 2)
            self.joint: nn.Module = ResidualBlock(read, joint_channels, recognition_norm)
        else:
            norms = (recognition_norm, synthesis_norm)
            self.joint = nn.ModuleList(ResidualBlock(last, joint_channels // 2, norm) for norm in norms)

    def forward(self, images: Tensor) -> Encoded:  # type: ignore[override]  # more than a trunk's features
        levels, penalty = self.walk(images)
        features = levels[-1]
        # Deepest first; the last stage reaches the decoder through the joint block.
        skips = [level[SYNTHESIS] for level in levels[-2::-1]]
        further = features[2:]
        if isinstance(self.joint, nn.ModuleList):
            return Encoded(self.joint[0](features[0]), self.joint[1](features[1]), skips, penalty, further)
        joined = features[0] if self.single_trunk else torch.cat(features[:2], 1)
        recognition, synthesis = self.joint(joined).chunk(2, 1)
        return Encoded(recognition, synthesis, skips, penalty, further)

    def parameters_beside_recognition(self) -> int:
        """How many parameters recognition's features do not depend on."""
        if isinstance(self.joint, nn.ModuleList):
            reached = [*self.parameters_of(RECOGNITION), *self.joint[RECOGNITION].parameters()]
        else:
            reached = [*self.parameters_of(RECOGNITION, SYNTHESIS), *self.joint.parameters()]
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in reached)


def check_dropout(dropout: float) -> None:
    """Stop at a dropout that is none.

    Raises:
        InputError: naming what it takes.
    """
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout}: it must be in [0, 1)")


class ExpressionHead(nn.Module):
    """Convolution, norm, ReLU, global average pool, dropout, linear: (B, C, h, w) → logits (B, K) in float32.

    Raises:
        InputError: if the dropout is not in [0, 1).
    """

    def __init__(self, in_channels: int, classes: int, norm: str, dropout: float = 0.0):
        super().__init__()
        check_dropout(dropout)
        self.convolution = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 1, bias=False),
            normalization(norm, in_channels),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.dropout(self.convolution(features).mean((2, 3)))).float()
