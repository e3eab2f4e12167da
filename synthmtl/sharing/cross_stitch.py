"""Cross-stitch units (Misra et al., CVPR 2016, arXiv 1604.03539): learned linear mixtures of the tasks' features."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from synthmtl.sharing.base import SharingUnit


class CrossStitch(SharingUnit):
    """Every task continues with its own mixture of all tasks' features.

        x_i' = sum_j alpha_ij . x_j

    Parameters: tasks² C, or tasks² with ``per="unit"``.

    Args:
        channels, tasks: as in :class:`SharingUnit`; C is ``channels``.
        per: ``channel``, one alpha per pair of tasks and channel, as the paper's best; ``unit``, one per pair of tasks.
        own: start value of alpha_ii; the other tasks start at (1 - own) / (tasks - 1). 1 starts at the identity.
    """

    def __init__(self, channels: int, tasks: int = 2, *, per: Literal["channel", "unit"] = "channel", own: float = 0.9):
        super().__init__(channels, tasks)
        alpha = torch.full((tasks, tasks), (1 - own) / (tasks - 1)).fill_diagonal_(own)
        self.alpha = nn.Parameter(alpha[..., None].repeat(1, 1, channels if per == "channel" else 1))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        mixed = []
        for row in self.alpha:
            parts = [alpha.to(x.dtype)[:, None, None] * x for alpha, x in zip(row, features, strict=True)]
            mixed.append(sum(parts[1:], parts[0]))
        return mixed
