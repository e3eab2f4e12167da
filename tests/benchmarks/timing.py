"""Two or more ways of doing the same, in turn."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Row:
    """A line of the table: ``ratio`` says how many times better than the plain way ours is."""

    case: str
    ours: str
    plain: str
    ratio: float | None
    wanted: float | None = None

    def cells(self) -> str:
        """The line's cells but the first."""
        wanted = "" if self.wanted is None else f"≥ {self.wanted:g}"
        if self.wanted is not None and self.ratio is not None and self.ratio < self.wanted:
            wanted += " (short)"
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        return f"{self.case} | {self.ours} | {self.plain} | {ratio} | {wanted}"


def in_turn(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each call in each round, those of the warm-up left out; every other round runs backwards.

    A call that returns a number has measured itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(warmup + rounds):
        for name in calls if i % 2 else reversed(calls):
            started = clock()
            measured = calls[name]()
            if i >= warmup:
                seconds[name].append(measured if isinstance(measured, float) else clock() - started)
    return seconds


class Laps:
    """A stream of batches that sees how long the steps between its calls take.

    Args:
        batches: handed out in turn.
    """

    def __init__(self, batches: Sequence[Any]):
        self.batches, self.times = batches, []

    def __call__(self, step: int) -> Any:
        self.times.append(time.process_time())
        return self.batches[step % len(self.batches)]

    def median(self) -> float:
        """Seconds of a step since the last call of this, without the first, which warms up, and the last one."""
        laps = [b - a for a, b in itertools.pairwise(self.times)][1:]
        self.times = []
        return statistics.median(laps)


def compare(
    case: str, ours: Sequence[float], plain: Sequence[float], *, wanted: float | None = None, per: int = 1
) -> Row:
    """Seconds of the same rounds as a row of milliseconds of ``per`` parts; the ratio is the median over the rounds."""
    ratio = statistics.median(b / a for a, b in zip(ours, plain, strict=True))
    said = [f"{1e3 * statistics.median(seconds) / per:.4g} ms" for seconds in (ours, plain)]
    return Row(case, *said, ratio, wanted)


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of a process of its own on one thread, with what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "WORLD_SIZE"))}
    return clean | {"OMP_NUM_THREADS": "1"} | dict(environment or {})


def run_module(*arguments: object, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a module of the benchmarks prints as JSON in its last line, run by a process of its own on one thread."""
    command = [sys.executable, "-m", *map(str, arguments)]
    options = {"env": clean_environment(environment), "timeout": 3600}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
