"""The interference study: a grid of sharing units, aggregators, nuisance correlations and seeds."""

from synthmtl.study.config import (
    PUBLISHED_UNITS,
    Cell,
    Condition,
    EditOptions,
    Grid,
    MeasureOptions,
    StudyConfig,
    preset,
)
from synthmtl.study.run import run_study

__all__ = [
    "PUBLISHED_UNITS",
    "Cell",
    "Condition",
    "EditOptions",
    "Grid",
    "MeasureOptions",
    "StudyConfig",
    "preset",
    "run_study",
]
