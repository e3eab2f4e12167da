"""A gate that can remove, ours: the message squeezed through a few noisy channels."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.sharing.gates import GatedPair, Gates, PairwiseSharing, mix


class BottleneckPair(GatedPair):
    """One direction, from a donor y to a receiver x: a ConvFLU whose message has to fit through k « C channels.

        m  = E * (r . y)  [+ noise]          (B, k, H, W)
        c  = tanh(D * m + U * x)
        x' = (1 - z) . x + z . c

    r reads the donor only by default. With ``direct=False`` the receiver's own features have to fit through as well and
    nothing passes by, so that what neither task's loss asks for can be lost:

        m = E * [r . y, x] [+ noise],        x' = tanh(D * m)

    With a ``rate`` above 0, noise of unit variance is added in training (drawn like dropout's) and the penalty is the
    variational information bottleneck's (Alemi et al., ICLR 2017): rate · mean(m² / 2), the divergence of N(m, 1) from
    N(0, 1) in nats per number, which bounds what the message can tell.

    Parameters, with 1×1 gates that read as by default: r C² + C, z 2 C² + C, E and D 2 C k, U C²; with ``direct=False``
    r C² + C, E 2 C k, D C k.

    Args:
        channels: C.
        width: k; None for a quarter of C.
        rate: weight of the information penalty.
        direct: see above.
        kernel_size, gating, pass_reads, pass_bias, take_bias: of :class:`Gates`.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int | None = None,
        rate: float = 0.0,
        direct: bool = True,
        kernel_size: Literal[1, 3] = 1,
        gating: Literal["element", "channel"] = "element",
        pass_reads: Literal["both", "donor"] = "donor",
        pass_bias: float = 0.0,
        take_bias: float = -2.0,
    ):
        width = max(1, channels // 4) if width is None else width
        if not 1 <= width <= channels:
            raise InputError(f"sharing_options: width of the bottleneck is {width}, use 1 to {channels}")
        if not 0 <= rate < math.inf:
            raise InputError(f"sharing_options: rate of the bottleneck is {rate}, use a finite number from 0 up")
        gates = Gates(
            channels,
            kernel_size,
            pass_bias=pass_bias,
            take_bias=take_bias,
            gating=gating,
            pass_reads=pass_reads,
            fixed_take=not direct,
        )
        super().__init__(gates, fixed_take=None if direct else 1.0)
        self.rate, self.direct, self.noisy = rate, direct, rate > 0
        self.squeeze = nn.Conv2d(channels if direct else 2 * channels, width, 1, bias=False)
        self.spread = nn.Conv2d(width, channels, 1, bias=False)
        self.own = nn.Conv2d(channels, channels, 1, bias=False) if direct else None

    def exchange(self, receiver: Tensor, donor: Tensor, passed: Tensor, taken: Tensor) -> Tensor:
        message = passed * donor
        squeezed = self.squeeze(message if self.direct else torch.cat([message, receiver], 1))
        if self.rate:
            self.penalty = self.rate * squeezed.float().square().mean() / 2
            if self.training:
                squeezed = squeezed + torch.randn_like(squeezed)
        sums = self.spread(squeezed)
        candidate = torch.tanh(sums + self.own(receiver) if self.own is not None else sums)
        return mix(receiver, candidate, taken)


class BottleneckSharing(PairwiseSharing):
    """A :class:`BottleneckPair` for every ordered pair of tasks.

    Parameters: receivers · (tasks - 1) times those of a pair.
    """

    pair = BottleneckPair
