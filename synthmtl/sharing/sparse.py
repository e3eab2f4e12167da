"""A gate that can remove, ours: gates that can be exactly zero, and pay for being open."""

import math
from typing import Literal

import torch
from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.sharing.gates import GateMaps, Gates, PairwiseSharing
from synthmtl.sharing.leaky import ConvFLU

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1


class HardConcreteGates(Gates):
    """:class:`Gates` that reach 0 and 1 (hard-concrete distribution; Louizos, Welling, Kingma, ICLR 2018).

        training    s = sigmoid((a + log u - log(1 - u)) / β),  u uniform, drawn like dropout's
        else        s = sigmoid(a)
        gate        clamp(s (ζ - γ) + γ, 0, 1)                  β = 2/3, γ = -0.1, ζ = 1.1

    A plain L1 penalty on sigmoid gates is met by small gates and large weights behind them; the noise and the exact
    zero take that way out. ``open`` has the probabilities of being open, sigmoid(a - β log(-γ / ζ)), of the last pass:
    (B, gates · C, H, W), of r first.
    """

    open: Tensor | None = None

    def forward(self, *args, **kwargs) -> GateMaps:
        self.open = None
        return super().forward(*args, **kwargs)

    def squash(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        likely = torch.sigmoid(logits - TEMPERATURE * math.log(-LOW / HIGH))
        self.open = likely if self.open is None else torch.cat([self.open, likely], 1)
        if self.training:
            u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = (logits + u.logit()) / TEMPERATURE
        return (torch.sigmoid(logits) * (HIGH - LOW) + LOW).clamp(0, 1)


class SparsePair(ConvFLU):
    """One direction, from a donor y to a receiver x: a ConvFLU with :class:`HardConcreteGates` and a penalty.

        penalty = weight · mean P(gate > 0)      over the gate named by ``penalized``

    r reads the donor only by default. The penalty is the expected share of open gates (L0), per number of the map.
    Parameters: those of the ConvFLU with biases, 5 C² k² + 2 C by default.

    Args:
        channels, kernel_size, gating, pass_reads: as in :class:`ConvFLU`.
        weight: of the penalty.
        penalized: ``pass`` (r, less of the donor enters) or ``take`` (z, less of the receiver changes).
        pass_bias, take_bias: start values; gates that start open are shut by the penalty where nothing speaks for them.
    """

    gates_class = HardConcreteGates
    noisy = True

    def __init__(
        self,
        channels: int,
        *,
        weight: float = 0.1,
        penalized: Literal["pass", "take"] = "pass",
        kernel_size: Literal[1, 3] = 1,
        gating: Literal["element", "channel"] = "element",
        pass_reads: Literal["both", "donor"] = "donor",
        pass_bias: float = 2.0,
        take_bias: float = 0.0,
    ):
        if not 0 <= weight < math.inf:
            raise InputError(f"sharing_options: weight of the sparse unit is {weight}, use a finite number from 0 up")
        super().__init__(channels, kernel_size, take_bias, pass_bias=pass_bias, gating=gating, pass_reads=pass_reads)
        self.weight, self.penalized = weight, penalized

    def exchange(self, receiver: Tensor, donor: Tensor, passed: Tensor, taken: Tensor) -> Tensor:
        of_pass, of_take = self.gates.open.chunk(2, 1)  # type: ignore[operator]
        self.gates.open = None  # type: ignore[assignment]
        self.penalty = self.weight * (of_pass if self.penalized == "pass" else of_take).mean()
        return super().exchange(receiver, donor, passed.to(donor.dtype), taken)


class SparseSharing(PairwiseSharing):
    """A :class:`SparsePair` for every ordered pair of tasks.

    Parameters: receivers · (tasks - 1) times those of a pair.
    """

    pair = SparsePair
