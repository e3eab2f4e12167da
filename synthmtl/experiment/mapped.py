"""Pairs of photographs where the data have none: neutral faces, and what rendered people's changes make of them."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from synthmtl.data import FaceTable
from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.data.randomness import derive_seed
from synthmtl.experiment.labeler import train_reader
from synthmtl.experiment.stages import Job
from synthmtl.experiment.workspace import Unit
from synthmtl.faces.changes import RenderedChanges
from synthmtl.files import write_tensors
from synthmtl.models.inference import agreed_landmarks, load_network
from synthmtl.progress import shown
from synthmtl.report import contact_sheet

SHEET = "sheet.png"
"""Some of the photographs and what was made of them, in the folder ``mapped``."""

_FILE = "faces.safetensors"
_SHEET_ROWS = 12

_BELIEVED = 0.5
"""Share of the photographs whose landmarks are believed: those on which views of the face agree best."""


def careless(config: AugmentationConfig) -> AugmentationConfig:
    """Framing of rendered faces as careless as that of photographs from the web."""
    least = {"rotation_degrees": 20.0, "shift": 0.12, "scale": 0.25}
    return dataclasses.replace(config, **{name: max(value, getattr(config, name)) for name, value in least.items()})


def neutral_rows(table: FaceTable) -> torch.Tensor:
    """(N,) rows of real faces that are neutral, where there are other expressions to give them."""
    if "neutral" not in table.classes or len(table.classes) < 2:
        return torch.empty(0, dtype=torch.int64)
    return torch.where((table.expression == table.classes.index("neutral")) & ~table.synthetic)[0]


def map_photographs(job: Job) -> Path:
    """Map neutral training faces to every other expression, and draw some of them for a look.

    Landmarks come with the faces, or else from a network that is trained on rendered ones for it. No face of another
    split is touched.

    Returns:
        The folder that keeps them, for :func:`mapped_pairs`. Its result says how many ``photographs`` were neutral and
        how many of them were ``mapped``.
    """
    unit = Unit(job.out, "mapped")
    if unit.result is None:
        seed = derive_seed("mapped", job.config.seeds[0])
        neutral = neutral_rows(job.train)
        rows, places = _located(job, neutral, seed)
        changes = RenderedChanges(job.train.classes, job.train.image_size, job.train.channels, seed=seed % 2**31)
        kept, faces = [], []
        for row, points in shown(zip(rows.tolist(), places, strict=True), "mapping", unit="face", total=len(rows)):
            made = changes.apply(job.train.images[row], points, np.random.default_rng((seed, row)))
            if made is None:
                continue
            kept.append(row)
            faces.append(torch.cat([job.train.images[row][None], made]))
            if len(kept) == job.config.synthesis.mapped_subjects:
                break
        if job.accelerator.is_main_process and kept:
            write_tensors(unit.directory / _FILE, {"rows": torch.tensor(kept), "faces": torch.stack(faces)})
            heads = ["neutral", *(job.train.classes[k] for k in changes.expressions)]
            sheet = torch.stack(faces[:_SHEET_ROWS]).numpy()
            contact_sheet(sheet, None, heads, unit.directory / SHEET, lead_columns=1)
        job.finish(unit, {"photographs": len(neutral), "mapped": len(kept)})
    return unit.directory


def mapped_pairs(job: Job) -> FaceTable | None:
    """What :func:`map_photographs` kept, beside the neutral faces: each photograph is one subject in one session.

    None if it kept nothing.
    """
    unit = Unit(job.out, "mapped")
    if not unit.finished["mapped"]:
        return None
    kept = load_file(unit.directory / _FILE)
    photographs, classes = len(kept["rows"]), job.train.classes
    neutral = classes.index("neutral")
    expression = torch.tensor([neutral, *(k for k in range(len(classes)) if k != neutral)])
    return FaceTable(
        images=kept["faces"].flatten(0, 1),
        classes=classes,
        expression=expression.repeat(photographs),
        subject=torch.arange(photographs).repeat_interleave(len(classes)),
        session=torch.zeros(photographs * len(classes), dtype=torch.int64),
    )


def _located(job: Job, rows: torch.Tensor, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Those of the faces whose landmarks are known or believed, in random order, and the landmarks (n, 68, 2)."""
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    places = job.train.landmarks[rows].clone()
    bare = torch.where(places.isnan().flatten(1).any(1))[0]
    if len(bare):
        folder = train_reader(job, "landmarks", "landmarks", careless(job.config.augmentation))
        network = load_network(folder / "model").to(job.accelerator.device)
        faces = job.train.select(rows[bare])
        places[bare], spread = agreed_landmarks(network, faces, device=job.accelerator.device)
        places[bare[spread > spread.quantile(_BELIEVED)]] = float("nan")
    kept = ~places.isnan().flatten(1).any(1)
    return rows[kept], places[kept].double().numpy()
