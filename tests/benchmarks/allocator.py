"""Freed memory that stays with the process against glibc's own ways: images a second of a recognizer's training."""

import statistics

from .processes import BATCH
from .timing import Row, run_module

DEFAULTS = {"GLIBC_TUNABLES": ""}  # decided by whoever sets it, so that we leave the allocator alone


def rows(tiny: bool) -> list[Row]:
    """Ratio of the rates; one where the allocator is another."""
    steps, rounds = (2, 1) if tiny else (60, 5)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        for side, environment in (("ours", {}), ("plain", DEFAULTS)):
            rate = run_module(f"{__package__}.processes", "recognition", steps, BATCH, environment=environment)
            rates[side].append(rate["images"])
    ours, plain = (statistics.median(rates[side]) for side in rates)
    return [Row(f"recognition, batch {BATCH}", f"{ours:.0f} images/s", f"{plain:.0f} images/s", ours / plain, 1.0)]
