"""Faces that each carry some labels, and a network for them; as a script, the second of two processes that share them.

mixed_faces.py FOLDER
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from synthmtl.data import FaceTable
from synthmtl.labels import ACTION_UNITS, COMPOUND_EXPRESSIONS, EXPRESSIONS_7
from synthmtl.losses import (
    ActionUnitLoss,
    AssociationLoss,
    ConcordanceLoss,
    ExpressionLoss,
    HeterogeneousLoss,
    LandmarkLoss,
    MultiTaskObjective,
)

SHAPES = {
    "expression": (7,),
    "compound": (len(COMPOUND_EXPRESSIONS),),
    "action_units": (len(ACTION_UNITS),),
    "landmarks": (68, 2),
    "valence_arousal": (2,),
}
WEIGHTS = {"expression": 1.0, "compound": 0.5, "action_units": 2.0, "landmarks": 0.1, "valence_arousal": 0.7}


def faces(count=16, seed=0, complete=False):
    """A batch; unless ``complete``, each label is missing somewhere and the second half has few landmarks."""
    random = torch.Generator().manual_seed(seed)

    def chance(*shape, share=0.4):
        return (torch.rand(shape, generator=random) < share) & (not complete)

    units = torch.rand(count, len(ACTION_UNITS), generator=random)
    landmarks = torch.rand(count, 68, 2, generator=random)
    affect = torch.rand(count, 2, generator=random) * 2 - 1
    expression = torch.randint(7, (count,), generator=random)
    compound = torch.randint(len(COMPOUND_EXPRESSIONS), (count,), generator=random)
    without = chance(count) | ((torch.arange(count) > count // 2) & (not complete))
    table = FaceTable(
        images=torch.randint(256, (count, 1, 4, 4), generator=random, dtype=torch.uint8),
        classes=EXPRESSIONS_7,
        expression=torch.where(chance(count), -1, expression),
        compound=torch.where(chance(count), -1, compound),
        action_units=torch.where(chance(count, 1) | chance(*units.shape), torch.nan, units),
        landmarks=torch.where(without[:, None, None] | chance(count, 68, 1), torch.nan, landmarks),
        valence_arousal=torch.where(chance(*affect.shape), torch.nan, affect),
        weight=torch.rand(count, generator=random) + 0.5,
    )
    return table.batch(range(count))


def rows(batch, index):
    """Some faces of a batch."""
    return type(batch)(**{name: value[index] for name, value in vars(batch).items()})


def heads(count=16, seed=1):
    """What the heads of a network might give for ``count`` faces: leaf tensors by task."""
    random = torch.Generator().manual_seed(seed)
    return {t: torch.randn(count, *shape, generator=random).requires_grad_() for t, shape in SHAPES.items()}


def task_losses():
    """A loss for each task, with all remedies."""
    return {
        "expression": ExpressionLoss([9, 5, 3, 3, 2, 2, 1], class_weighted=True, label_smoothing=0.1),
        "compound": ExpressionLoss(),
        "action_units": ActionUnitLoss(torch.linspace(0.05, 0.6, len(ACTION_UNITS))),
        "landmarks": LandmarkLoss(),
        "valence_arousal": ConcordanceLoss(),
    }


class Network(nn.Module):
    """Linear heads on the pixels, those of association included, and a penalty."""

    def __init__(self):
        super().__init__()
        shapes = SHAPES | {"associated_expression": (7,), "associated_landmarks": (68, 2)}
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.trunk = nn.Linear(16, 10)
            self.heads = nn.ModuleDict({t: nn.Linear(10, torch.Size(shape).numel()) for t, shape in shapes.items()})
        self.shapes = shapes

    def forward(self, images):
        features = self.trunk(images.flatten(1)).tanh()
        outputs = {t: head(features).view(-1, *self.shapes[t]) for t, head in self.heads.items()}
        return outputs | {"penalty": features.square().mean()}


def objective(normalization="global"):
    """All tasks at once, with association and penalty."""
    losses = task_losses()
    loss = HeterogeneousLoss(losses, WEIGHTS, normalization=normalization)
    association = AssociationLoss(losses["expression"], losses["landmarks"])
    return MultiTaskObjective(Network(), loss, association, sharing_weight=0.3)


def gradients(batch, normalization):
    """Losses and gradients of one step on ``batch``, means over all processes."""
    whole = objective(normalization)
    losses = whole(batch)
    losses["loss"].backward()
    found = {name: value.detach() for name, value in losses.items()}
    found |= {name: parameter.grad for name, parameter in whole.named_parameters()}
    if dist.is_initialized():
        flat = torch.cat([value.flatten() for value in found.values()])
        dist.all_reduce(flat)
        parts = (flat / dist.get_world_size()).split([value.numel() for value in found.values()])
        found = {name: part.view_as(found[name]) for name, part in zip(found, parts, strict=True)}
    return found


def run_as(rank, folder):
    """Steps as one of two processes, on its half of the joined batch."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    try:
        half = rows(faces(), slice(8 * rank, 8 * rank + 8))
        return {kind: gradients(half, kind) for kind in ("global", "per_task")}
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    run_as(1, Path(sys.argv[1]))
