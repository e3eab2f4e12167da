"""Means over seeds of what was recorded over training and of gates, with intervals that resample the seeds."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from synthmtl.interference.transfer import LEAST_SEEDS
from synthmtl.metrics.bootstrap import interval

SAMPLES = 1000
CONFIDENCE = 0.95


def series(records: list[dict[str, Any]], names: tuple[str, ...], value: str) -> list[dict[str, Any]]:
    """Records as series: for each combination of ``names`` those, its ``steps`` and the ``values`` at them."""
    found: dict[tuple, dict[str, Any]] = {}
    for record in records:
        key = tuple(record[name] for name in names)
        one = found.setdefault(key, dict(zip(names, key, strict=True)) | {"steps": [], "values": []})
        one["steps"].append(record["step"])
        one["values"].append(record[value])
    return list(found.values())


def conflict_over_time(records: list[list[dict[str, Any]]]) -> list[dict]:
    """Means over seeds: for each group of parameters and two tasks the cosine at each looked-at step."""
    cosines: dict[tuple, dict[int, list[float]]] = {}
    for record in (record for each in records for record in each):
        if record["cosine"] is not None:
            key = (record["group"], tuple(record["tasks"]))
            cosines.setdefault(key, {}).setdefault(record["step"], []).append(record["cosine"])
    return [
        {
            "group": group,
            "tasks": list(tasks),
            "steps": sorted(steps),
            "cosine": [fmean(steps[step]) for step in sorted(steps)],
        }
        for (group, tasks), steps in cosines.items()
    ]


def over_time(each: list[list[dict[str, Any]]], names: tuple[str, ...]) -> list[dict]:
    """Means over seeds of the series of :func:`series`, with intervals that resample the seeds.

    Args:
        each: the series of each seed.
        names: the keys that tell series apart.

    Returns:
        For each series its names, ``steps``, ``mean`` and ``ci95`` ([low, high] of each step). The mean is None where
        no seed has a number; the interval where one has none, or there are fewer than three seeds.
    """
    found: dict[tuple, dict[int, list[float | None]]] = {}
    for one in (one for of_seed in each for one in of_seed):
        by_step = found.setdefault(tuple(one[name] for name in names), {})
        for step, value in zip(one["steps"], one["values"], strict=True):
            by_step.setdefault(step, []).append(value)
    result = []
    for key, by_step in found.items():
        steps = sorted(by_step)
        values = [by_step[step] for step in steps]
        present = [[value for value in of_step if value is not None] for of_step in values]
        result.append(
            dict(zip(names, key, strict=True))
            | {
                "steps": steps,
                "mean": [fmean(of_step) if of_step else None for of_step in present],
                "ci95": [seed_interval(of_step, len(each)) for of_step in present],
            }
        )
    return result


def seed_interval(values: Sequence[float], seeds: int) -> list[float] | None:
    """The interval of a mean over seeds; None if not every one of ``seeds`` has a value, or they are fewer than three.

    The same seeds are drawn for every quantity.
    """
    if len(values) < max(seeds, LEAST_SEEDS):
        return None
    return interval(np.array(values)[drawn_seeds(len(values))].mean(1), CONFIDENCE)


def drawn_seeds(count: int) -> np.ndarray:
    """Positions (samples, count) of the seeds of each replicate."""
    return np.random.default_rng(1).integers(count, size=(SAMPLES, count))


def mean_gates(gates: list[list[dict[str, Any]]]) -> list[dict]:
    """Means over seeds of each gate's openness, its spread over faces, and its openness by expression and channel.

    Channels of different seeds have nothing to do with each other: each seed's are put in order of their openness.
    """
    found: dict[tuple, list[dict]] = {}
    for gate in (gate for each in gates for gate in each):
        found.setdefault((gate["stage"], gate["direction"], gate["gate"]), []).append(gate)
    return [
        dict(zip(("stage", "direction", "gate"), key, strict=True))
        | {name: fmean(one[name] for one in same) for name in ("mean", "spread")}
        | {"ci95": seed_interval([one["mean"] for one in same], len(gates))}
        | {"expressions": {e: fmean(one["expressions"][e] for one in same) for e in same[0]["expressions"]}}
        | {"channels": np.mean([sorted(one["channels"]) for one in same], axis=0).tolist()}
        for key, same in found.items()
    ]
