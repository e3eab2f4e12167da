"""Convolutional feature leaky units (Zhao et al., ICPR 2020, arXiv 2007.04514): gates that select what is shared."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthmtl.sharing.base import SharingUnit


class ConvFLU(nn.Module):
    """One direction of selective feature sharing, from a donor y to a receiver x, both (B, C, H, W).

        r  = sigmoid(W_r * [x, y])           what of the donor may pass
        c  = tanh(W * (r . y) + U * x)       the candidate
        z  = sigmoid(W_z * [x, y])           how much of the candidate is taken
        x' = (1 - z) . x + z . c

    This is the orientation of the paper's equations: z = 0 keeps the receiver as it is (the published code mirrors z).
    W_r and W_z are one convolution here, W and U another: the same sums in two calls instead of four.

    Parameters: 6 C² k², none of them biases as published; a ``gate_bias`` adds 2 C.

    Args:
        channels: C.
        kernel_size: k, 1 or 3.
        gate_bias: None as published; else the gates get biases, zero for r and this start value for z (-2 starts
            near the identity).

    Attributes:
        forced_take: None, or a number in [0, 1] that replaces z, for ablations and interventions. At 0 the receiver
            is returned untouched and no gradient reaches the donor.
        forced_pass: None, or a number in [0, 1] that replaces r.
    """

    def __init__(self, channels: int, kernel_size: int = 1, gate_bias: float | None = None):
        super().__init__()
        padding = kernel_size // 2
        self.gates = nn.Conv2d(2 * channels, 2 * channels, kernel_size, padding=padding, bias=gate_bias is not None)
        self.candidate = nn.Conv2d(2 * channels, channels, kernel_size, padding=padding, bias=False)
        if gate_bias is not None:
            with torch.no_grad():
                self.gates.bias[:channels].zero_()
                self.gates.bias[channels:].fill_(gate_bias)
        self.forced_take: float | None = None
        self.forced_pass: float | None = None

    def forward(self, receiver: Tensor, donor: Tensor) -> Tensor:
        """The receiver's new features, (B, C, H, W)."""
        if self.forced_take == 0:
            return receiver
        passed, taken = torch.sigmoid(self.gates(torch.cat([receiver, donor], 1))).chunk(2, 1)
        if self.forced_pass is not None:
            passed = torch.full_like(passed, self.forced_pass)
        if self.forced_take is not None:
            taken = torch.full_like(taken, self.forced_take)
        candidate = torch.tanh(self.candidate(torch.cat([passed * donor, receiver], 1)))
        return torch.lerp(receiver.to(candidate.dtype), candidate, taken)


class LeakySharing(SharingUnit):
    """A :class:`ConvFLU` for every ordered pair of tasks; all read the features from before the exchange.

    With more than two tasks a receiver takes the mean over its donors' units, which for two tasks is the paper's.
    Parameters: tasks · (tasks - 1) times those of a ConvFLU.

    Args:
        channels, tasks: as in :class:`SharingUnit`.
        kernel_size, gate_bias: as in :class:`ConvFLU`.
    """

    def __init__(self, channels: int, tasks: int = 2, *, kernel_size: int = 1, gate_bias: float | None = None):
        super().__init__(channels, tasks)
        self.units = nn.ModuleDict(
            {
                self.key(receiver, donor): ConvFLU(channels, kernel_size, gate_bias)
                for receiver in range(tasks)
                for donor in range(tasks)
                if donor != receiver
            }
        )

    @staticmethod
    def key(receiver: int, donor: int) -> str:
        """Name of the unit from task ``donor`` to task ``receiver`` in ``units``."""
        return f"{donor}_to_{receiver}"

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        exchanged = []
        for receiver, own in enumerate(features):
            updates = [
                self.units[self.key(receiver, donor)](own, other)
                for donor, other in enumerate(features)
                if donor != receiver
            ]
            exchanged.append(updates[0] if len(updates) == 1 else torch.stack(updates).mean(0))
        return exchanged
