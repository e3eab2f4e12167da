"""The loss of each task by its name."""

from collections.abc import Iterable
from typing import Literal

from torch import nn

from synthmtl.data.table import FaceTable
from synthmtl.losses.action_units import ActionUnitLoss, unit_prevalence
from synthmtl.losses.affect import ConcordanceLoss
from synthmtl.losses.expression import ExpressionLoss
from synthmtl.losses.landmarks import LandmarkLoss


def task_losses(
    tasks: Iterable[str],
    table: FaceTable,
    *,
    class_weighted: bool = False,
    label_smoothing: float = 0.0,
    unit_weighted: bool = False,
    unit_threshold: float = 0.5,
    landmarks: Literal["wing", "l1"] = "wing",
) -> dict[str, nn.Module]:
    """A loss for each of ``tasks``, names of ``labels.TASKS``, for :class:`HeterogeneousLoss`.

    Args:
        tasks: names of ``labels.TASKS``.
        table: training faces, whose counts and prevalences weigh the labels.
        class_weighted: weigh expressions by their inverse frequency.
        label_smoothing: of expressions and compound expressions.
        unit_weighted: weigh the positive labels of rare action units.
        unit_threshold: intensity from which a unit counts as active there, see :func:`unit_prevalence`.
        landmarks: kind of :class:`LandmarkLoss`.
    """
    prevalence = unit_prevalence(table.action_units, unit_threshold).tolist() if unit_weighted else None
    counts = list(table.counts().values())
    makers = {
        "expression": lambda: ExpressionLoss(counts, label_smoothing=label_smoothing, class_weighted=class_weighted),
        "compound": lambda: ExpressionLoss(label_smoothing=label_smoothing),
        "action_units": lambda: ActionUnitLoss(prevalence),
        "landmarks": lambda: LandmarkLoss(landmarks),
        "valence_arousal": ConcordanceLoss,
    }
    return {task: makers[task]() for task in tasks}
