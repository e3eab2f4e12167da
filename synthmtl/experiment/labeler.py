"""Action units, or valence and arousal, for training faces that carry none, so that a generator can be told them."""

import dataclasses
from pathlib import Path

import torch

from synthmtl.data import FaceTable
from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import EpochSampler
from synthmtl.data.streams import RecognitionStream
from synthmtl.errors import InputError
from synthmtl.experiment.config import MainJobConfig
from synthmtl.experiment.stages import Job, save
from synthmtl.experiment.workspace import Unit
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.losses import HeterogeneousLoss, MultiTaskObjective, task_losses
from synthmtl.metrics.multitask import task_intervals
from synthmtl.models import SJMT
from synthmtl.models.inference import load_network, predict_tasks, supply_labels
from synthmtl.training import Player, fit

_HELD_OUT = 400


def lacking(job: Job) -> torch.Tensor:
    """(N,) bool, training faces with an expression that carry nothing of what the generator is told."""
    kind = job.config.model.condition
    if kind == "expression":
        return torch.zeros(len(job.train), dtype=torch.bool)
    return getattr(job.train, kind).isnan().all(1) & (job.train.expression >= 0)


def teaching_config(config: MainJobConfig, classes: tuple[str, ...], *, seed: int, faces: int) -> RenderConfig:
    """Rendered faces as they teach what photographs cannot: as varied as photographs, ``faces`` of each class."""
    return RenderConfig(
        image_size=config.faces.image_size,
        channels=config.faces.channels,
        counts=dict.fromkeys(classes, faces),
        subjects=config.synthesis.rendered_subjects,
        style="wild",
        intensity_range=(0.7, 1.35),  # photographs in expression data sets show little restraint
        seed=seed,
    )


def train_labeler(job: Job) -> Path:
    """A network that reads the generator's targets from faces; see :func:`train_reader`."""
    return train_reader(job, job.config.model.condition, "labeler", job.config.augmentation)


def train_reader(job: Job, task: str, name: str, augmentation: AugmentationConfig) -> Path:
    """A network that reads one kind of label from faces, trained on rendered ones, which carry it exactly.

    Args:
        job: the run.
        task: the kind of label.
        name: of the folder below the run's.
        augmentation: of the rendered faces.

    Returns:
        The folder that keeps the network. Its result says how well rendered faces of other people are read.
    """
    unit = Unit(job.out, name)
    if unit.result is None:
        config = job.config
        seed = derive_seed(name, config.seeds[0])
        torch.manual_seed(seed)
        classes = job.train.classes
        # Sixteen faces a person, as many as teach the edit.
        taught = teaching_config(
            config, classes, seed=seed % 2**31, faces=16 * config.synthesis.rendered_subjects // len(classes)
        )
        held_out = dataclasses.replace(
            taught,
            counts=dict.fromkeys(classes, max(2, _HELD_OUT // len(classes))),
            subjects=max(1, taught.subjects // 8),
            subject_offset=taught.subjects,
        )
        faces, others = (render_faces(part).with_classes(classes) for part in (taught, held_out))
        model = SJMT.sized(
            config.model.size,
            classes=classes,
            tasks=[task],
            image_size=config.faces.image_size,
            image_channels=config.faces.channels,
        )
        stream = RecognitionStream(
            faces,
            EpochSampler(torch.arange(len(faces)), config.judge.batch_size, seed),
            augmentation=augmentation,
            seed=seed,
            **job.placement,
        )
        result = fit(
            players=[Player(name, MultiTaskObjective(model, HeterogeneousLoss(task_losses([task], faces))))],
            stream=stream,
            # The judge's, but for what chooses among its weights: here there is nothing to choose by.
            config=dataclasses.replace(config.judge, seed=seed, patience=None, evaluate_every=None),
            accelerator=job.accelerator,
            directory=unit.directory,
            progress=job.progress,
            description=name,
        )
        save(job, model, unit.directory / "model")
        outputs = predict_tasks(model, others, device=job.accelerator.device, mirror=config.mirror)
        scores = {key: score.as_dict() for key, score in task_intervals([outputs], others).items()}
        job.finish(unit, {"rendered": scores, "seconds": result.seconds})
    return unit.directory


def told_faces(job: Job) -> FaceTable:
    """The training faces with what the generator is told of them, supplied where they lack it.

    What is supplied is a target and no label: recognition never learns from it.

    Raises:
        InputError: if the network that ``synthesis.labeler`` names does not read it from such faces.
    """
    return told(job, job.train) if lacking(job).any() else job.train


def told(job: Job, table: FaceTable) -> FaceTable:
    """A table in which the run's labeler has supplied what the generator is told, where faces lack it.

    Raises:
        InputError: as for :func:`told_faces`.
    """
    if job.config.model.condition == "expression":
        return table
    named = job.config.synthesis.labeler
    network = load_network(named if named is not None else job.out / "labeler")
    try:
        return supply_labels(table, network, job.config.model.condition, device=job.accelerator.device)
    except InputError as error:
        raise InputError(f"--synthesis.labeler {named}: {error}") from None


def targets_note(job: Job) -> dict:
    """What the report says of the generator's targets, and a note for its reader; empty where all is as read."""
    kind, missing = job.config.model.condition, int(lacking(job).sum())
    if kind == "expression":
        return {}
    said = {"kind": kind, "faces": len(job.train), "supplied": missing}
    what = kind.replace("_", " ").replace("valence arousal", "valence and arousal")
    if not missing:
        job.note(f"The generator is told {what}, which the training faces carry.")
        return said
    named = job.config.synthesis.labeler
    by = f"the network in {Path(named).name}" if named else "a network trained on rendered faces"
    job.note(
        f"The generator is told {what}. {missing} of {len(job.train)} training faces carry none: {by} supplied them, "
        "as targets of synthesis and never as labels."
    )
    own = Unit(job.out, "labeler").result
    return said | {"supplied_by": by} | ({"rendered": own["rendered"]} if named is None and own else {})
