"""Customized gate control, the extraction layer of PLE (Tang et al., RecSys 2020), for convolutional stages."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.sharing.base import SharingUnit


class CGC(SharingUnit):
    """Every task takes a gated sum over experts of its own and experts that all tasks share.

        s    = mean_j x_j                                    what the shared experts read
        g_i  = softmax(G_i mean_hw(x_i) + b_i)               one weight per expert and face, (B, E_own + E_shared)
        x_i' = sum_e g_ie E_ie(x_i) + sum_e g_ie E_e(s)

    An expert is convolution, batch normalization and ReLU, in place of PLE's fully connected layer, and the gate reads
    the features' means over space. In PLE the shared experts' stream goes on from layer to layer; here only the tasks'
    features do, so the shared experts start from their mean.

    Parameters: (tasks E_own + E_shared) (C² k² + 2 C) + tasks (C + 1) (E_own + E_shared).

    Args:
        channels, tasks: as in :class:`SharingUnit`; C is ``channels``.
        own_experts, shared_experts: E_own of each task and E_shared.
        kernel_size: k.
        own_bias: start value of b for the task's own experts; 0 as published, more starts nearer to single tasks.
    """

    def __init__(
        self,
        channels: int,
        tasks: int = 2,
        *,
        own_experts: int = 1,
        shared_experts: int = 1,
        kernel_size: Literal[1, 3] = 1,
        own_bias: float = 0.0,
    ):
        if own_experts < 1 or shared_experts < 1:
            counts = f"{own_experts} and {shared_experts}"
            raise InputError(f"sharing_options: own_experts and shared_experts of cgc are {counts}, use 1 or more")
        super().__init__(channels, tasks)

        def experts(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                )
                for _ in range(count)
            )

        self.per_task = nn.ModuleList(experts(own_experts) for _ in range(tasks))
        self.shared = experts(shared_experts)
        self.gate_per_task = nn.ModuleList(nn.Linear(channels, own_experts + shared_experts) for _ in range(tasks))
        for gate in self.gate_per_task:
            nn.init.zeros_(gate.bias)  # type: ignore[arg-type]
            nn.init.constant_(gate.bias[:own_experts], own_bias)  # type: ignore[index]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        mean = sum(features[1:], features[0]) / self.tasks
        shared = [expert(mean) for expert in self.shared]
        exchanged = []
        for own, experts, gate in zip(features, self.per_task, self.gate_per_task, strict=True):
            outputs = [expert(own) for expert in experts] + shared  # type: ignore[attr-defined]
            weights = gate(own.mean((2, 3))).softmax(1).to(outputs[0].dtype)
            parts = [w[:, None, None, None] * x for w, x in zip(weights.unbind(1), outputs, strict=True)]
            exchanged.append(sum(parts[1:], parts[0]))
        return exchanged
