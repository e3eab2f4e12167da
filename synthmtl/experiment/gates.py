"""How far the gates of a run's networks are open, for the report."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from synthmtl.data import FaceTable
from synthmtl.experiment.stages import Job
from synthmtl.interference.gates import Openness, openness_over
from synthmtl.interference.units import gated_units
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.inference import load_network

_FACES = 512
_SHOWN = ("gated", "gated_balanced")


def gates_of_run(job: Job, bases: Mapping[tuple[str, int], Path], cells: Iterable[str]) -> list[dict[str, Any]]:
    """The ``gates`` of ``report.json``: of the jointly trained networks and of what was fine-tuned from them.

    Args:
        job: the finished job.
        bases: (network, seed) → folder of the jointly trained one.
        cells: names of the methods that were trained.

    Returns:
        [{``method``, ``seeds``, ``gates``}], means over seeds, of validation faces; empty without gated units.
    """
    folders = {"joint training": [folder for (name, _), folder in bases.items() if name == "gated"]}
    trained = [name for name in _SHOWN if name in cells]
    folders |= {name: [job.out / f"cells/{name}/seed{seed}" for seed in job.config.seeds] for name in trained}
    table = job.splits.validation
    table = table.select(torch.linspace(0, len(table) - 1, min(_FACES, len(table))).long())
    found = []
    for method, each in folders.items():
        networks = [load_network(folder).to(job.accelerator.device) for folder in each]
        if networks and gated_units(networks[0]):
            gates = mean_openness([openness(network, table) for network in networks])
            found.append({"method": method, "seeds": len(networks), "gates": gates})
    return found


def openness(network: FaceGenerator, table: FaceTable) -> list[Openness]:
    """Of every gate of ``network``, over the faces of ``table``."""
    device = next(network.parameters()).device
    batches = (table.batch(rows).to(device) for rows in torch.arange(len(table)).split(128))
    return openness_over(network, batches, network.classes)


def mean_openness(seeds: list[list[Openness]]) -> list[dict[str, Any]]:
    """Of each gate: openness and its range over seeds, its spread over faces, and openness by expression."""
    means = []
    for gate in zip(*seeds, strict=True):
        first = gate[0]
        by_name = {name: [one.expressions[name] for one in gate] for name in first.expressions}
        means.append(
            {
                "stage": first.stage,
                "direction": first.direction,
                "gate": first.gate,
                "mean": _mean([one.mean for one in gate]),
                "spread": _mean([one.spread for one in gate]),
                "range": [min(one.mean for one in gate), max(one.mean for one in gate)],
                "expressions": {name: None if None in values else _mean(values) for name, values in by_name.items()},
            }
        )
    return means


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
