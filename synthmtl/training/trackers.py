"""Trackers of experiments, by the names that accelerate gives them.

They stay on this machine: what a tracker must be told for that is told, unless the user's environment says otherwise.
"""

import importlib.util
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from PIL import Image

from synthmtl.errors import InputError

NONE = "none"
TRACKERS = tuple(sorted(str(name) for name in LOGGER_TYPE_TO_CLASS))
"""Names of trackers; :data:`NONE` is the name of having none."""


def check_tracker(name: str) -> list[str]:
    """The name as ``build_accelerator`` takes it; empty for :data:`NONE`.

    Raises:
        InputError: if there is no tracker of that name, or its package is not installed.
    """
    if name == NONE:
        return []
    if name not in TRACKERS:
        raise InputError(f"unknown tracker {name!r}: use one of {', '.join((NONE, *TRACKERS))}")
    if importlib.util.find_spec(name) is None:
        raise InputError(f"tracker {name} is not installed: pip install {name.replace('_', '-')}, or use tensorboard")
    return [name]


def stay_offline(name: str, log_dir: Path, environment: MutableMapping[str, str] | None = None) -> None:
    """Tell a tracker by environment variables to write into ``log_dir`` and to ask no server; those set are kept.

    ``tensorboard``, ``aim``, ``dvclive`` and ``trackio`` write locally as they are; of ``comet_ml`` see
    :func:`tracker_options`.
    """
    environment = os.environ if environment is None else environment
    wanted = {
        "wandb": {"WANDB_MODE": "offline", "WANDB_DIR": str(log_dir)},
        "swanlab": {"SWANLAB_MODE": "offline"},
        "clearml": {"CLEARML_OFFLINE_MODE": "1"},
        "mlflow": {"MLFLOW_TRACKING_URI": (log_dir / "mlruns").resolve().as_uri()},
    }
    for variable, value in wanted.get(name, {}).items():
        environment.setdefault(variable, value)


def tracker_options(name: str) -> dict[str, dict]:
    """``init_kwargs`` of ``accelerator.init_trackers``."""
    return {name: {"online": False}} if name == "comet_ml" and "COMET_START_ONLINE" not in os.environ else {}


def track_images(accelerator: Accelerator, images: Mapping[str, Path], *, name: str = "report") -> None:
    """Show picture files in the trackers that take pictures, as a run of that name; from the main process.

    Args:
        accelerator: with the trackers of ``build_accelerator``.
        images: title → PNG file.
        name: of the run.
    """
    if not accelerator.log_with:
        return
    start_trackers(accelerator, name)
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            pixels = {title: np.asarray(Image.open(file).convert("RGB"))[None] for title, file in images.items()}
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images(pixels, step=0, **layout)
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []


def start_trackers(accelerator: Accelerator, name: str) -> None:
    """Start the accelerator's trackers for a run."""
    accelerator.trackers = []
    options = {k: v for tracker in accelerator.log_with for k, v in tracker_options(str(tracker)).items()}
    accelerator.init_trackers(name, init_kwargs=options)
