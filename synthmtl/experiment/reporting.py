"""From finished cells to ``report.json``, the figures and the page."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthmtl.balance.sheet import new_cells
from synthmtl.balance.synthesize import edit_faces
from synthmtl.experiment.cells import cell_predictions
from synthmtl.experiment.mapped import SHEET
from synthmtl.experiment.methods import METHODS
from synthmtl.experiment.quality import closest_pairs
from synthmtl.experiment.stages import AnyJob, Job
from synthmtl.experiment.workspace import write_json
from synthmtl.metrics import (
    bootstrap_intervals,
    compare_paired,
    minority_classes,
    recognition_metrics,
    share_of_gap,
)
from synthmtl.metrics.bootstrap import drawn_unit
from synthmtl.models.generators import FaceGenerator
from synthmtl.report import contact_sheet, draw_gate_figures, draw_report_figures, validate_report, write_page
from synthmtl.training.trackers import track_images

_METRICS = ("accuracy", "macro_f1", "balanced_accuracy")
_PACKAGES = ("synthmtl", "torch", "torchvision", "diffusers", "accelerate", "anny", "torchmetrics")


def environment(job: AnyJob) -> dict:
    """Where and by what the numbers were made."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
        "device": str(job.accelerator.device),
        "processes": job.accelerator.num_processes,
        "commit": _commit(),
        "command": shlex.join([_called(), *sys.argv[1:]]),
    }


def build_report(
    job: Job,
    cells: dict[str, list[dict]],
    *,
    balance: dict,
    generation: dict,
    tasks: dict[str, dict],
    gates: list[dict],
    title: str,
) -> dict:
    """The report of finished cells, ``{method: [result of each seed]}``; nothing is chosen by it any more."""
    test, classes = job.splits.test, list(job.train.classes)
    scored_people = test.subject[test.expression >= 0]
    minority = list(minority_classes(job.train.counts(), test.counts()))
    outputs = {
        name: torch.stack([cell_predictions(job, name, result["seed"]) for result in results])
        for name, results in cells.items()
    }
    methods = {}
    for name, results in cells.items():
        each = [recognition_metrics(probabilities, test.expression, classes) for probabilities in outputs[name]]
        methods[name] = _mean_scores(each, minority) | {
            "about": METHODS[name].about,
            "ci95": bootstrap_intervals(
                outputs[name], test.expression, classes, subject=test.subject, minority=minority
            ),
            "seeds": [result["seed"] for result in results],
            "seconds": sum(result["seconds"] for result in results) / len(results),
            "parameters": results[0]["parameters"],
            "validation": {m: sum(r["validation"][m] for r in results) / len(results) for m in _METRICS},
        }
    comparisons, shares = [], []
    compared = (*_METRICS, "minority_recall") if minority else _METRICS
    for focus in [name for name in ("gated_balanced", "gated") if name in cells]:
        for other in cells:
            if other == focus or (focus == "gated" and METHODS[other].fill):
                continue
            for metric in compared:
                difference = compare_paired(
                    outputs[focus],
                    outputs[other],
                    test.expression,
                    classes,
                    subject=test.subject,
                    metric=metric,
                    minority=minority,
                )
                comparisons.append(difference.as_dict(focus, other))
    if {"plain", "oracle"} <= set(cells):
        for name in cells:
            if name in ("plain", "oracle"):
                continue
            for metric in ("macro_f1", "minority_recall") if minority else ("macro_f1",):
                share = share_of_gap(
                    outputs[name], outputs["plain"], outputs["oracle"], test.expression, classes,
                    subject=test.subject, metric=metric, minority=minority,
                )  # fmt: skip
                shares.append(share.as_dict(name))
    return {
        "title": title,
        "preset": job.config.preset,
        "notes": job.notes,
        "minority": minority,
        "data": {
            "classes": classes,
            "train_counts": job.train.counts(),
            "validation_counts": job.splits.validation.counts(),
            "test_counts": test.counts(),
            "test_people": len(scored_people[scored_people >= 0].unique()),
            "resampled": drawn_unit(scored_people),
        },
        "methods": methods,
        "comparisons": comparisons,
        "share_of_gap": shares,
        "balance": balance,
        "generation": generation,
        "tasks": tasks,
        "gates": gates,
        "environment": environment(job),
    }


def _mean_scores(each: list, minority: list[str]) -> dict:
    def mean(values: list[float | None]) -> float | None:
        present = [value for value in values if value is not None]
        return sum(present) / len(present) if present else None

    scores: dict[str, Any] = {name: mean([getattr(result, name) for result in each]) for name in _METRICS}
    for name in ("per_class_recall", "per_class_f1"):
        scores[name] = {key: mean([getattr(result, name)[key] for result in each]) for key in getattr(each[0], name)}
    scores["confusion"] = np.sum([result.confusion for result in each], axis=0).tolist()
    scores["per_seed"] = [{name: getattr(result, name) for name in _METRICS} for result in each]
    if minority:
        for seed, result in zip(scores["per_seed"], each, strict=True):
            seed["minority_recall"] = mean([result.per_class_recall[name] for name in minority])
        scores["minority_recall"] = mean([seed["minority_recall"] for seed in scores["per_seed"]])
    return scores


def expression_sheet(job: Job, generator: FaceGenerator, path: Path, *, people: int = 8) -> Path:
    """Contact sheet: validation faces (generator and judge never trained on them) as sources, edited to every class; or
    new faces, where balancing edits none."""
    table, spread, sampling = job.splits.validation, job.config.balance.spread, job.config.balance.sampling
    if job.config.balance.sources == "none":
        cells = new_cells(generator, people, spread=spread, sampling=sampling).numpy()
        return contact_sheet(cells, [f"new {i + 1}" for i in range(people)], list(table.classes), path)
    generator_of_rows = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(table), generator=generator_of_rows)[:people]
    sources = table.images[rows]
    columns = [sources]
    for index in range(len(table.classes)):
        target, seeds = torch.full((len(rows),), index), [index] * len(rows)
        columns.append(edit_faces(generator, sources, target, seeds, spread=spread, sampling=sampling)[0])
    titles = [table.classes[e] if e >= 0 else "" for e in table.expression[rows].tolist()]
    return contact_sheet(torch.stack(columns, 1).numpy(), titles, ["source", *table.classes], path, lead_columns=1)


def write_report(job: Job, report: dict, generator: FaceGenerator | None) -> None:
    """``report.json``, ``figures/`` and ``report.html`` in the run's folder."""
    validate_report(report)
    write_json(job.out / "report.json", report)
    figures = draw_report_figures(report, job.out / "figures") | draw_gate_figures(report, job.out / "figures")
    if "quality" in report["generation"]:
        figures["closest_pairs"] = closest_pairs(job)
    if generator is not None:
        figures["contact_sheet"] = expression_sheet(job, generator, job.out / "figures" / "contact_sheet.png")
    if report["generation"].get("mapped", {}).get("mapped"):
        figures["mapped"] = job.out / "mapped" / SHEET
    write_page(report, job.out / "report.html", figures)
    track_images(job.accelerator, figures)


def _called() -> str:
    """The script that was started, without the folders above it; ``synthmtl`` for the command and the module."""
    script = Path(sys.argv[0])
    return f"recipes/{script.name}" if script.parent.name == "recipes" else "synthmtl"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the working copy that the package runs from, ``+changes`` if it has any; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "."])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.strip() + ("+changes" if changes.strip() else "")
