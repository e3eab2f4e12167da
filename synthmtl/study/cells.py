"""The cells of the grid: trained, measured and kept one by one; one that fails costs itself only."""

import json
import logging
import shutil
import time
import traceback

from safetensors.torch import load_file
from torch import Tensor

from synthmtl.experiment.workspace import Unit, write_json
from synthmtl.files import write_tensors
from synthmtl.models.inference import save_network
from synthmtl.study.config import Cell
from synthmtl.study.head_measures import measure_heads
from synthmtl.study.heads import TrainedHeads, train_heads
from synthmtl.study.job import StudyJob
from synthmtl.study.measures import measure
from synthmtl.study.tasks import is_editing
from synthmtl.study.training import Trained, train_cell

log = logging.getLogger("synthmtl")

FAILED = "failed.json"
"""In the folder of a cell that failed: what went wrong, in one line, and where."""


_CUT_OFF = "cut off: its process was killed, perhaps for lack of memory; --resume goes on with it"


def unit_of(job: StudyJob, cell: Cell) -> Unit:
    """The cell's folder."""
    return Unit(job.out, f"cells/{cell.name}")


def run_cell(job: StudyJob, cell: Cell) -> None:
    """Train and measure a cell that is not finished yet; an error is recorded in its folder and goes no further."""
    unit = unit_of(job, cell)
    if unit.result is not None:
        return
    # Stays if this process is killed.
    write_json(unit.directory / FAILED, {"error": _CUT_OFF})
    try:
        _run(job.of(cell), cell, unit)
        (unit.directory / FAILED).unlink()
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        write_json(unit.directory / FAILED, {"error": text, "traceback": traceback.format_exc()})
        log.error("Cell %s failed, the study goes on: %s", cell.name, text)


def _run(job: StudyJob, cell: Cell, unit: Unit) -> None:
    started = time.monotonic()
    trained: Trained | TrainedHeads
    if is_editing(job.config.tasks):
        trained = train_cell(job, cell, unit.directory)
        found, arrays = measure(job, cell, trained)
    else:
        trained = train_heads(job, cell, unit.directory)
        found, arrays = measure_heads(job, cell, trained)
    write_tensors(unit.directory / "arrays.safetensors", arrays)
    if job.config.measures.networks:
        for name, network in trained.kept().items():
            save_network(network, unit.directory / name)
    unit.finish(
        {
            **cell.as_dict(),
            "parameters": trained.parameters,
            "precision": job.accelerator.mixed_precision,
            "training_seconds": trained.seconds,
            "seconds": time.monotonic() - started,
            **found,
        }
    )
    for checkpoints in unit.directory.glob("*/checkpoints"):
        shutil.rmtree(checkpoints)


def is_left(job: StudyJob, cell: Cell) -> bool:
    """Whether a cell is neither finished nor recorded as failed."""
    unit = unit_of(job, cell)
    return unit.result is None and not (unit.directory / FAILED).is_file()


def cell_error(job: StudyJob, cell: Cell) -> str | None:
    """What went wrong with a cell, in one line; None if nothing did, or it did not run."""
    file = unit_of(job, cell).directory / FAILED
    return json.loads(file.read_text())["error"] if file.is_file() else None


def cell_arrays(job: StudyJob, cell: Cell) -> dict[str, Tensor]:
    """What :func:`measure` or :func:`measure_heads` gave of a finished cell, by name."""
    return load_file(unit_of(job, cell).directory / "arrays.safetensors")
