"""Freed memory that stays with the process against glibc's own ways: images a second of a recognizer's training."""

import statistics
from contextlib import ExitStack

from .processes import BATCH, running
from .timing import Row

ENVIRONMENTS = {"ours": {}, "plain": {"GLIBC_TUNABLES": ""}}  # decided by whoever sets it: we leave the allocator alone


def rows(tiny: bool) -> list[Row]:
    """Ratio of the rates; one where the allocator is another."""
    steps, rounds = (1, 1) if tiny else (30, 9)
    rates: dict[str, list[float]] = {side: [] for side in ENVIRONMENTS}
    with ExitStack() as stack:
        sides = {
            side: stack.enter_context(running("recognition", BATCH, 1, together=False, environment=environment))
            for side, environment in ENVIRONMENTS.items()
        }
        for i in range(rounds):
            for side in sides if i % 2 else reversed(sides):
                rates[side].append(sides[side].rate(steps))
    ratio = statistics.median(ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True))
    said = [f"{statistics.median(of_side):.0f} images/s" for of_side in rates.values()]
    return [Row(f"recognition, batch {BATCH}", *said, ratio, 1.0)]
