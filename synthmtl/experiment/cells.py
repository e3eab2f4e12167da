"""The cells of the table: one method trained by one seed, its predictions kept."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from synthmtl.data import FaceTable
from synthmtl.data.randomness import derive_seed
from synthmtl.experiment.methods import Method
from synthmtl.experiment.stages import (
    Job,
    matched_network,
    plain_network,
    predict,
    save,
    train_recognition,
    validation_scores,
)
from synthmtl.experiment.workspace import Unit
from synthmtl.files import write_tensors
from synthmtl.models.encoder import ExpressionHead
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.inference import load_network


def renew_head(model: FaceGenerator) -> None:
    """A new classifier on trained features, drawn from the global generator, so that seeds differ in it too."""
    old = model.head
    new = ExpressionHead(
        old.linear.in_features, old.linear.out_features, model.config.recognition_norm, model.config.dropout
    )
    model.head = new.to(old.linear.weight.device)


def freeze_generation(model: FaceGenerator) -> None:
    """What only makes faces takes no part in fine-tuning: it costs no optimizer state and no exchange of gradients."""
    for name in ("style", "decoder", "target", "adapter", "unet"):
        part = getattr(model, name, None)
        if part is not None:
            part.requires_grad_(False)


def train_cell(job: Job, name: str, method: Method, seed: int, *, base: Path | None, fill: FaceTable | None) -> dict:
    """Train one method by one seed, or read what an earlier run of it left.

    Args:
        base: folder of the jointly trained network that the method fine-tunes; None for methods without synthesis.
        fill: what a share of each batch is filled with.

    Returns:
        The result: seed, seconds of training (all sessions together) and validation scores. Predictions for the test
        split lie beside it.
    """
    unit = Unit(job.out, f"cells/{name}/seed{seed}")
    if unit.result is not None:
        return unit.result
    cell_seed = derive_seed("cell", seed)  # the same for every method, so that comparisons are paired
    torch.manual_seed(cell_seed)
    if base is None:
        model = plain_network(job) if method.network == "plain" else matched_network(job)
        training = job.config.recognition
    else:
        model = load_network(base)
        renew_head(model)
        freeze_generation(model)
        training = job.config.finetune
    seconds = train_recognition(
        job,
        model,
        training,
        unit.directory,
        seed=cell_seed,
        method=method,
        fill=fill,
        description=f"{name} seed {seed}",
    )
    outputs = {split: predict(job, model, getattr(job.splits, split)) for split in ("validation", "test")}
    save(job, model, unit.directory / "model")
    result = {
        "method": name,
        "seed": seed,
        "seconds": seconds,
        "parameters": model.recognition_parameters(),
        "validation": validation_scores(job, model),
    }
    if job.accelerator.is_main_process:
        write_tensors(unit.directory / "predictions.safetensors", outputs)
    return job.finish(unit, result)


def cell_predictions(job: Job, name: str, seed: int, split: str = "test") -> Tensor:
    """Probabilities (N, K) that a finished cell gave to a split."""
    return load_file(job.out / f"cells/{name}/seed{seed}/predictions.safetensors")[split]
