"""Task attention masks (MTAN; Liu, Johns, Davison, CVPR 2019, arXiv 1803.10704), adapted to branches that exchange."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthmtl.sharing.base import SharingUnit


class MTAN(SharingUnit):
    """A shared feature of all tasks, from which each task's attention mask selects.

        p    = sum_j w_j . x_j                                              the shared feature, w_j per channel
        a_i  = sigmoid(BN(V_i * relu(BN(U_i * [p, x_i]))) + b)              the mask, (B, C, H, W)
        x_i' = a_i . p

    As published: the mask's two 1×1 convolutions with batch normalization, what they read (the shared feature and what
    the task has so far), and that a task gets nothing but masked shared features. Adapted: MTAN runs one shared network
    and gives the tasks attention modules only; here the stages belong to the tasks, so the shared feature is mixed from
    what the tasks' stages computed, where MTAN's comes from a trunk of its own, and the task's next stage takes the
    place of the convolution that carries its masked feature on.

    Parameters: tasks (3 C² + 5 C).

    Args:
        channels, tasks: as in :class:`SharingUnit`; C is ``channels``. w_j starts at 1 / tasks.
        mask_bias: start value of b, the shift of the last batch normalization; 0 as published starts half open.
    """

    def __init__(self, channels: int, tasks: int = 2, *, mask_bias: float = 0.0):
        super().__init__(channels, tasks)
        self.mixture = nn.Parameter(torch.full((tasks, channels), 1 / tasks))
        self.per_task = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.Sigmoid(),
            )
            for _ in range(tasks)
        )
        for layers in self.per_task:
            nn.init.constant_(layers[4].bias, mask_bias)  # type: ignore[index]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        shared = sum(w.to(x.dtype)[:, None, None] * x for w, x in zip(self.mixture, features, strict=True))
        return [mask(torch.cat([shared, own], 1)) * shared for mask, own in zip(self.per_task, features, strict=True)]
