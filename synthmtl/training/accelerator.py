"""One way to build the Accelerator, for every command and recipe."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, gather_object

from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.training.allocator import keep_freed_memory
from synthmtl.training.trackers import check_tracker, stay_offline

logger = logging.getLogger(__name__)

Precision = Literal["auto", "no", "bf16", "fp16"]

_BF16 = ("avx512_bf16", "amx_bf16")
"""Instructions with which a processor computes in bf16."""

_EMULATED = (
    "this processor has no bf16 instructions: emulating them is slower than float32, often many times; "
    "take precision auto"
)

_SUPPORTED = {
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
    DistributedType.MULTI_MLU,
    DistributedType.MULTI_MUSA,
    DistributedType.MULTI_NPU,
}

# What DDP says of every training of ours and nobody can act on: accelerate gives an argument under its former name, and
# the gradients of 1×1 kernels kept in channels_last have strides that mean the same as those of its buckets.
_SAID_OF_ALL = ("`broadcast_buffers` is deprecated", "Grad strides do not match bucket view strides")

_ALONE = (
    "the environment announces {launched} processes (WORLD_SIZE) but {found} would train together; "
    "start with `accelerate launch --multi_gpu --num_processes N` or `torchrun --nproc_per_node N`"
)


def resolve_precision(precision: str) -> str:
    """``auto`` as bf16 where the hardware computes in it (CUDA; CPUs with avx512_bf16 or amx_bf16), else as ``no``."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if torch.accelerator.is_available():
        return "no"
    return "bf16" if any(_capabilities().get(name) for name in _BF16) else "no"


def _capabilities() -> dict[str, Any]:
    """What the processor has by name; nothing in older releases of torch, which cannot tell."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def _warn_of_emulation(precision: str) -> None:
    """Say so where bf16 was asked for and the processor makes it up, operation by operation."""
    known = _capabilities()
    if precision == "bf16" and known.get("architecture") == "x86_64" and not any(known.get(name) for name in _BF16):
        logger.warning(_EMULATED)


def build_accelerator(
    *,
    precision: str = "no",
    accumulation: int = 1,
    log_dir: Path | str | None = None,
    tracker: str = "tensorboard",
) -> Accelerator:
    """The Accelerator of this process: on the CPU whenever there is no accelerator hardware, with DDP if launched so.

    Several CPU processes are started by ``accelerate launch --multi_gpu --num_processes N`` or ``torchrun
    --nproc_per_node N``; each gets its share of the machine's cores unless ``OMP_NUM_THREADS`` says otherwise.

    Args:
        precision: of the forward passes; ``auto`` as in :func:`resolve_precision`.
        accumulation: micro-steps per optimizer step.
        log_dir: where the tracker writes; without it there is none.
        tracker: one of ``trackers.TRACKERS``, or ``none``; it asks no server unless its environment variables say so.

    Raises:
        InputError: if the launcher's processes would not train together, the precision or engine is not supported, or
            the tracker is unknown or not installed.
    """
    precision = resolve_precision(precision)
    if precision not in ("no", "bf16", "fp16"):
        raise InputError(f"precision must be auto, no, bf16 or fp16, not {precision!r}")
    launched = int(os.environ["WORLD_SIZE"]) if "WORLD_SIZE" in os.environ else None
    if launched is not None and launched > 1 and not os.environ.keys() >= {"RANK", "LOCAL_RANK", "MASTER_ADDR"}:
        raise InputError(_ALONE.format(launched=launched, found=1))
    trackers = check_tracker(tracker) if log_dir is not None else []
    for name in trackers:
        assert log_dir is not None  # without it there are no trackers
        stay_offline(name, Path(log_dir))
    on_cpu = not torch.accelerator.is_available()
    if precision == "fp16" and on_cpu:
        raise InputError("precision fp16 needs a GPU; choose bf16 or no")
    state = AcceleratorState._shared_state
    if state and state.get("_mixed_precision") != precision:
        # The state is shared by all accelerators of a process, and refuses another precision than the first one's.
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        gradient_accumulation_steps=accumulation,
        log_with=trackers or None,
        project_dir=log_dir,
        # Buffers are kept equal by the models themselves; a player may leave parts of its objective unused in a step.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)],
    )
    if launched not in (None, accelerator.num_processes):
        raise InputError(_ALONE.format(launched=launched, found=accelerator.num_processes))
    if accelerator.num_processes > 1:
        for message in _SAID_OF_ALL:
            warnings.filterwarnings("ignore", message=message)
    if accelerator.distributed_type not in _SUPPORTED:
        raise InputError(f"training runs on one process or DDP, not {accelerator.distributed_type}; change the launch")
    if accelerator.device.type == "cpu":
        keep_freed_memory()
        if accelerator.is_main_process:
            _warn_of_emulation(precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    # torchrun sets 1 where nothing was asked for, which idles most of a large machine.
    if accelerator.device.type == "cpu" and local > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, _cores() // local))
    return accelerator


def check_same_data(accelerator: Accelerator, tables: Mapping[str, FaceTable]) -> None:
    """Compare the faces and labels that the processes have read, which they would train on as if they were the same.

    Args:
        accelerator: of this process; every process must call.
        tables: by split.

    Raises:
        InputError: in every process, if one of them has other data; names the first split that differs.
    """
    if accelerator.num_processes > 1:
        refuse_other_data(gather_object([fingerprints(tables)]))


def fingerprints(tables: Mapping[str, FaceTable]) -> dict[str, str]:
    """What :func:`refuse_other_data` compares of what a process has read: {split: its faces and labels in short}."""
    return {name: f"{len(table)} {table.fingerprint()}" for name, table in tables.items()}


def refuse_other_data(everyone: Sequence[Mapping[str, str]]) -> None:
    """Compare the :func:`fingerprints` of all processes, in the order of their ranks.

    Raises:
        InputError: if one of them has other data; names the first split that differs.
    """
    for name in everyone[0]:
        found = [each.get(name) for each in everyone]
        if any(one != found[0] for one in found):
            differs = ", ".join(str(rank) for rank, one in enumerate(found) if one != found[0])
            raise InputError(
                f"process {differs} of {len(found)} has read other {name} faces than process 0: give all processes the "
                "same files in the same place, and the same version of every library"
            )


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
