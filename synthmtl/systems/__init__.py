"""Recipes of the multi-task systems: mixtures of data sets, rows of a table, scores of every label."""

from synthmtl.systems.cells import System
from synthmtl.systems.config import Source, SystemModel, SystemOptions
from synthmtl.systems.objectives import LossOptions, build_objective
from synthmtl.systems.run import run_system

__all__ = ["LossOptions", "Source", "System", "SystemModel", "SystemOptions", "build_objective", "run_system"]
