"""What is measured of a trained cell of heads; by the names of ``study.measures`` where it is the same.

A cell's metrics hold the headline score of each task on the test split (``metrics.multitask.HEADLINES``: ``macro_f1``,
``mean_f1`` of action units, ``nme`` of landmarks, ``ccc``), of expressions also ``accuracy`` and ``balanced_accuracy``;
and ``validation_`` scores. Probes read what the first task gets of the second, and what its head sees.
"""

from typing import Any

import torch
from torch import Tensor

from synthmtl.data import FaceTable
from synthmtl.interference import collect_features, gated_units, intervention_effects
from synthmtl.interference.features import pooled
from synthmtl.metrics.multitask import HEADLINES, scorable_labels, task_metrics
from synthmtl.models import SJMT
from synthmtl.models.inference import predict_tasks
from synthmtl.study.config import SINGLE, Cell
from synthmtl.study.heads import TrainedHeads
from synthmtl.study.job import StudyJob
from synthmtl.study.measures import (
    SCORES,
    add_gates,
    add_interventions,
    affinity_metrics,
    batches,
    conflict_metrics,
    details_of,
    maps_over_faces,
    openness,
    probe_metrics,
    some_scorable,
)
from synthmtl.study.tasks import needed_by


def measure_heads(job: StudyJob, cell: Cell, trained: TrainedHeads) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Measure a trained cell.

    Returns:
        As :func:`~synthmtl.study.measures.measure`; of the arrays ``test/TASK`` are the predictions (N, ...).
    """
    options, device = job.config.measures, job.accelerator.device
    networks = {task: network.to(device).eval() for task, network in trained.networks.items()}
    outputs = predict_heads(job, networks, job.splits.test)
    arrays = {f"test/{task}": values.contiguous() for task, values in outputs.items()}
    metrics = head_scores(outputs, job.splits.test)
    validation = predict_heads(job, networks, job.splits.validation)
    if set(scorable_labels(job.splits.validation)) & set(validation):  # heads are not selected by it
        found = task_metrics(validation, job.splits.validation)
        scores = {HEADLINES[task]: found[task][HEADLINES[task]] for task in found}
        metrics |= {f"validation_{name}": value for name, value in scores.items() if value is not None}
    looks, details = trained.looks, details_of(trained.looks)
    metrics |= conflict_metrics(looks.get("conflict", [])) | affinity_metrics(looks.get("affinity", []))
    first, *_ = networks.values()
    if gated_units(first):
        arrays |= maps_over_faces(job, first)
        add_gates(metrics, details, openness(job, first))
    if options.probes:
        exchanged = {} if cell.sharing == SINGLE else collect_features(first, batches(job))
        read = torch.cat([_read(first, job.config.tasks[0], images) for images in batches(job)])
        metrics |= probe_metrics(job, cell, exchanged, read, needed_by(job.config.tasks[0]))
    if options.interventions and gated_units(first):
        add_interventions(metrics, details, interventions(job, first))
    return {"metrics": metrics, **details}, arrays


def predict_heads(job: StudyJob, networks: dict[str, SJMT], table: FaceTable) -> dict[str, Tensor]:
    """Predictions (N, ...) of each task by its network."""
    found: dict[str, Tensor] = {}
    for task, network in networks.items():
        if task not in found:
            found |= predict_tasks(network, table, device=job.accelerator.device, mirror=job.config.mirror)
    return {task: found[task] for task in networks}


def head_scores(outputs: dict[str, Tensor], table: FaceTable) -> dict[str, float]:
    """The headline score of each task; of expressions all of ``SCORES``. One that is undefined is left out."""
    wanted = {task: (HEADLINES[task], *(SCORES if task == "expression" else ())) for task in outputs}
    found = task_metrics(outputs, table)
    scores = {name: found[task][name] for task, names in wanted.items() if task in found for name in names}
    return {name: float(value) for name, value in scores.items() if value is not None}


def interventions(job: StudyJob, model: SJMT) -> dict[str, dict[str, float]]:
    """What each standard intervention changes in the headline scores of a part of the test faces."""
    test = some_scorable(job, model.tasks)

    def evaluate() -> dict[str, float]:
        outputs = predict_heads(job, dict.fromkeys(model.tasks, model), test)
        scores = head_scores(outputs, test)
        return {HEADLINES[task]: scores.get(HEADLINES[task], float("nan")) for task in model.tasks}

    effects = intervention_effects(model, evaluate)
    changes = {name: effect.change for name, effect in effects.items() if name != "untouched"}
    return {name: {k: v for k, v in change.items() if v == v} for name, change in changes.items()}


@torch.no_grad()
def _read(model: SJMT, task: str, images: Tensor) -> Tensor:
    """What a task's head reads (B, C)."""
    return pooled(model.read(images)[1][task], 1)
