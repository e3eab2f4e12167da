"""The objective of a multi-task network on faces with whatever labels they carry."""

import math

from torch import Tensor, nn

from synthmtl.data.batch import FaceBatch
from synthmtl.errors import InputError
from synthmtl.losses.association import AssociationLoss
from synthmtl.losses.heterogeneous import HeterogeneousLoss


class MultiTaskObjective(nn.Module):
    """``forward(batch: FaceBatch)`` → the losses by name, of which ``loss`` is minimized.

    They are those of :class:`HeterogeneousLoss`; those of association, each multiplied by the weight of the task that
    it serves and added to that task; and what the sharing units ask for (``outputs["penalty"]``, a scalar, if the
    network gives one), in equal parts to all tasks. So ``loss`` is the sum of the ``task/NAME`` throughout.

    Args:
        model: images (B, C, H, W) → outputs by task, with ``associated_expression`` and ``associated_landmarks`` where
            there is an association.
        loss: of the heads.
        association: None turns it off.
        sharing_weight: of the sharing units' penalty, which they weigh themselves; 0 takes it out.

    Attributes:
        warmth: weight in [0, 1] of the association's consistency, which the caller may set before each step, as a
            pure function of the step (``association.warm_up(step / steps)``) so that a run can resume.

    Raises:
        InputError: if there is an association, and expression or landmarks is no task of the loss; or if
            ``sharing_weight`` is below 0 or not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: HeterogeneousLoss,
        association: AssociationLoss | None = None,
        sharing_weight: float = 1.0,
    ):
        super().__init__()
        if association is not None and not {"expression", "landmarks"} <= set(loss.tasks):
            raise InputError(
                f"association ties expression and landmarks, but the tasks are {', '.join(loss.tasks)}: "
                "add the task that is missing, or turn association off"
            )
        if not 0 <= sharing_weight < math.inf:
            raise InputError(f"the weight of sharing must be a finite number from 0 up, not {sharing_weight}")
        self.model = model
        self.loss = loss
        self.association = association
        self.sharing_weight = sharing_weight
        self.warmth = 1.0

    def forward(self, batch: FaceBatch) -> dict[str, Tensor]:
        outputs = self.model(batch.image)
        losses = self.loss(outputs, batch)
        if self.association is not None:
            terms = self.association(outputs, batch, self.warmth)
            for task in ("expression", "landmarks"):
                losses[f"task/{task}"] = losses[f"task/{task}"] + self.loss.weights[task] * terms.pop(f"task/{task}")
            losses |= terms
        penalty = outputs.get("penalty")
        if penalty is not None and self.sharing_weight:
            for task in self.loss.tasks:
                losses[f"task/{task}"] = losses[f"task/{task}"] + self.sharing_weight * penalty / len(self.loss.tasks)
            losses["sharing"] = penalty.detach()
        losses["loss"] = sum(losses[f"task/{task}"] for task in self.loss.tasks)
        return losses
