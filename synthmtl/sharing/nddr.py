"""Neural discriminative dimensionality reduction (Gao et al., CVPR 2019, arXiv 1801.08297)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthmtl.sharing.base import SharingUnit, own_first


class NDDR(SharingUnit):
    """A 1×1 convolution and batch normalization bring all tasks' features back to each task's channels.

        x_i' = BN_i(W_i * [x_1, ..., x_T])

    The task's own features come first in the concatenation. W_i starts diagonal: ``own`` on the diagonal of the own
    features' block, (1 - own) / (tasks - 1) on the others'.
    Parameters: tasks (tasks C² + 2 C), without batch normalization tasks² C².

    Args:
        channels, tasks: as in :class:`SharingUnit`; C is ``channels``.
        own: see above; the paper found 0.9 best.
        normalize: batch normalization, as published.
    """

    def __init__(self, channels: int, tasks: int = 2, *, own: float = 0.9, normalize: bool = True):
        super().__init__(channels, tasks)
        self.per_task = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(tasks * channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels) if normalize else nn.Identity(),
            )
            for _ in range(tasks)
        )
        identity = torch.eye(channels)
        with torch.no_grad():
            for layers in self.per_task:
                blocks = [own * identity, *[(1 - own) / (tasks - 1) * identity] * (tasks - 1)]
                layers[0].weight.copy_(torch.cat(blocks, 1)[:, :, None, None])  # type: ignore[index]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [layers(torch.cat(own_first(features, task), 1)) for task, layers in enumerate(self.per_task)]
