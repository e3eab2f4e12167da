"""From tables to batches: a stream maps a step to this process's share of that step's batch, and to nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from synthmtl.data.augmentation import AugmentationConfig, augment, augment_landmarks, augment_pair
from synthmtl.data.batch import EditBatch, FaceBatch
from synthmtl.data.pairs import EditSampler
from synthmtl.data.randomness import StepRandom
from synthmtl.data.sampling import shard
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError


class Sampler(Protocol):
    """Which rows make up a step's global batch."""

    def indices(self, step: int) -> Tensor:
        """Rows (global batch,) int64 of ``step``."""


class RecognitionStream:
    """Labelled, augmented faces: ``stream(step)`` → :class:`FaceBatch`. Landmarks stay on their places of the face.

    Args:
        table: the faces.
        sampler: rows of each global batch; its size must divide by ``world``.
        augmentation: None leaves faces as they are.
        seed: of the augmentation.
        rank, world: this process and how many there are.
    """

    def __init__(
        self,
        table: FaceTable,
        sampler: Sampler,
        *,
        augmentation: AugmentationConfig | None,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        self.table, self.sampler, self.augmentation, self.seed = table, sampler, augmentation, seed
        self.rank, self.world = rank, world

    def __call__(self, step: int) -> FaceBatch:
        parts = getattr(self.sampler, "counts", None)
        batch = self.table.batch(shard(self.sampler.indices(step), self.rank, self.world, parts))
        if self.augmentation is not None:
            random = StepRandom(self.seed, step, rank=self.rank, world=self.world)
            _vary(batch, random, self.augmentation, "labelled")
        return batch


@dataclass
class EditSource:
    """Faces that edits are drawn from.

    Attributes:
        table: the faces.
        sampler: draws (source, target) rows.
        count: edits in each global batch.
        augmentation: of these faces; None = the stream's.
    """

    table: FaceTable
    sampler: EditSampler
    count: int
    augmentation: AugmentationConfig | None = None


class EditStream:
    """Labelled faces and edits together: ``stream(step)`` → :class:`EditBatch`.

    Source and target of a pair get the same crop and light, so that they stay comparable pixel by pixel; erasing is
    left out of edits.

    Args:
        labelled: the recognition branch's stream.
        edits: where edits come from; counts must divide by the labelled stream's ``world``.
        augmentation: of sources and targets; None leaves them as they are.
    """

    def __init__(
        self, labelled: RecognitionStream, edits: Sequence[EditSource], augmentation: AugmentationConfig | None
    ):
        for part in edits:
            if part.count % labelled.world:
                raise InputError(f"{part.count} edits a step do not divide by {labelled.world} processes")
        self.labelled, self.edits, self.augmentation = labelled, list(edits), augmentation

    def __call__(self, step: int) -> EditBatch:
        stream = self.labelled
        random = StepRandom(stream.seed, step, rank=stream.rank, world=stream.world)
        sources, targets, paired = [], [], []
        for i, part in enumerate(self.edits):
            count = part.count // stream.world
            source_rows, target_rows = part.sampler.rows(count, random, f"edit-{i}")
            source, target = part.table.batch(source_rows), part.table.batch(target_rows)
            views = part.augmentation or self.augmentation
            if views is not None and part.sampler.paired:
                name = f"pair-{i}"
                source.image, target.image = augment_pair(source.image, target.image, random, views, name)
                for side in (source, target):
                    _move_landmarks(side, random, views, name)
            elif views is not None:
                _vary(source, random, views, f"source-{i}")
                _vary(target, random, views, f"target-{i}")
            sources.append(source)
            targets.append(target)
            paired.append(torch.full((count,), part.sampler.paired))
        return EditBatch(
            self.labelled(step),
            FaceBatch.concatenate(sources),
            FaceBatch.concatenate(targets),
            torch.cat(paired),
            random,
        )


def _vary(batch: FaceBatch, random: StepRandom, config: AugmentationConfig, name: str) -> None:
    batch.image = augment(batch.image, random, config, name)
    _move_landmarks(batch, random, config, name)


def _move_landmarks(batch: FaceBatch, random: StepRandom, config: AugmentationConfig, name: str) -> None:
    height, width = batch.image.shape[-2:]
    batch.landmarks = augment_landmarks(batch.landmarks, (height, width), random, config, name)
