"""A gate that can remove, ours: the receiver's direct path costs something, or is gone."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.sharing.gates import GatedPair, Gates, PairwiseSharing, convolve, mix


class ReplacePair(GatedPair):
    """One direction, from a donor y to a receiver x: a ConvFLU that is paid for giving up what the receiver had.

        c       = tanh(W * (r . y) + U * x)
        x'      = (1 - z) . x + z . c
        penalty = weight · mean(1 - z)

    With ``drop`` there is no z and x' = c: whatever the receiver keeps, it has to rebuild. With ``own=False`` there is
    no U either, and the candidate holds nothing but the message. r reads the donor only by default.

    Parameters: r C² k² + C (2 C² k² + C if it reads both), z 2 C² k² + C unless dropped, W C² k², U C² k² if there.

    Args:
        channels: C.
        weight: of the penalty.
        drop, own: see above.
        kernel_size, gating, pass_reads, pass_bias, take_bias: of :class:`Gates`; W and U have this kernel too.
    """

    def __init__(
        self,
        channels: int,
        *,
        weight: float = 0.1,
        drop: bool = False,
        own: bool = True,
        kernel_size: Literal[1, 3] = 1,
        gating: Literal["element", "channel"] = "element",
        pass_reads: Literal["both", "donor"] = "donor",
        pass_bias: float = 0.0,
        take_bias: float = -2.0,
    ):
        if not 0 <= weight < math.inf:
            raise InputError(
                f"sharing_options: weight of the replacing unit is {weight}, use a finite number from 0 up"
            )
        gates = Gates(
            channels,
            kernel_size,
            pass_bias=pass_bias,
            take_bias=take_bias,
            gating=gating,
            pass_reads=pass_reads,
            fixed_take=drop,
        )
        super().__init__(gates, fixed_take=1.0 if drop else None)
        self.weight, self.drop, self.own = weight, drop, own
        inputs = 2 * channels if own else channels
        self.candidate = nn.Conv2d(inputs, channels, kernel_size, padding=kernel_size // 2, bias=False)

    def exchange(self, receiver: Tensor, donor: Tensor, passed: Tensor, taken: Tensor) -> Tensor:
        if not self.drop:
            self.penalty = self.weight * (1 - taken.float()).mean()
        message = passed * donor
        candidate = torch.tanh(convolve(self.candidate, torch.cat([message, receiver], 1) if self.own else message))
        return mix(receiver, candidate, taken)


class ReplaceSharing(PairwiseSharing):
    """A :class:`ReplacePair` for every ordered pair of tasks.

    Parameters: receivers · (tasks - 1) times those of a pair.
    """

    pair = ReplacePair
