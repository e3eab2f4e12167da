"""Losses: small callables, and the objectives that put them together."""

from synthmtl.losses.action_units import ActionUnitLoss, unit_prevalence
from synthmtl.losses.affect import ConcordanceLoss, concordance
from synthmtl.losses.association import AssociationLoss, warm_up
from synthmtl.losses.diffusion import DenoisingOptions, DiffusionObjective
from synthmtl.losses.expression import ExpressionLoss
from synthmtl.losses.fersnet import CriticObjective, FERSNetObjective, RecognitionObjective, SynthesisWeights
from synthmtl.losses.heterogeneous import FaceLoss, HeterogeneousLoss
from synthmtl.losses.landmarks import LandmarkLoss, wing
from synthmtl.losses.multitask import MultiTaskObjective
from synthmtl.losses.tasks import task_losses

__all__ = [
    "ActionUnitLoss",
    "AssociationLoss",
    "ConcordanceLoss",
    "CriticObjective",
    "DenoisingOptions",
    "DiffusionObjective",
    "ExpressionLoss",
    "FERSNetObjective",
    "FaceLoss",
    "HeterogeneousLoss",
    "LandmarkLoss",
    "MultiTaskObjective",
    "RecognitionObjective",
    "SynthesisWeights",
    "concordance",
    "unit_prevalence",
    "task_losses",
    "warm_up",
    "wing",
]
