"""From finished cells to ``results.json`` and ``results.csv``: means, gains over single tasks, paired comparisons."""

import csv
import dataclasses
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
from synthmtl.metrics.bootstrap import interval
from synthmtl.metrics.recognition import labelled_predictions, resampled_scores
from synthmtl.report.gate_figures import GateMaps
from synthmtl.study.cells import cell_arrays, cell_error, unit_of
from synthmtl.study.config import SINGLE, Cell, Condition, grid_cells, grid_conditions
from synthmtl.study.job import StudyJob
from synthmtl.study.measures import map_rows, synthesis_errors
from synthmtl.study.series import CONFIDENCE, SAMPLES, conflict_over_time, drawn_seeds, mean_gates, over_time

SCORES = ("accuracy", "macro_f1", "balanced_accuracy")
COMPARED = ("macro_f1", "balanced_accuracy", "synthesis_error", "expression_read", "nuisance_read")
"""Metrics by which every method is compared with every other."""

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
    unedited = synthesis_errors(None, job.held_out, torch.device("cpu"))
    return {
        "title": "synthmtl: interference study",
        "preset": job.config.preset,
        "notes": job.notes,
        "conditions": [named(condition) for condition in conditions],
        "data": {
            "classes": list(job.train.classes),
            "train_counts": job.train.counts(),
            "validation_counts": job.splits.validation.counts(),
            "test_counts": test.counts(),
            "held_out_faces": len(job.held_out.faces),
            "unedited_error": float(unedited.mean()),
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


def named(condition: Condition) -> dict[str, Any]:
    """A condition as results state it."""
    return {"condition": condition.name, **dataclasses.asdict(condition)}


class Bootstrap:
    """Paired replicates of every metric: the same seeds, test faces and held-out people are drawn for all methods.

    Scores resample seeds and test faces, synthesis errors seeds and people, everything else seeds alone (at least
    three). Over few seeds such intervals are too narrow, as ``metrics.comparison`` and ``interference.transfer`` say.
    """

    def __init__(self, job: StudyJob, finished: Finished):
        self.job, self.finished = job, finished
        self._arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._kept: dict[tuple, dict[str, dict[str, np.ndarray]]] = {}

    def replicates(self, condition: Condition, method: str, seeds: Sequence[int], metric: str) -> np.ndarray | None:
        """(samples,) of a method's mean over ``seeds``; None if a seed has no such number, or they are too few."""
        key = (condition, tuple(seeds))
        if key not in self._kept:
            self._kept[key] = self._arrays_replicates(condition, tuple(seeds))
        arrays = self._kept[key][method]
        if metric in arrays:
            return arrays[metric]
        values = [self.finished[condition][method][seed][1]["metrics"].get(metric) for seed in seeds]
        if None in values or len(seeds) < LEAST_SEEDS:
            return None
        return np.array(values)[drawn_seeds(len(seeds))].mean(1)

    def _arrays_replicates(self, condition: Condition, seeds: tuple[int, ...]) -> dict[str, dict[str, np.ndarray]]:
        """Method → metric → replicates, of all methods that have all these seeds."""
        methods = {name: by for name, by in self.finished[condition].items() if set(seeds) <= set(by)}
        predictions, errors = [], []
        for by in methods.values():
            both = [self._of(by[seed][0]) for seed in seeds]
            predictions.append(np.stack([p for p, _ in both]))
            errors.append(np.stack([e for _, e in both]))
        test = self.job.splits.test
        labelled = test.expression[test.expression >= 0].numpy()
        scores = resampled_scores(
            np.stack(predictions), labelled, test.classes, metrics=SCORES, samples=SAMPLES, seed=0
        )
        means = self._errors(np.stack(errors))
        return {
            name: {metric: scores[metric][i] for metric in SCORES} | {"synthesis_error": means[i]}
            for i, name in enumerate(methods)
        }

    def _of(self, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
        if cell.name not in self._arrays:
            arrays, test = cell_arrays(self.job, cell), self.job.splits.test
            predictions, _, _ = labelled_predictions(arrays["test"], test.expression, test.classes)
            self._arrays[cell.name] = (predictions[0], arrays["synthesis_error"].double().numpy())
        return self._arrays[cell.name]

    def _errors(self, errors: np.ndarray) -> np.ndarray:
        """Replicates (M, samples) of the mean of ``errors`` (M, S, N): people and seeds are resampled."""
        people = self.job.held_out.faces.subject.unique(return_inverse=True)[1].numpy()
        one_hot = np.eye(people.max() + 1)[people]
        drawn = np.random.default_rng(2).multinomial(len(one_hot.T), [1 / len(one_hot.T)] * len(one_hot.T), SAMPLES)
        means = (errors @ one_hot @ drawn.T) / (one_hot.sum(0) @ drawn.T)
        return np.take_along_axis(means, drawn_seeds(errors.shape[1]).T[None], axis=1).mean(1)


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
        "gain": None if name == SINGLE else gains(by_seed, methods.get(SINGLE, {})),
        "conflict": conflict_over_time([result["conflict"] for result in results]),
        "affinity": over_time([result["affinity"] for result in results], ("from", "to")),
        "gates": mean_gates([result["gates"] for result in results]),
        "gates_over_time": over_time([result["gates_over_time"] for result in results], ("stage", "direction", "gate")),
    }


def gains(together: dict[int, tuple[Cell, dict]], single: dict[int, tuple[Cell, dict]]) -> dict | None:
    """Relative gain Δ of both tasks over the single-task runs of the same seeds; None without such."""
    seeds = sorted(set(together) & set(single))
    if not seeds:
        return None

    def values(of: dict[int, tuple[Cell, dict]]) -> dict[str, dict[int, float]]:
        found = {"recognition": "macro_f1", "synthesis": "synthesis_error"}
        return {task: {seed: of[seed][1]["metrics"][name] for seed in seeds} for task, name in found.items()}

    return relative_gain(values(together), values(single), lower_is_better=["synthesis"]).as_dict()


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
        maps = {name.removeprefix("maps/"): values.float().numpy() for name, values in arrays.items() if "/" in name}
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
