"""Residual exchange, reconstructed from residual multi-task learning (Chen et al., Pattern Recognition 115, 2021)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from synthmtl.sharing.base import SharingUnit, own_first


class ResidualSharing(SharingUnit):
    """Every task adds what a small network reads from all tasks' features.

        x_i' = x_i + R_i([x_i, x_j, ...])        R = convolution, batch normalization, ReLU, convolution

    The task's own features come first. The published abstract says that a residual module lets a task take
    complementary information from the other, but no equation is public: this is a reconstruction. R's last
    convolution starts at zero, so that training starts without any exchange.

    Parameters: tasks ((tasks + 1) C² k² + 2 C).

    Args:
        channels, tasks: as in :class:`SharingUnit`; C is ``channels``.
        kernel_size: k.
        last: start value of R's last convolution: ``zero``, or ``random`` as other convolutions start.
    """

    def __init__(
        self,
        channels: int,
        tasks: int = 2,
        *,
        kernel_size: Literal[1, 3] = 1,
        last: Literal["zero", "random"] = "zero",
    ):
        super().__init__(channels, tasks)
        padding = kernel_size // 2
        self.per_task = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(tasks * channels, channels, kernel_size, padding=padding, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, kernel_size, padding=padding, bias=False),
            )
            for _ in range(tasks)
        )
        if last == "zero":
            for layers in self.per_task:
                nn.init.zeros_(layers[3].weight)  # type: ignore[index]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [
            features[task] + layers(torch.cat(own_first(features, task), 1))
            for task, layers in enumerate(self.per_task)
        ]
