"""Speed of the fused leaky unit against a plain transcription of its equations: ratios, medians of one run.

    OMP_NUM_THREADS=1 python tests/benchmarks/sharing.py [--repeats 30] [--units]

Forward and backward of one ConvFLU, batch 64, at the shapes of the 48 px network. The variants take turns within each
repetition, and the process's CPU time is read instead of the clock, so that other programs disturb the ratios little;
that makes sense with one thread only. ``--units`` compares every sharing unit with ``leaky`` instead.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn

from synthmtl.sharing import SHARING_UNITS, ConvFLU, build_sharing, compile_units

SHAPES = ((64, 32, 24), (64, 64, 12), (64, 128, 6))
BFLOAT16 = {"float32": False, "bf16 channels_last": True}


class PlainFLU(nn.Module):
    """The four equations as they stand: four convolutions, no shared concatenation."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__()
        options = {"kernel_size": kernel_size, "padding": kernel_size // 2}
        self.w_r = nn.Conv2d(2 * channels, channels, **options)
        self.w_z = nn.Conv2d(2 * channels, channels, **options)
        self.w = nn.Conv2d(channels, channels, bias=False, **options)
        self.u = nn.Conv2d(channels, channels, bias=False, **options)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r = torch.sigmoid(self.w_r(torch.cat([x, y], 1)))
        candidate = torch.tanh(self.w(r * y) + self.u(x))
        z = torch.sigmoid(self.w_z(torch.cat([x, y], 1)))
        return (1 - z) * x + z * candidate


def faces(shape: tuple[int, int, int], bfloat16: bool) -> list[Tensor]:
    """A receiver and a donor."""
    batch, channels, side = shape
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(batch, channels, side, side, generator=generator) for _ in range(2)]
    return [x.bfloat16().to(memory_format=torch.channels_last) for x in pair] if bfloat16 else pair


def seconds(step: Callable[[list[Tensor]], list[Tensor]], given: list[Tensor], bfloat16: bool) -> float:
    """CPU seconds of one forward and backward pass."""
    given = [x.detach().requires_grad_() for x in given]
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        out = step(given)
    torch.autograd.backward(out, [torch.ones_like(x) for x in out])
    return time.process_time() - start


def medians(steps: dict[str, Callable], given: list[Tensor], bfloat16: bool, repeats: int) -> dict[str, float]:
    """Median CPU seconds of each step; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(repeats + 3):
        for name, step in steps.items():
            took = seconds(step, given, bfloat16)
            if i >= 3:
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}


def compare_leaky(repeats: int) -> None:
    """Print how many times faster than the plain unit the fused ones are."""
    print("| setting | kernel | shape | plain, ms | fused, eager | plain, compiled | fused, compiled |")
    print("|---|---|---|---|---|---|---|")
    for (setting, bfloat16), kernel_size, shape in product(BFLOAT16.items(), (1, 3), SHAPES):
        torch.manual_seed(0)
        channels = shape[1]
        plain, fused, compiled = PlainFLU(channels, kernel_size), *(ConvFLU(channels, kernel_size, -2.0) for _ in "ab")
        compile_units(compiled)
        if bfloat16:
            for unit in (plain, fused, compiled):
                unit.to(memory_format=torch.channels_last)
        units = {"plain": plain, "eager": fused, "plain compiled": torch.compile(plain, dynamic=False)}
        units["compiled"] = compiled
        steps = {name: lambda given, unit=unit: [unit(*given)] for name, unit in units.items()}
        took = medians(steps, faces(shape, bfloat16), bfloat16, repeats)
        ratios = [f"{took['plain'] / took[name]:.2f}" for name in ("eager", "plain compiled", "compiled")]
        size = f"{shape[0]}×{channels}×{shape[2]}²"
        print(f"| {setting} | {kernel_size} | {size} | {1e3 * took['plain']:.1f} | {' | '.join(ratios)} |", flush=True)


def compare_units(repeats: int) -> None:
    """Print parameters at 32, 64 and 128 channels together, and the cost relative to ``leaky``."""
    costs: dict[str, list[float]] = {name: [] for name in SHARING_UNITS}
    for shape in SHAPES:
        torch.manual_seed(0)
        steps = {name: build_sharing(name, shape[1]).to(memory_format=torch.channels_last) for name in SHARING_UNITS}
        steps = {name: unit for name, unit in steps.items() if any(True for _ in unit.parameters())}
        took = medians(steps, faces(shape, True), True, repeats)
        for name in steps:
            costs[name].append(took[name] / took["leaky"])
    print("| unit | parameters | cost relative to leaky at 24², 12², 6² (bf16, channels_last) |")
    print("|---|---|---|")
    for name, cost in costs.items():
        count = sum(p.numel() for shape in SHAPES for p in build_sharing(name, shape[1]).parameters())
        print(f"| {name} | {count:,} | {', '.join(f'{each:.2f}' for each in cost) or '0'} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--units", action="store_true")
    options = parser.parse_args()
    (compare_units if options.units else compare_leaky)(options.repeats)
