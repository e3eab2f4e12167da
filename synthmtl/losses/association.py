"""Association learning: one task's route teaches the other on faces that carry a single kind of label."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from synthmtl.data.batch import FaceBatch
from synthmtl.errors import InputError
from synthmtl.losses.expression import ExpressionLoss, carries_expression
from synthmtl.losses.landmarks import LandmarkLoss
from synthmtl.losses.weighting import weighted_mean


def warm_up(progress: float) -> float:
    """Weight of a consistency term at ``progress`` in [0, 1] of its ramp: exp(-5 (1 - t)²) (Laine and Aila, ICLR 2017).

    From 0.007 to 1, and 1 from then on: predictors that have learned nothing yet should teach nothing.
    """
    return math.exp(-5 * (1 - min(max(progress, 0.0), 1.0)) ** 2)


class AssociationLoss(nn.Module):
    """What ties expression and landmarks together (after Chen et al., Pattern Recognition 115, 2021, 107893).

    A reconstruction: of the published association learning only the idea is known. The network has, beside its heads
    p_e (expression) and p_l (landmarks), a predictor from each route to the other task: a_e reads the expression from
    the landmark route, a_l the landmarks from the expression route. With y the labels, sg the stop of the gradient:

        supervision, where the target's label exists       CE(a_e, y_e)   and   L(a_l, y_l)
        consistency, on a face with landmarks alone        KL(sg(a_e) || p_e)
        consistency, on a face with an expression alone    |p_l - sg(a_l)|

    The teacher is the route that the face's own label trains; the student is the own head of the task that has no
    label there. Supervision is what gives the teacher something to say: predictors are trained by the labels of their
    target on other faces, or on the same one where it carries both. A face with both labels, or with none, has no
    consistency term; nor have the missing points of a face whose landmarks are known in part. Each of the four terms
    is a weighted mean over its own faces of the global batch, zero if there are none. The direct supervision of the
    heads is not in here: that is ``HeterogeneousLoss``.

    Args:
        expression, landmarks: the losses of supervision. Consistency counts coordinates in the unit of ``landmarks``.
        supervision, consistency: weights of the two kinds.

    Raises:
        InputError: if a weight is below 0 or not finite.
    """

    def __init__(
        self,
        expression: ExpressionLoss,
        landmarks: LandmarkLoss,
        *,
        supervision: float = 1.0,
        consistency: float = 1.0,
    ):
        super().__init__()
        for name, weight in (("supervision", supervision), ("consistency", consistency)):
            if not 0 <= weight < math.inf:
                raise InputError(f"the association's weight {name} must be a finite number from 0 up, not {weight}")
        self.expression, self.landmarks = expression, landmarks
        self.distance = LandmarkLoss("l1", unit=landmarks.unit)
        self.supervision, self.consistency = supervision, consistency

    def forward(self, outputs: Mapping[str, Tensor], batch: FaceBatch, warmth: float = 1.0) -> dict[str, Tensor]:
        """The terms of ``outputs`` with ``expression``, ``associated_expression`` (B, K), logits, and ``landmarks``,
        ``associated_landmarks`` (B, 68, 2); ``warmth`` multiplies consistency.

        Returns:
            ``task/expression`` and ``task/landmarks``, weighted sums of the terms whose target is that task, with
            gradient; and the four terms ``associated_NAME`` and ``consistent_NAME``, without.
        """
        weight = batch.weight
        with_expression = carries_expression(batch.expression, batch.expression_distribution)
        with_landmarks = (~batch.landmarks.isnan().any(-1)).any(1)
        taught = with_landmarks & ~with_expression, with_expression & ~with_landmarks
        teacher, student = (
            torch.where(taught[0][:, None], logits.float(), 0.0).log_softmax(1)
            for logits in (outputs["associated_expression"].detach(), outputs["expression"])
        )
        divergence = (teacher.exp() * (teacher - student)).sum(1)
        distance, _ = self.distance.each(
            torch.where(taught[1][:, None, None], outputs["landmarks"], 0.0),
            torch.where(taught[1][:, None, None], outputs["associated_landmarks"].detach().float(), 0.0),
        )
        associated = {
            "expression": self.expression(
                outputs["associated_expression"], batch.expression, weight, batch.expression_distribution
            ),
            "landmarks": self.landmarks(outputs["associated_landmarks"], batch.landmarks, weight),
        }
        consistent = {
            "expression": weighted_mean(divergence, taught[0] * weight),
            "landmarks": weighted_mean(distance, taught[1] * weight),
        }
        tasks = {
            f"task/{name}": self.supervision * associated[name] + warmth * self.consistency * consistent[name]
            for name in associated
        }
        named = {"associated": associated, "consistent": consistent}
        return tasks | {f"{kind}_{name}": v.detach() for kind, terms in named.items() for name, v in terms.items()}
