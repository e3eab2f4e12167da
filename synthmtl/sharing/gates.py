"""Gates, and what every unit that exchanges features pair by pair has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from inspect import Parameter
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.sharing.base import SharingUnit, arguments

WIDE = 128  # input channels from which a matrix product beats the 1×1 convolution in half precision (measured on CPUs)

GateMaps = tuple[Tensor, Tensor]
"""(r, z): what may pass and how much is taken, each (B, C, H, W)."""


def in_half_precision(x: Tensor) -> bool:
    """Whether convolutions of ``x`` are computed in half precision here, by autocast or since ``x`` is."""
    return x.dtype.itemsize < 4 or torch.is_autocast_enabled(x.device.type)


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """``layer(x)``; in half precision, a 1×1 convolution of wide channels-last features as the matrix product it is."""
    wide = layer.kernel_size == (1, 1) and x.shape[1] >= WIDE and in_half_precision(x)
    if wide and x.is_contiguous(memory_format=torch.channels_last):
        return F.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)
    return layer(x)


class Gates(nn.Module):
    """What of a donor y may pass to a receiver x, and how much of it is taken; all (B, C, H, W).

        r = sigmoid(W_r * [x, y] + b_r)
        z = sigmoid(W_z * [x, y] + b_z)

    ``forward`` returns (r, z), so that a forward hook on this module reads, or replaces, the gates of one direction at
    one stage. One convolution computes all gates that read both. With ``gating="channel"`` the gates are computed from
    the features' means over space, which for 1×1 kernels are the means of the maps before the sigmoid: one number per
    face and channel, handed on as a map that is the same everywhere.

    Parameters: C² k² (i_r + i_z) + C for every bias, with i = 2 (1 for an r that reads the donor only, 0 for a fixed
    gate), and k = 1 for channel-wise gates.

    Args:
        channels: C.
        kernel_size: k.
        pass_bias, take_bias: start values of b_r and b_z; None for no biases at all.
        gating: ``element`` or ``channel``.
        pass_reads: ``both``, or ``donor``: r = sigmoid(W_r * y + b_r), so that r carries nothing of x into the message.
        fixed_pass, fixed_take: True if r or z is a constant, which then has no parameters.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 1,
        *,
        pass_bias: float | None = None,
        take_bias: float | None = None,
        gating: Literal["element", "channel"] = "element",
        pass_reads: Literal["both", "donor"] = "both",
        fixed_pass: bool = False,
        fixed_take: bool = False,
    ):
        super().__init__()
        self.pooled = gating == "channel"
        kernel_size = 1 if self.pooled else kernel_size
        biased = pass_bias is not None or take_bias is not None
        apart = pass_reads == "donor" and not fixed_pass
        starts = [] if fixed_pass or apart else [pass_bias]
        starts += [] if fixed_take else [take_bias]

        def convolution(inputs: int, starts: list[float | None]) -> nn.Conv2d | None:
            if not starts:
                return None
            layer = nn.Conv2d(inputs, channels * len(starts), kernel_size, padding=kernel_size // 2, bias=biased)
            if biased:
                with torch.no_grad():
                    for rows, start in zip(layer.bias.chunk(len(starts)), starts, strict=True):  # type: ignore[union-attr]
                        rows.fill_(start or 0.0)
            return layer

        self.fixed_pass, self.fixed_take = fixed_pass, fixed_take
        self.of_donor = convolution(channels, [pass_bias] if apart else [])
        self.of_both = convolution(2 * channels, starts)

    def squash(self, logits: Tensor) -> Tensor:
        """From a gate's logits to [0, 1]."""
        return torch.sigmoid(logits)

    def forward(
        self, receiver: Tensor, donor: Tensor, forced_pass: float | None = None, forced_take: float | None = None
    ) -> GateMaps:
        """r and z, (B, C, H, W) each; a forced value replaces a gate everywhere."""
        size = donor.shape[-2:]

        def forced(value: float) -> Tensor:
            return donor.new_full((1, 1, 1, 1), value).expand_as(donor)

        if self.pooled:
            receiver, donor_read = receiver.mean((2, 3), keepdim=True), donor.mean((2, 3), keepdim=True)
        else:
            donor_read = donor
        maps = []
        if self.of_donor is not None:
            maps.append(self.squash(convolve(self.of_donor, donor_read)))
        if self.of_both is not None:
            both = self.squash(convolve(self.of_both, torch.cat([receiver, donor_read], 1)))
            maps.extend(both.split(donor.shape[1], 1))
        if self.pooled:
            maps = [gate.expand(-1, -1, *size) for gate in maps]
        learned = iter(maps)
        passed = None if self.fixed_pass else next(learned)
        taken = None if self.fixed_take else next(learned)
        return (  # type: ignore[return-value]  # what is fixed is forced, too
            passed if forced_pass is None else forced(forced_pass),
            taken if forced_take is None else forced(forced_take),
        )


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody wants to be told of the calls of ``module``."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _step(pair: "GatedPair", receiver: Tensor, donor: Tensor) -> Tensor:
    return pair.exchange(receiver, donor, *pair.gates(receiver, donor, pair.forced_pass, pair.forced_take))


@cache
def _compiled_step() -> Callable[["GatedPair", Tensor, Tensor], Tensor]:
    # One function serves the pairs of all stages, in training and evaluation: more variants than the default limit.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(_step, dynamic=False)


def compile_units(model: nn.Module, compiled: bool = True) -> None:
    """Let ``torch.compile``, or functions of their own, fuse what the gated pairs in ``model`` compute, or let it be.

    The first pass at each shape takes seconds and needs a C++ compiler (Triton on CUDA). Uncompiled run pairs in full
    precision on a CPU, where compiling does not pay, pairs whose gates are hooked: compiled code would pass the hook
    by, and in training those that are ``noisy``: it would draw other numbers than they do when they are hooked.
    """
    for module in model.modules():
        if isinstance(module, GatedPair):
            module.compiled = compiled


class GatedPair(nn.Module, ABC):
    """One direction of an exchange, from a donor y to a receiver x, through :class:`Gates`.

    Attributes:
        gates: the gates, to be hooked.
        forced_take: None, or a number in [0, 1] that replaces z, for ablations and interventions. At 0 the receiver
            is returned untouched and no gradient reaches the donor.
        forced_pass: None, or a number in [0, 1] that replaces r.
        penalty: what the last forward pass adds to the loss, or None.
        compiled: run compiled, see :func:`compile_units`.
        noisy: random numbers are drawn in training.
    """

    noisy = False

    def __init__(self, gates: Gates, *, fixed_pass: float | None = None, fixed_take: float | None = None):
        super().__init__()
        self.gates = gates
        self.forced_pass = fixed_pass
        self.forced_take = fixed_take
        self.penalty: Tensor | None = None
        self.compiled = False

    def __getstate__(self) -> dict:
        # The penalty hangs on the graph of a step, which can be neither copied nor pickled.
        return self.__dict__ | {"penalty": None}

    def forward(self, receiver: Tensor, donor: Tensor) -> Tensor:
        """The receiver's new features, (B, C, H, W)."""
        self.penalty = None
        if self.forced_take == 0:
            return receiver
        if self.compiled and not is_hooked(self.gates) and not (self.noisy and self.training):
            return self.compiled_forward(receiver, donor)
        return _step(self, receiver, donor)

    def compiled_forward(self, receiver: Tensor, donor: Tensor) -> Tensor:
        """As ``forward``, compiled where that pays: in full precision it costs a CPU as much as it saves, or more."""
        pays = receiver.device.type != "cpu" or in_half_precision(receiver)
        step = _compiled_step() if pays else _step
        return step(self, receiver, donor)

    @abstractmethod
    def exchange(self, receiver: Tensor, donor: Tensor, passed: Tensor, taken: Tensor) -> Tensor:
        """The receiver's new features, given its gates r and z."""


def mix(receiver: Tensor, candidate: Tensor, taken: Tensor) -> Tensor:
    """(1 - z) . x + z . c, in the candidate's precision."""
    return torch.lerp(receiver.to(candidate.dtype), candidate, taken.to(candidate.dtype))


class PairwiseSharing(SharingUnit):
    """A :class:`GatedPair` for every ordered pair of tasks; all read the features from before the exchange.

    With more than two tasks a receiver takes the mean over its donors' pairs.
    Parameters: receivers · (tasks - 1) times those of a pair.

    Args:
        channels, tasks: as in :class:`SharingUnit`.
        receivers: tasks that receive, None for all; the others keep their features as they are.
        options: of the pairs.

    Attributes:
        pair: the class of the pairs, whose arguments after ``channels`` are the unit's options.
    """

    pair: type[GatedPair]

    def __init__(self, channels: int, tasks: int = 2, *, receivers: list[int] | None = None, **options):
        super().__init__(channels, tasks)
        chosen = range(tasks) if receivers is None else receivers
        # By type too: 0.0 and false equal 0, and name no task.
        if not chosen or not all(type(receiver) is int and receiver in range(tasks) for receiver in chosen):
            wanted = f"name tasks from 0 to {tasks - 1}, or null for all"
            raise InputError(f"sharing_options: receivers is {receivers}, {wanted}")
        self.units = nn.ModuleDict(
            {
                self.key(receiver, donor): self.pair(channels, **options)  # type: ignore[arg-type]
                for receiver in sorted(set(chosen))
                for donor in range(tasks)
                if donor != receiver
            }
        )

    @classmethod
    def options(cls) -> dict[str, Parameter]:
        return arguments(cls) | arguments(cls.pair)

    @staticmethod
    def key(receiver: int, donor: int) -> str:
        """Name of the pair from task ``donor`` to task ``receiver`` in ``units``."""
        return f"{donor}_to_{receiver}"

    def between(self, one: int, other: int, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What the pairs between two tasks make of their features x and y, by the pairs' names in ``units``."""
        given = {self.key(one, other): (x, y), self.key(other, one): (y, x)}
        return {key: self.units[key](*features) for key, features in given.items() if key in self.units}

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        for one, other in combinations(range(self.tasks), 2):
            found |= self.between(one, other, features[one], features[other])
        exchanged = []
        for receiver, own in enumerate(features):
            keys = [self.key(receiver, donor) for donor in range(self.tasks)]
            updates = [found[key] for key in keys if key in found]
            if all(update is own for update in updates):  # a mean of many could round
                exchanged.append(own)
            else:
                exchanged.append(updates[0] if len(updates) == 1 else reduce(torch.add, updates) / len(updates))
        return exchanged

    def penalty(self) -> Tensor | None:
        """The sum over the pairs."""
        penalties = [pair.penalty for pair in self.units.values() if pair.penalty is not None]
        return sum(penalties) if penalties else None  # type: ignore[arg-type, return-value]


@contextmanager
def recorded_gates(model: nn.Module) -> Iterator[dict[str, GateMaps]]:
    """Within it, the gate maps of the last forward pass of ``model``, detached, by the name of their module.

    A unit that is called several times in a pass (one for all stages) leaves the maps of its last call.
    """
    maps: dict[str, GateMaps] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, out, name=name: maps.__setitem__(name, tuple(gate.detach() for gate in out))
        )
        for name, module in model.named_modules()
        if isinstance(module, Gates)
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
