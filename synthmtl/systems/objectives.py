"""What a system of several tasks minimizes, from options and the labels of its training faces."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from synthmtl.data import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import TASKS
from synthmtl.losses import (
    AssociationLoss,
    ExpressionLoss,
    HeterogeneousLoss,
    LandmarkLoss,
    MultiTaskObjective,
    task_losses,
    warm_up,
)
from synthmtl.models.multitask import MultiTaskModel


@dataclass
class LossOptions:
    """Losses of the tasks and how they are put together.

    Attributes:
        weights: of tasks, by name; 1 where left out. Landmarks are counted in pixels, hence the tenth.
        normalization: ``per_task``: each task's mean over its labels; ``global``: over all labels together, so that a
            task counts as much as it has labels.
        class_weighted: weigh expressions by their inverse frequency.
        label_smoothing: of expressions and compound expressions.
        unit_weighted: weigh the positive labels of rare action units.
        unit_threshold: intensity from which a unit counts as active in that.
        landmarks: ``wing`` or ``l1``.
        association: weight of association learning; 0 turns it off.
        association_warmup: share of the steps over which its consistency terms grow to their weight.
        sharing: weight of what the sharing units ask for.

    Raises:
        InputError: if the weight or the warm-up of association is out of range.
    """

    weights: dict[str, float] = field(default_factory=lambda: {"landmarks": 0.1})
    normalization: Literal["per_task", "global"] = "per_task"
    class_weighted: bool = False
    label_smoothing: float = 0.0
    unit_weighted: bool = False
    unit_threshold: float = 0.5
    landmarks: Literal["wing", "l1"] = "wing"
    association: float = 0.0
    association_warmup: float = 0.3
    sharing: float = 1.0

    def __post_init__(self):
        if not 0 <= self.association < math.inf:
            raise InputError(f"losses.association must be at least 0 (0 turns it off), not {self.association}")
        if not 0 <= self.association_warmup <= 1:
            raise InputError(f"losses.association_warmup lies in [0, 1], not {self.association_warmup}")


def build_objective(model: MultiTaskModel, options: LossOptions, table: FaceTable) -> MultiTaskObjective:
    """The objective of a network's tasks; association if its weight is above 0 and the network has the predictors.

    Raises:
        InputError: if a weight names no task at all. One that names a task which this network lacks has no effect.
    """
    for name in options.weights:
        if name not in TASKS:
            raise InputError(f"losses.weights: unknown task {name!r}: use some of {', '.join(TASKS)}")
    losses = task_losses(
        model.tasks,
        table,
        class_weighted=options.class_weighted,
        label_smoothing=options.label_smoothing,
        unit_weighted=options.unit_weighted,
        unit_threshold=options.unit_threshold,
        landmarks=options.landmarks,
    )
    weights = {name: weight for name, weight in options.weights.items() if name in losses}
    association = None
    if options.association and getattr(model.config, "association", False):
        expression, landmarks, weight = losses["expression"], losses["landmarks"], options.association
        assert isinstance(expression, ExpressionLoss) and isinstance(landmarks, LandmarkLoss)
        association = AssociationLoss(expression, landmarks, supervision=weight, consistency=weight)
    heterogeneous = HeterogeneousLoss(losses, weights, normalization=options.normalization)
    return MultiTaskObjective(model, heterogeneous, association, sharing_weight=options.sharing)


def warmed(
    stream: Callable[[int], Any], objective: MultiTaskObjective, steps: int, *, accumulation: int = 1
) -> Callable[[int], Any]:
    """``stream``, setting the objective's warmth for the step that each batch belongs to: again a function of the step.

    Args:
        stream: micro-step → batch.
        objective: whose consistency terms grow.
        steps: over which they grow; 0 = they are there from the start.
        accumulation: micro-steps per step.
    """

    def at(step: int) -> Any:
        objective.warmth = warm_up((step // accumulation) / steps) if steps else 1.0
        return stream(step)

    return at
