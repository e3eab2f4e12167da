"""Losses: small callables, and the objectives that put them together."""

from synthmtl.losses.expression import ExpressionLoss
from synthmtl.losses.fersnet import CriticObjective, FERSNetObjective, RecognitionObjective, SynthesisWeights

__all__ = ["CriticObjective", "ExpressionLoss", "FERSNetObjective", "RecognitionObjective", "SynthesisWeights"]
