"""What is measured of a trained cell: scores, synthesis error, gates, probes and interventions.

All numbers of a cell are also a flat mapping of metric → number, with the rows of ``results.csv``:

- ``accuracy``, ``macro_f1``, ``balanced_accuracy`` on the test split, ``validation_macro_f1`` on the other,
- ``synthesis_error``, and ``synthesis_error_drawn`` with the class's mean style instead of the target's,
- ``conflict/GROUP/cosine``, ``.../rate``, ``.../magnitude`` over training; of more than two tasks means over all pairs,
  and ``conflict/GROUP/TASK+TASK/...`` of each,
- ``affinity/TASK_to_TASK``: mean look-ahead affinity over training,
- ``gate/STAGE/DIRECTION/pass`` and ``.../take``, mean openness,
- ``probe/STAGE/PLACE/TARGET`` and ``probe/joint/TARGET``: chance-corrected scores in [0, 1] of what the recognition
  branch receives and keeps; ``expression_read`` and ``nuisance_read`` (mean over the rest) at the joint features,
  which the classifier sees,
- ``filtering|retention|selectivity/STAGE/SIDE`` with the sides ``message`` and ``receiver``; ``selectivity_message``
  and ``selectivity_receiver`` are their means over the stages,
- ``intervention/NAME/MEASURE``: its change by the intervention.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from synthmtl.balance.sheet import sheet_rows
from synthmtl.data import FaceTable
from synthmtl.experiment.stages import predict, validation_scores
from synthmtl.interference import (
    collect_features,
    gate_maps,
    gated_units,
    intervention_effects,
    openness_over,
    probe_targets,
    unit_filtering,
)
from synthmtl.interference.features import pooled
from synthmtl.losses.reconstruction import change_weights, pixel_loss
from synthmtl.metrics import recognition_metrics
from synthmtl.metrics.multitask import scorable_faces
from synthmtl.models import SJMT, FERSNet
from synthmtl.models.encoder import RECOGNITION, SYNTHESIS
from synthmtl.study.config import SINGLE, Cell
from synthmtl.study.job import HeldOut, StudyJob
from synthmtl.study.looks import Looks
from synthmtl.study.series import series
from synthmtl.study.training import Trained

SCORES = ("accuracy", "macro_f1", "balanced_accuracy")
NEEDED = "expression"
_INWARD = f"{SYNTHESIS}_to_{RECOGNITION}"
_BATCH = 256


def measure(job: StudyJob, cell: Cell, trained: Trained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Measure a trained cell.

    Returns:
        ``metrics`` (see the module), ``conflict``, ``gates``, ``gates_over_time``, ``affinity`` and ``interventions``
        for the report; and arrays: ``test`` (N, K) probabilities, ``synthesis_error`` (M,) of each held-out face, and
        ``maps/STAGE/DIRECTION/GATE`` (F, H, W) over the faces of :func:`map_rows`.
    """
    options, device = job.config.measures, job.accelerator.device
    recognizer, editor = (network.to(device).eval() for network in (trained.recognizer, trained.editor))
    test = job.splits.test
    probabilities = predict(job, recognizer, test)
    scores = recognition_metrics(probabilities, test.expression, test.classes)
    errors = synthesis_errors(editor, job.held_out, device)
    metrics = {name: getattr(scores, name) for name in SCORES}
    metrics["validation_macro_f1"] = validation_scores(job, recognizer)["macro_f1"]
    metrics["synthesis_error"] = float(errors.mean())
    if job.config.synthesis.labels:
        metrics["synthesis_error_drawn"] = float(synthesis_errors(editor, job.held_out, device, drawn=True).mean())
    looks, arrays = trained.looks, {"test": probabilities, "synthesis_error": errors}
    metrics |= conflict_metrics(looks.get("conflict", [])) | affinity_metrics(looks.get("affinity", []))
    details = details_of(looks)
    if gated_units(recognizer):
        arrays |= maps_over_faces(job, recognizer)
        add_gates(metrics, details, openness(job, recognizer))
    if options.probes:
        exchanged = collect_features(recognizer, batches(job), run=recognizer.encode)
        with torch.no_grad():
            joint = torch.cat([pooled(recognizer.encode(images).recognition, 1) for images in batches(job)])
        metrics |= probe_metrics(job, cell, exchanged, joint)
    if options.interventions and gated_units(recognizer):
        add_interventions(metrics, details, interventions(job, trained))
    return {"metrics": metrics, **details}, arrays


def details_of(looks: Looks) -> dict[str, Any]:
    """What a cell's result holds beside its metrics, as far as it was recorded in training."""
    return {
        "conflict": looks.get("conflict", []),
        "affinity": series(looks.get("affinity", []), ("from", "to"), "affinity"),
        "gates": [],
        "gates_over_time": series(looks.get("gates", []), ("stage", "direction", "gate"), "mean"),
        "interventions": {},
    }


def add_gates(metrics: dict[str, Any], details: dict[str, Any], gates: list[dict[str, Any]]) -> None:
    """Put how far the gates are open into a cell's metrics and details."""
    details["gates"] = gates
    metrics |= {f"gate/{g['stage']}/{g['direction']}/{g['gate']}": g["mean"] for g in gates}


def add_interventions(metrics: dict[str, Any], details: dict[str, Any], found: dict[str, dict[str, float]]) -> None:
    """Put what interventions change into a cell's metrics and details."""
    details["interventions"] = found
    for name, change in found.items():
        metrics |= {f"intervention/{name}/{key}": value for key, value in change.items()}


@torch.no_grad()
def synthesis_errors(model: FERSNet | None, held_out: HeldOut, device: torch.device, *, drawn: bool = False) -> Tensor:
    """How far edited faces are from the true render, (N,): L1 on [-1, 1], weighted by where an expression changes it.

    The weights are those of the training loss (``losses.reconstruction.change_weights``), without its gradient term.

    Args:
        model: in eval mode; None compares the sources as they are, which any edit should beat.
        held_out: sources and true targets.
        drawn: with the mean style of the wanted class; else with the style read from the target, as training compares.
    """
    found = []
    for start in range(0, len(held_out.faces), _BATCH):
        rows = range(start, min(start + _BATCH, len(held_out.faces)))
        source = held_out.faces.batch(rows).to(device).image
        target = held_out.targets.batch(rows).to(device)
        image = source
        if model is not None:
            told = getattr(target, model.config.condition)
            mean, _ = model.style.prior(told) if drawn else model.style.posterior(target.image)
            image = model.decode(model.encode(source), source, told, mean).image
        found.append(pixel_loss(image, target.image, change_weights(source, target.image), gradient=0.0).float().cpu())
    return torch.cat(found)


def conflict_metrics(records: list[dict[str, Any]]) -> dict[str, float]:
    """Means over training of the tasks' cosine and magnitude similarity, and the share of looks with a conflict."""
    groups: dict[str, list[dict[str, Any]]] = {}
    several = len({tuple(record["tasks"]) for record in records}) > 1
    for record in records:
        if record["cosine"] is not None:
            groups.setdefault(record["group"], []).append(record)
            if several:
                groups.setdefault(f"{record['group']}/{'+'.join(record['tasks'])}", []).append(record)
    metrics = {}
    for group, looks in groups.items():
        metrics[f"conflict/{group}/cosine"] = fmean(r["cosine"] for r in looks)
        metrics[f"conflict/{group}/rate"] = fmean(r["cosine"] < 0 for r in looks)
        metrics[f"conflict/{group}/magnitude"] = fmean(r["magnitude_similarity"] for r in looks)
    return metrics


def affinity_metrics(records: list[dict[str, Any]]) -> dict[str, float]:
    """Means over training of what a step on one task does to a task's loss."""
    values: dict[str, list[float]] = {}
    for record in records:
        if record["affinity"] is not None:
            values.setdefault(f"affinity/{record['from']}_to_{record['to']}", []).append(record["affinity"])
    return {name: fmean(each) for name, each in values.items()}


def map_rows(job: StudyJob) -> Tensor:
    """Rows of the held-out faces over which maps of the gates are laid: expressions in turn, of different people."""
    return torch.tensor(sheet_rows(job.held_out.faces, job.config.measures.map_faces), dtype=torch.int64)


def maps_over_faces(job: StudyJob, model: FERSNet | SJMT) -> dict[str, Tensor]:
    """Where the gates are open on rendered faces: ``maps/STAGE/DIRECTION/GATE`` → (F, H, W) float16 in [0, 1]."""
    rows = map_rows(job)
    if not len(rows):
        return {}
    images = job.held_out.faces.batch(rows).to(job.accelerator.device).image
    units = {unit.name: unit for unit in gated_units(model)}
    return {
        f"maps/{units[name].stage}/{units[name].direction}/{gate}": values.half().cpu().contiguous()
        for name, gates in gate_maps(model, images, run=getattr(model, "encode", None)).items()
        for gate, values in gates.items()
    }


def openness(job: StudyJob, model: FERSNet | SJMT) -> list[dict[str, Any]]:
    """Openness of every gate over the held-out faces, by expression too; see :class:`Openness`."""
    names = ("stage", "direction", "gate", "mean", "spread", "channels", "expressions")
    faces, device = job.held_out.faces, job.accelerator.device
    batches = (faces.batch(rows).to(device) for rows in torch.arange(len(faces)).split(_BATCH))
    return [{name: getattr(each, name) for name in names} for each in openness_over(model, batches, faces.classes)]


def probe_metrics(
    job: StudyJob,
    cell: Cell,
    exchanged: dict[str, dict[str, Tensor]],
    joint: Tensor,
    needed: tuple[str, ...] = (NEEDED,),
) -> dict[str, float]:
    """What linear probes read before, in and after every exchange toward the first task, and where its head reads.

    Expression, yaw and light are read on new people, the subject in new sessions.

    Args:
        exchanged: of :func:`collect_features`, over the held-out faces.
        joint: (N, C) features that the first task's head reads.
        needed: what that task needs of what is read.
    """
    faces = job.held_out.faces
    targets = {
        NEEDED: faces.expression,
        "subject": faces.subject,
        "yaw": faces.attributes["yaw"],
        "light": torch.stack([faces.attributes["light_x"], faces.attributes["light_y"]], 1),
    }
    inward = [places for name, places in exchanged.items() if name.endswith(_INWARD)]

    def read(values: Tensor) -> dict:
        return probe_targets(values, targets, faces.subject, session=faces.session)

    metrics: dict[str, float] = {}
    at_joint = {target: probe.score for target, probe in read(joint).items() if probe.score is not None}
    metrics |= {f"probe/joint/{target}": score for target, score in at_joint.items()}
    if NEEDED in at_joint:
        metrics["expression_read"] = at_joint[NEEDED]
    nuisance = [score for target, score in at_joint.items() if target not in needed]
    if nuisance:
        metrics["nuisance_read"] = fmean(nuisance)
    selectivity: dict[str, list[float]] = {}
    for stage, places in enumerate(inward):
        if cell.sharing == SINGLE:  # nothing was trained on the donor's side, and nothing is exchanged
            places = {"receiver_after": places["receiver_after"]}
        probes = {place: read(values) for place, values in places.items()}
        for place, results in probes.items():
            metrics |= {f"probe/{stage}/{place}/{t}": p.score for t, p in results.items() if p.score is not None}
        for side, filtering in unit_filtering(probes, needed=needed).items():
            for kind in ("filtering", "retention", "selectivity"):
                value = getattr(filtering, kind)
                if value is not None:
                    metrics[f"{kind}/{stage}/{side}"] = value
            if filtering.selectivity is not None:
                selectivity.setdefault(side, []).append(filtering.selectivity)
    return metrics | {f"selectivity_{side}": fmean(values) for side, values in selectivity.items()}


def interventions(job: StudyJob, trained: Trained) -> dict[str, dict[str, float]]:
    """What each standard intervention changes: ``{intervention: {measure: change}}``.

    Macro-F1 is that of a part of the test faces; the synthesis error joins it where one network does both.
    """
    count, device = job.config.measures.intervention_faces, job.accelerator.device
    test, held_out, model = some_scorable(job, ["expression"]), job.held_out.first(count), trained.recognizer

    def evaluate() -> dict[str, float]:
        outputs = predict(job, model, test)
        values = {"macro_f1": recognition_metrics(outputs, test.expression, test.classes).macro_f1}
        if trained.editor is model:
            values["synthesis_error"] = float(synthesis_errors(model, held_out, device).mean())
        return values

    effects = intervention_effects(model, evaluate)
    return {name: effect.change for name, effect in effects.items() if name != "untouched"}


def some_scorable(job: StudyJob, tasks: Sequence[str]) -> FaceTable:
    """Of the test faces that tasks can be scored by, ``measures.intervention_faces`` of each, evenly over the rows."""
    test, count = job.splits.test, job.config.measures.intervention_faces
    chosen = torch.zeros(len(test), dtype=torch.bool)
    for task in tasks:
        rows = torch.where(scorable_faces(test, task))[0]
        chosen[rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]] = True
    return test.select(chosen)


def batches(job: StudyJob) -> Iterator[Tensor]:
    """The held-out faces, (B, C, H, W) on the job's device."""
    table = job.held_out.faces
    for rows in torch.arange(len(table)).split(_BATCH):
        yield table.batch(rows).image.to(job.accelerator.device)
