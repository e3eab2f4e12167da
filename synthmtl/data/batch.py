"""The batch that every branch, loss and metric reads."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthmtl.data.randomness import StepRandom


@dataclass
class FaceBatch:
    """A batch of B faces with whatever labels they carry; nothing ever invents a missing one.

    Attributes:
        image: (B, C, H, W) float in [-1, 1].
        expression: (B,) int64 index into the data set's classes; -1 = missing.
        expression_distribution: (B, K) share of annotators per class; NaN rows = missing.
        compound: (B,) int64 index into ``labels.COMPOUND_EXPRESSIONS``; -1 = missing.
        action_units: (B, A) intensity in [0, 1]; NaN = missing.
        landmarks: (B, 68, 2) in [0, 1] of the image, x right, y down; NaN = missing.
        valence_arousal: (B, 2) in [-1, 1]; NaN = missing.
        subject: (B,) int64; -1 = unknown.
        domain: (B,) int64, which data set the face comes from.
        weight: (B,) float, the sample's weight in a loss.
        synthetic: (B,) bool, made by our generator.
    """

    image: Tensor
    expression: Tensor
    expression_distribution: Tensor
    compound: Tensor
    action_units: Tensor
    landmarks: Tensor
    valence_arousal: Tensor
    subject: Tensor
    domain: Tensor
    weight: Tensor
    synthetic: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device | str) -> "FaceBatch":
        """The same batch on ``device``."""
        return FaceBatch(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})

    @staticmethod
    def concatenate(batches: Sequence["FaceBatch"]) -> "FaceBatch":
        """All rows of several batches over the same classes."""
        names = [field.name for field in dataclasses.fields(FaceBatch)]
        return FaceBatch(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names})


@dataclass
class EditBatch:
    """What one step of joint training sees: labelled faces for recognition, and edits for synthesis.

    Attributes:
        labelled: B faces for the recognition loss.
        source: E faces to edit.
        target: E faces that show the wanted expression (``target.expression``, never missing).
        paired: (E,) bool. True: the target is the same person in the same pose, light and framing, so that pixels can
            be compared. False: it is somebody else, an example of the expression only.
        random: the step's random numbers, for losses that draw some.
        edited: (E, C, H, W) in [-1, 1], what the generator last made of the sources, without a gradient; its objective
            leaves them here for the critic, whose turn with the batch may come after other batches.
    """

    labelled: FaceBatch
    source: FaceBatch
    target: FaceBatch
    paired: Tensor
    random: StepRandom
    edited: Tensor | None = None

    def to(self, device: torch.device | str) -> "EditBatch":
        """The same batch on ``device``."""
        return EditBatch(
            self.labelled.to(device),
            self.source.to(device),
            self.target.to(device),
            self.paired.to(device),
            self.random.to(device),
            None if self.edited is None else self.edited.to(device),
        )
