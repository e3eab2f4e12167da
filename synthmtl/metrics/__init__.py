"""Measures of recognition, of generation, and of what a comparison is worth."""

from synthmtl.metrics.comparison import Comparison, GapShare, compare_paired, minority_classes, share_of_gap
from synthmtl.metrics.recognition import METRICS, RecognitionResult, bootstrap_intervals, recognition_metrics

__all__ = [
    "METRICS",
    "Comparison",
    "GapShare",
    "RecognitionResult",
    "bootstrap_intervals",
    "compare_paired",
    "minority_classes",
    "recognition_metrics",
    "share_of_gap",
]
