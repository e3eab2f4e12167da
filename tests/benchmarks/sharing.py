"""The leaky unit of two branches against a plain transcription of its equations, forward and backward.

Both directions of the exchange, batch 64 at the shapes of the 48 px network, with freed memory kept as in a training.
"""

from collections import defaultdict
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from synthmtl.sharing import ConvFLU, LeakySharing, compile_units
from synthmtl.training import resolve_precision
from synthmtl.training.allocator import keep_freed_memory

from .timing import Row, compare, in_turn

SHAPES = ((64, 32, 24), (64, 64, 12), (64, 128, 6))
BF16 = "bf16 channels_last"
PRECISIONS = ["float32", "float32 channels_last", *([BF16] if resolve_precision("auto") == "bf16" else [])]
"""Those that the machine computes in: where bf16 is emulated, ours and plain wait for the same loops."""


class PlainFLU(nn.Module):
    """The four equations as they stand: four convolutions, no shared concatenation."""

    def __init__(self, channels: int, kernel_size: int = 1, *, bias: bool = True):
        super().__init__()
        options = {"kernel_size": kernel_size, "padding": kernel_size // 2}
        self.w_r = nn.Conv2d(2 * channels, channels, bias=bias, **options)
        self.w_z = nn.Conv2d(2 * channels, channels, bias=bias, **options)
        self.w = nn.Conv2d(channels, channels, bias=False, **options)
        self.u = nn.Conv2d(channels, channels, bias=False, **options)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r = torch.sigmoid(self.w_r(torch.cat([x, y], 1)))
        candidate = torch.tanh(self.w(r * y) + self.u(x))
        z = torch.sigmoid(self.w_z(torch.cat([x, y], 1)))
        return (1 - z) * x + z * candidate

    def take_weights(self, fused: ConvFLU) -> "PlainFLU":
        """The same function as ``fused``."""
        layers = (self.w_r, self.w_z)
        for layer, weight in zip(layers, fused.gates.of_both.weight.chunk(2), strict=True):
            layer.weight.data.copy_(weight)
        if self.w_r.bias is not None:
            for layer, bias in zip(layers, fused.gates.of_both.bias.chunk(2), strict=True):
                layer.bias.data.copy_(bias)
        for layer, weight in zip((self.w, self.u), fused.candidate.weight.chunk(2, 1), strict=True):
            layer.weight.data.copy_(weight)
        return self


class PlainSharing(nn.Module):
    """Both directions, each on its own.

    Args:
        fused: whose function it is to be.
    """

    def __init__(self, fused: LeakySharing, **options: Any):
        super().__init__()
        pairs = [fused.units[key] for key in ("1_to_0", "0_to_1")]
        self.pairs = nn.ModuleList(PlainFLU(fused.channels, **options).take_weights(pair) for pair in pairs)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x, y = features
        return [self.pairs[0](x, y), self.pairs[1](y, x)]


def features(shape: tuple[int, int, int], precision: str) -> list[Tensor]:
    """Of two branches."""
    batch, channels, side = shape
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(batch, channels, side, side, generator=generator) for _ in range(2)]
    layout = torch.contiguous_format if precision == "float32" else torch.channels_last
    return [x.to(torch.bfloat16 if precision == BF16 else x.dtype, memory_format=layout) for x in pair]


def pass_through(step: Callable[[list[Tensor]], list[Tensor]], given: list[Tensor], bfloat16: bool) -> None:
    """One forward and backward pass."""
    given = [x.detach().requires_grad_() for x in given]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        out = step(given)
    torch.autograd.backward(out, [torch.ones_like(x) for x in out])


def rows(tiny: bool) -> list[Row]:
    """Milliseconds of a pass; 1.4 times faster is wanted of the compiled unit in bf16 with kernel 1, never slower."""
    keep_freed_memory()
    found, together = [], defaultdict(list)
    settings = list(product(PRECISIONS, (1, 3), SHAPES if not tiny else ((2, 8, 4),)))
    for precision, kernel_size, shape in settings[:1] if tiny else settings:
        torch.manual_seed(0)
        channels = shape[1]
        fused = {
            name: LeakySharing(channels, kernel_size=kernel_size, gate_bias=-2.0) for name in ("eager", "compiled")
        }
        plain = PlainSharing(fused["eager"], kernel_size=kernel_size)
        compile_units(fused["compiled"])
        if tiny:  # compiling takes seconds, and a compiler
            del fused["compiled"]
        units = {"plain": plain} | fused
        if precision != "float32":
            for unit in units.values():
                unit.to(memory_format=torch.channels_last)
        given = features(shape, precision)
        calls = {
            name: lambda unit=unit, given=given, b=precision == BF16: pass_through(unit, given, b)
            for name, unit in units.items()
        }
        seconds = in_turn(calls, rounds=1 if tiny else 30, warmup=3)
        size = f"{shape[0]}×{channels}×{shape[2]}²"
        wanted = {"eager": 1.0, "compiled": 1.4 if precision == BF16 and kernel_size == 1 else 1.0}
        found += [
            compare(f"{precision}, kernel {kernel_size}, {size}, {name}", each, seconds["plain"], wanted=wanted[name])
            for name, each in seconds.items()
            if name in fused
        ]
        for name, each in seconds.items():
            together[precision, kernel_size, name].append(each)
    for (precision, kernel_size, name), of_shapes in together.items():
        if name in ("eager", "compiled"):
            both = [of_shapes, together[precision, kernel_size, "plain"]]
            # A network passes through all its stages: the sum over the shapes, round by round.
            ours, plain = ([sum(turn) for turn in zip(*each, strict=True)] for each in both)
            wanted = 1.4 if precision == BF16 and kernel_size == 1 and name == "compiled" else 1.0
            found.append(compare(f"{precision}, kernel {kernel_size}, all shapes, {name}", ours, plain, wanted=wanted))
    if BF16 not in PRECISIONS:
        found.append(Row("bf16: this processor does not compute in it", "", "", None))
    return found
