"""Convolutional feature leaky units (Zhao et al., ICPR 2020, arXiv 2007.04514): gates that select what is shared."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.sharing.gates import GatedPair, Gates, PairwiseSharing, convolve, is_hooked, mix
from synthmtl.sharing.rows import Weights, leaky_rows, served


class ConvFLU(GatedPair):
    """One direction of selective feature sharing, from a donor y to a receiver x, both (B, C, H, W).

        r  = sigmoid(W_r * [x, y])           what of the donor may pass
        c  = tanh(W * (r . y) + U * x)       the candidate
        z  = sigmoid(W_z * [x, y])           how much of the candidate is taken
        x' = (1 - z) . x + z . c

    This is the orientation of the paper's equations: z = 0 keeps the receiver as it is (the published code mirrors z).
    W_r and W_z are one convolution here, W and U another: the same sums in two calls instead of four.

    Parameters: 6 C² k², none of them biases as published; a ``gate_bias`` adds C for each of r and z, ``normalize``
    2 C, an r that reads the donor only takes C² k² away, a fixed gate all of its own. With z fixed at 0 none is left.

    Args:
        channels: C.
        kernel_size: k, 1 or 3.
        gate_bias: None as published; else the gates get biases, of this start value for z (-2 starts near the
            identity).
        pass_bias: start value of r's bias; it needs a ``gate_bias``.
        gating, pass_reads: as in :class:`Gates`.
        normalize: group normalization in one group in front of the tanh, which else saturates at deep stages.
        fixed_pass, fixed_take: constants instead of r and z.

    Raises:
        InputError: if a constant is not in [0, 1], or r is to have a bias and the gates have none or r is a constant.
    """

    gates_class = Gates

    def __init__(
        self,
        channels: int,
        kernel_size: Literal[1, 3] = 1,
        gate_bias: float | None = None,
        *,
        pass_bias: float = 0.0,
        gating: Literal["element", "channel"] = "element",
        pass_reads: Literal["both", "donor"] = "both",
        normalize: bool = False,
        fixed_pass: float | None = None,
        fixed_take: float | None = None,
    ):
        if pass_bias and gate_bias is None:
            raise InputError(
                f"sharing_options: pass_bias of the leaky unit is {pass_bias}, but its gates have no biases without a "
                "gate_bias: give one too"
            )
        if pass_bias and fixed_pass is not None:
            raise InputError(
                f"sharing_options: pass_bias of the leaky unit is {pass_bias}, but its r is fixed at {fixed_pass}: "
                "leave one of them out"
            )
        for name, value in (("fixed_pass", fixed_pass), ("fixed_take", fixed_take)):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"sharing_options: {name} of the leaky unit is {value}, use a number in [0, 1]")
        gates = self.gates_class(
            channels,
            kernel_size,
            pass_bias=None if gate_bias is None else pass_bias,
            take_bias=gate_bias,
            gating=gating,
            pass_reads=pass_reads,
            fixed_pass=fixed_pass is not None or fixed_take == 0,
            fixed_take=fixed_take is not None,
        )
        super().__init__(gates, fixed_pass=fixed_pass, fixed_take=fixed_take)
        self.candidate = self.norm = None
        if fixed_take != 0:
            self.candidate = nn.Conv2d(2 * channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
            self.norm = nn.GroupNorm(1, channels) if normalize else nn.Identity()

    def exchange(self, receiver: Tensor, donor: Tensor, passed: Tensor, taken: Tensor) -> Tensor:
        both = torch.cat([passed * donor, receiver], 1)
        candidate = torch.tanh(self.norm(convolve(self.candidate, both)))  # type: ignore[misc, arg-type]
        return mix(receiver, candidate, taken)

    def weights_of_rows(self) -> Weights | None:
        """What :func:`leaky_rows` computes this direction from; None if more is needed, or its gates are looked at."""
        gates = self.gates
        layer = gates.of_both
        plain = type(gates) is Gates and isinstance(self.norm, nn.Identity) and not gates.pooled
        learned = gates.of_donor is None and self.forced_pass is None and self.forced_take is None
        if not (plain and learned) or layer is None or layer.kernel_size != (1, 1) or is_hooked(gates):
            return None
        return layer.weight, layer.bias, self.candidate.weight  # type: ignore[union-attr]

    def compiled_forward(self, receiver: Tensor, donor: Tensor) -> Tensor:
        weights = self.weights_of_rows()
        if weights is None or (precision := served(receiver, donor)) is None:
            return super().compiled_forward(receiver, donor)
        return leaky_rows(receiver.to(precision), donor.to(precision), [weights])[0]


class LeakySharing(PairwiseSharing):
    """A :class:`ConvFLU` for every ordered pair of tasks; for two tasks it is the paper's.

    Compiled, the two directions between two tasks are computed together, where :func:`leaky_rows` serves both.

    Parameters: receivers · (tasks - 1) times those of a pair.
    """

    pair = ConvFLU

    def between(self, one: int, other: int, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        keys, units = (self.key(one, other), self.key(other, one)), self.units
        pairs: dict[str, ConvFLU] = {key: units[key] for key in keys if key in units}  # type: ignore[misc]
        found = [pair.weights_of_rows() for pair in pairs.values() if pair.compiled and not is_hooked(pair)]
        weights = [each for each in found if each is not None]
        if len(weights) < 2 or (precision := served(x, y)) is None:
            return super().between(one, other, x, y)
        both = leaky_rows(x.to(precision), y.to(precision), weights)
        return dict(zip(pairs, both, strict=True))


LEAKY_ABLATIONS: dict[str, dict[str, Any]] = {
    "leaky_shut": {"fixed_take": 0.0},
    "leaky_open": {"fixed_pass": 1.0, "fixed_take": 1.0},
    "leaky_half": {"fixed_pass": 0.5, "fixed_take": 0.5},
    "leaky_r_only": {"fixed_take": 0.5},
    "leaky_z_only": {"fixed_pass": 1.0},
    "leaky_donor_r": {"pass_reads": "donor"},
}
"""Options of the leaky unit by the names of its ablations.

Without z, half of the candidate is taken, so that the receiver keeps its direct path; without r, the whole donor
passes, since W can scale it.
"""
