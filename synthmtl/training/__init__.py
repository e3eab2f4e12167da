"""Training: accelerator, checkpoints, the loop."""

from synthmtl.training.accelerator import (
    build_accelerator,
    check_same_data,
    fingerprints,
    refuse_other_data,
    resolve_precision,
)
from synthmtl.training.aggregation import AGGREGATORS
from synthmtl.training.checkpoint import fingerprint, latest, load_checkpoint, save_checkpoint
from synthmtl.training.config import TrainingConfig, check_part, check_seed, learning_rate_factor
from synthmtl.training.history import History, read_history
from synthmtl.training.loop import DivergedError, FitResult, fit
from synthmtl.training.turns import Player

__all__ = [
    "AGGREGATORS",
    "DivergedError",
    "FitResult",
    "History",
    "Player",
    "TrainingConfig",
    "build_accelerator",
    "check_part",
    "check_same_data",
    "check_seed",
    "fingerprints",
    "refuse_other_data",
    "fingerprint",
    "fit",
    "latest",
    "learning_rate_factor",
    "load_checkpoint",
    "read_history",
    "resolve_precision",
    "save_checkpoint",
]
