"""What synthesized faces are worth as training data: the classification accuracy score."""

import torch
from accelerate import Accelerator

from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.data.pixels import to_pixels, to_unit
from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import ClassBalancedSampler
from synthmtl.data.splits import split_by_subject, split_unit
from synthmtl.data.streams import RecognitionStream
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.metrics import bootstrap_intervals, recognition_metrics
from synthmtl.metrics.features import fit_faces
from synthmtl.models import Recognizer
from synthmtl.models.inference import predict_table
from synthmtl.training import Player, TrainingConfig, build_accelerator, fit

TRAINED_ON = ("synthetic", "real", "real_and_synthetic")
"""What the three recognizers learn from; ``real`` is what the other two are held against."""

_SCORES = ("accuracy", "macro_f1", "balanced_accuracy")
_LARGEST = 96  # pixels a side


def classification_accuracy_score(
    real: FaceTable,
    synthetic: FaceTable,
    *,
    test: FaceTable | None = None,
    steps: int,
    batch_size: int = 64,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> dict:
    """Train on synthesized faces, test on real ones (Ravuri, Vinyals: Classification Accuracy Score, NeurIPS 2019).

    Three recognizers alike in architecture, seed, steps and class-balanced batches learn from the synthesized faces,
    from the real ones, and from both. One seed each: differences of a few percent mean nothing.

    Args:
        real, synthetic: labelled faces over the same classes, of one size.
        test: real faces to score on; None = 30 % of ``real``, no subject on both sides, which the generator may have
            seen.
        steps: of each training.
        batch_size: faces of a step, over all processes; rounded up to a multiple of their number.
        seed: of weights, batches and the split.
        accelerator: None builds one.

    Returns:
        ``steps``, ``seed``, ``test_faces``, ``held_out`` (how ``test`` came about) and by :data:`TRAINED_ON`
        ``accuracy``, ``macro_f1``, ``balanced_accuracy``, over the expressions that ``test`` has, and their ``ci95``.

    Raises:
        InputError: if a set, or a part of the real one, has faces of fewer than two expressions, or cannot be split.
    """
    for name, table in (("synthesized", synthetic), ("real", real)):
        present = _expressions(table)
        if present < 2:
            raise InputError(f"{name} faces show {present} expressions: a recognizer needs at least two to learn")
    held_out = "given"
    if test is None:
        labelled = real.select(real.expression >= 0)
        parts = split_by_subject(labelled, {"train": 0.7, "test": 0.3}, seed, every_class=False)
        real, test = parts["train"], parts["test"]
        if min(_expressions(real), _expressions(test)) < 2:
            raise InputError(
                "real faces cannot be split with two expressions on both sides: add real faces, or give a test set"
            )
        held_out = f"30 % of the real faces, by {split_unit(real)}"
    accelerator = accelerator or build_accelerator()
    batch_size += -batch_size % accelerator.num_processes
    real, synthetic, test = (_resized(table) for table in (real, synthetic, test))
    both = FaceTable.concatenate([real.replace(attributes={}), synthetic.replace(attributes={})])
    result = {"steps": steps, "seed": seed, "test_faces": int((test.expression >= 0).sum()), "held_out": held_out}
    for name, table in zip(TRAINED_ON, (synthetic, real, both), strict=True):
        result[name] = _score(table, test, steps, batch_size, seed, accelerator, f"training on {name}")
    return result


def _expressions(table: FaceTable) -> int:
    """How many expressions have faces."""
    return sum(count > 0 for count in table.counts().values())


def _score(
    table: FaceTable, test: FaceTable, steps: int, batch_size: int, seed: int, accelerator: Accelerator, said: str
) -> dict:
    seed = derive_seed("classification accuracy score", seed) % 2**31
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Recognizer(classes=table.classes, image_size=table.image_size, image_channels=table.channels)
    stream = RecognitionStream(
        table,
        ClassBalancedSampler(table.expression, batch_size, seed),
        augmentation=AugmentationConfig(),
        seed=seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    fit(
        players=[Player("recognition", RecognitionObjective(model, ExpressionLoss()))],
        stream=stream,
        config=TrainingConfig(steps=steps, batch_size=batch_size, learning_rate=3e-3, seed=seed),
        accelerator=accelerator,
        description=said,
    )
    probabilities = predict_table(model, test, device=accelerator.device)
    scores = recognition_metrics(probabilities, test.expression, test.classes)
    intervals = bootstrap_intervals(probabilities, test.expression, test.classes, subject=test.subject)
    return {name: getattr(scores, name) for name in _SCORES} | {"ci95": {name: intervals[name] for name in _SCORES}}


def _resized(table: FaceTable) -> FaceTable:
    """Faces of a size that the recognizer takes: a multiple of 16 pixels from 32 to 96."""
    size = min(max(32, 16 * round(table.image_size / 16)), _LARGEST)
    if size == table.image_size:
        return table
    parts = [to_pixels(fit_faces(to_unit(part), size, table.channels)) for part in table.images.split(256)]
    return table.replace(images=torch.cat(parts))
