"""Measures of recognition, of the other tasks, of generation, and of what a comparison is worth."""

from synthmtl.metrics.action_units import ActionUnitResult, action_unit_metrics
from synthmtl.metrics.affect import AffectResult, affect_metrics
from synthmtl.metrics.comparison import Comparison, GapShare, compare_paired, minority_classes, share_of_gap
from synthmtl.metrics.landmarks import LandmarkResult, landmark_metrics
from synthmtl.metrics.multitask import HEADLINES, Headline, compare_tasks, task_intervals, task_metrics
from synthmtl.metrics.recognition import METRICS, RecognitionResult, bootstrap_intervals, recognition_metrics

__all__ = [
    "HEADLINES",
    "METRICS",
    "ActionUnitResult",
    "AffectResult",
    "Comparison",
    "GapShare",
    "Headline",
    "LandmarkResult",
    "RecognitionResult",
    "action_unit_metrics",
    "affect_metrics",
    "bootstrap_intervals",
    "compare_paired",
    "compare_tasks",
    "landmark_metrics",
    "minority_classes",
    "recognition_metrics",
    "share_of_gap",
    "task_intervals",
    "task_metrics",
]
