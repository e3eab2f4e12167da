"""Every sharing unit against the leaky one, forward and backward, in the precision that suits the machine."""

import statistics

import torch

from synthmtl.sharing import SHARING_UNITS, build_sharing
from synthmtl.training import resolve_precision

from .sharing import SHAPES, features, pass_through
from .timing import Row, in_turn


def rows(tiny: bool) -> list[Row]:
    """Milliseconds of a pass at all shapes of the 48 px network together; the ratio is to the leaky unit."""
    shapes = ((2, 8, 4),) if tiny else SHAPES
    low = resolve_precision("auto") == "bf16"
    seconds: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for shape in shapes:
        torch.manual_seed(0)
        units = {name: build_sharing(name, shape[1]).to(memory_format=torch.channels_last) for name in SHARING_UNITS}
        units = {name: unit for name, unit in units.items() if any(True for _ in unit.parameters())}
        given = features(shape, low)
        calls = {name: lambda unit=unit, given=given: pass_through(unit, given, low) for name, unit in units.items()}
        for name, values in in_turn(calls, rounds=1 if tiny else 15, warmup=1 if tiny else 3).items():
            seconds.setdefault(name, []).append(statistics.median(values))
            counts[name] = counts.get(name, 0) + sum(p.numel() for p in units[name].parameters())
    leaky = sum(seconds["leaky"])
    found = []
    for name, each in seconds.items():
        said = [f"{1e3 * took:.3g} ms" for took in (sum(each), leaky)]
        found.append(Row(f"{name}, {counts[name]:,} parameters", *said, leaky / sum(each)))
    return found
