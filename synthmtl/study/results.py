"""From finished cells to ``results.json`` and ``results.csv``: means, gains over single tasks, paired comparisons."""

import csv
import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from synthmtl.experiment.reporting import environment
from synthmtl.faces.nuisance import measured_correlation
from synthmtl.files import replacing
from synthmtl.interference import relative_gain
from synthmtl.interference.transfer import LEAST_SEEDS
from synthmtl.metrics.bootstrap import drawn_unit, interval
from synthmtl.metrics.multitask import scorable_faces
from synthmtl.report.gate_figures import GateMaps
from synthmtl.study.cells import cell_arrays, cell_error, unit_of
from synthmtl.study.config import SINGLE, Cell, Condition, grid_cells, grid_conditions
from synthmtl.study.job import StudyJob
from synthmtl.study.measures import map_rows, synthesis_errors
from synthmtl.study.replicates import replicates_of_editing, replicates_of_heads
from synthmtl.study.series import CONFIDENCE, conflict_over_time, drawn_seeds, mean_gates, over_time
from synthmtl.study.tasks import StudyTask, is_editing, study_tasks

COMPARED = (
    "macro_f1", "balanced_accuracy", "synthesis_error", "mean_f1", "nme", "ccc", "expression_read", "nuisance_read"
)  # fmt: skip
"""Metrics by which every method is compared with every other, as far as it has them."""

_LONG = ("conflict", "interventions")  # what of a cell's result stands in its own folder only

Finished = dict[Condition, dict[str, dict[int, tuple[Cell, dict]]]]
"""Condition → method → seed → cell and its result."""


def build_results(job: StudyJob) -> dict:
    """The content of ``results.json``; the schema is that of ``report.study_schema``."""
    grid, test = job.config.grid, job.splits.test
    conditions = grid_conditions(grid)
    finished: Finished = {condition: {} for condition in conditions}
    cells, failed = [], []
    for cell in grid_cells(grid):
        result = unit_of(job, cell).result
        if result is None:
            failed.append(cell.as_dict() | {"error": cell_error(job, cell) or "was not run"})
            continue
        finished[cell.condition].setdefault(cell.method, {})[cell.seed] = (cell, result)
        cells.append({key: result[key] for key in result if key not in _LONG})
    bootstrap = Bootstrap(job, finished)
    summary, comparisons = [], []
    for condition, methods in finished.items():
        summary += [summarize(bootstrap, condition, name, methods) for name in methods]
        for a, b in combinations(methods, 2):
            comparisons += compare(bootstrap, condition, a, b)
    editing = is_editing(job.config.tasks)
    scored = [task for task in job.config.tasks if task != "synthesis"]
    unedited = synthesis_errors(None, job.held_out, torch.device("cpu")) if editing else None
    return {
        "title": "synthmtl: interference study",
        "preset": job.config.preset,
        "tasks": [task.as_dict() for task in study_tasks(job.config.tasks)],
        "notes": [*job.notes, *_precision_note(cells)],
        "conditions": [named(condition) for condition in conditions],
        "data": {
            "classes": list(job.train.classes),
            "train_counts": job.train.counts(),
            "validation_counts": job.splits.validation.counts(),
            "test_counts": test.counts(),
            "test_faces": int(torch.stack([scorable_faces(test, task) for task in scored]).any(0).sum()),
            "resampled": drawn_unit(test.subject),
            "held_out_faces": len(job.held_out.faces),
            "unedited_error": None if unedited is None else float(unedited.mean()),
            "correlation": {
                f"{rho:g}": measured_correlation(table) for rho, table in job.trains.items() if job.render is not None
            },
        },
        "cells": cells,
        "failed": failed,
        "summary": summary,
        "comparisons": comparisons,
        "environment": environment(job),
    }


def _precision_note(cells: Sequence[dict[str, Any]]) -> list[str]:
    """What to say where cells were trained on machines that compute in different precisions, as ``auto`` allows."""
    counts = Counter(cell["precision"] for cell in cells if "precision" in cell)
    if len(counts) < 2:
        return []
    said = " and ".join(f"{count} in {name if name != 'no' else 'float32'}" for name, count in counts.items())
    return [f"Cells were trained in different precisions ({said}), which differences between them are owed to as well."]


def named(condition: Condition) -> dict[str, Any]:
    """A condition as results state it."""
    return {"condition": condition.name, **dataclasses.asdict(condition)}


class Bootstrap:
    """Paired replicates of every metric: the same seeds, test faces and held-out people are drawn for all methods.

    Scores on the test split resample seeds and test people with all of their faces (faces, where people are unknown or
    few), synthesis errors seeds and people, everything else seeds alone (at least three). Over few seeds such intervals
    are too narrow, as ``metrics.comparison`` and ``interference.transfer`` say.
    """

    def __init__(self, job: StudyJob, finished: Finished):
        self.job, self.finished, self.tasks = job, finished, study_tasks(job.config.tasks)
        self._replicates = replicates_of_heads if not is_editing(job.config.tasks) else replicates_of_editing
        self._kept: dict[tuple, dict[str, dict[str, np.ndarray]]] = {}

    def replicates(self, condition: Condition, method: str, seeds: Sequence[int], metric: str) -> np.ndarray | None:
        """(samples,) of a method's mean over ``seeds``; None if a seed has no such number, or they are too few."""
        key = (condition, tuple(seeds))
        if key not in self._kept:
            self._kept[key] = self._of_arrays(condition, tuple(seeds))
        arrays = self._kept[key][method]
        if metric in arrays:
            return arrays[metric]
        values = [self.finished[condition][method][seed][1]["metrics"].get(metric) for seed in seeds]
        if None in values or len(seeds) < LEAST_SEEDS:
            return None
        return np.array(values)[drawn_seeds(len(seeds))].mean(1)

    def _of_arrays(self, condition: Condition, seeds: tuple[int, ...]) -> dict[str, dict[str, np.ndarray]]:
        """Method → metric → replicates, of all methods that have all these seeds."""
        methods = {name: by for name, by in self.finished[condition].items() if set(seeds) <= set(by)}
        arrays = [[cell_arrays(self.job, by[seed][0]) for seed in seeds] for by in methods.values()]
        found = self._replicates(self.job, arrays)
        return {name: {metric: values[i] for metric, values in found.items()} for i, name in enumerate(methods)}


def summarize(
    bootstrap: Bootstrap, condition: Condition, name: str, methods: dict[str, dict[int, tuple[Cell, dict]]]
) -> dict:
    """A method under one condition: the mean of each metric with its interval, gains, conflict, affinity and gates."""
    by_seed = methods[name]
    seeds = sorted(by_seed)
    results = [by_seed[seed][1] for seed in seeds]
    metrics = {}
    for metric in dict.fromkeys(key for result in results for key in result["metrics"]):
        per_seed = [result["metrics"].get(metric) for result in results]
        present = [value for value in per_seed if value is not None]
        replicates = bootstrap.replicates(condition, name, seeds, metric)
        metrics[metric] = {
            "mean": fmean(present),
            "per_seed": per_seed,
            "ci95": None if replicates is None else interval(replicates, CONFIDENCE),
        }
    cell = by_seed[seeds[0]][0]
    return {
        "method": name,
        "sharing": cell.sharing,
        "aggregator": cell.aggregator,
        **named(condition),
        "seeds": seeds,
        "parameters": results[0]["parameters"],
        "seconds": fmean(result["seconds"] for result in results),
        "metrics": metrics,
        "gain": None if name == SINGLE else gains(by_seed, methods.get(SINGLE, {}), bootstrap.tasks),
        "conflict": conflict_over_time([result["conflict"] for result in results]),
        "affinity": over_time([result["affinity"] for result in results], ("from", "to")),
        "gates": mean_gates([result["gates"] for result in results]),
        "gates_over_time": over_time([result["gates_over_time"] for result in results], ("stage", "direction", "gate")),
    }


def gains(
    together: dict[int, tuple[Cell, dict]], single: dict[int, tuple[Cell, dict]], tasks: Sequence[StudyTask]
) -> dict | None:
    """Relative gain Δ of both tasks over the single-task runs of the same seeds; None without such.

    Seeds at which a score is undefined are left out.
    """

    def scored(of: dict[int, tuple[Cell, dict]]) -> set[int]:
        return {seed for seed, (_, found) in of.items() if all(task.metric in found["metrics"] for task in tasks)}

    seeds = sorted(scored(together) & scored(single))
    if not seeds:
        return None

    def values(of: dict[int, tuple[Cell, dict]]) -> dict[str, dict[int, float]]:
        return {task.name: {seed: of[seed][1]["metrics"][task.metric] for seed in seeds} for task in tasks}

    worse = [task.name for task in tasks if task.lower_is_better]
    return relative_gain(values(together), values(single), lower_is_better=worse).as_dict()


def compare(bootstrap: Bootstrap, condition: Condition, a: str, b: str) -> list[dict]:
    """Differences a - b over the seeds that both have."""
    first, second = (bootstrap.finished[condition][name] for name in (a, b))
    seeds = sorted(set(first) & set(second))
    found = []
    for metric in COMPARED if seeds else ():
        pairs = [[of[seed][1]["metrics"].get(metric) for of in (first, second)] for seed in seeds]
        if any(None in pair for pair in pairs):
            continue
        replicates = [bootstrap.replicates(condition, name, seeds, metric) for name in (a, b)]
        differences = [x - y for x, y in pairs]
        found.append(
            {
                **named(condition),
                "a": a,
                "b": b,
                "metric": metric,
                "difference": fmean(differences),
                "ci95": None if replicates[0] is None else interval(replicates[0] - replicates[1], CONFIDENCE),
                "per_seed": differences,
                "paired_by": "seed",
            }
        )
    return found


def gate_maps_of(job: StudyJob) -> list[GateMaps]:
    """Maps of the gates over held-out faces, of the first finished seed of each method under each condition."""
    faces = job.held_out.faces.select(map_rows(job))
    titles = [faces.classes[k] for k in faces.expression.tolist()]
    found: dict[tuple[str, str], GateMaps] = {}
    for cell in grid_cells(job.config.grid):
        key = (cell.condition.name, cell.method)
        if key in found or unit_of(job, cell).result is None:
            continue
        arrays = cell_arrays(job, cell)
        maps = {n.removeprefix("maps/"): v.float().numpy() for n, v in arrays.items() if n.startswith("maps/")}
        if maps:
            found[key] = GateMaps(*key, cell.seed, faces.images.numpy(), titles, maps)
    return list(found.values())


def write_csv(results: dict, path: Path) -> None:
    """A row per cell and metric: cell, sharing, aggregator, schedule, labels_per_class, rho, seed, metric, value."""
    columns = ("name", "sharing", "aggregator", "schedule", "labels_per_class", "rho", "seed")
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["cell", *columns[1:], "metric", "value"])
        for cell in results["cells"]:
            numbers = {name: cell[name] for name in ("parameters", "training_seconds", "seconds")} | cell["metrics"]
            numbers |= gate_rows(cell) | affinity_rows(cell)
            writer.writerows([*(cell[c] for c in columns), name, value] for name, value in numbers.items())
        for cell in results["failed"]:
            writer.writerow([*(cell[c] for c in columns), "error", cell["error"]])


def gate_rows(cell: dict) -> dict[str, float]:
    """``gate/STAGE/DIRECTION/GATE`` and ``/EXPRESSION``, ``/channelN``, or ``@STEP`` of training, of a cell."""
    rows: dict[str, float] = {}
    for gate in cell["gates"]:
        name = f"gate/{gate['stage']}/{gate['direction']}/{gate['gate']}"
        rows |= {f"{name}/{expression}": value for expression, value in gate["expressions"].items()}
        rows |= {f"{name}/channel{i}": value for i, value in enumerate(gate["channels"])}
    for gate in cell["gates_over_time"]:
        name = f"gate/{gate['stage']}/{gate['direction']}/{gate['gate']}"
        rows |= {f"{name}@{step}": value for step, value in zip(gate["steps"], gate["values"], strict=True)}
    return rows


def affinity_rows(cell: dict) -> dict[str, float | None]:
    """``affinity/TASK_to_TASK@STEP`` of a cell."""
    return {
        f"affinity/{one['from']}_to_{one['to']}@{step}": value
        for one in cell["affinity"]
        for step, value in zip(one["steps"], one["values"], strict=True)
    }
