"""Independent parts of a run side by side, in processes of their own.

The networks of the ``cpu`` size are so small that two threads on one network idle a third of the time; two networks on
a thread each do not. Every part writes its own folder, so that nothing but finished folders comes back.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from synthmtl.experiment.stages import Job
from synthmtl.training import build_accelerator

log = logging.getLogger("synthmtl")

Call = tuple[str, Callable[..., Any], dict[str, Any]]
"""A name for the log, a function whose first argument is the job, and its further arguments."""

_job: Job | None = None


def worker_count(wanted: int | None, job: Job) -> int:
    """How many workers: as wanted, or one a core up to four on the CPU, one on accelerators and under a launcher."""
    if job.accelerator.num_processes > 1 or job.accelerator.device.type != "cpu":
        return 1
    return wanted or max(1, min(4, os.cpu_count() or 1))


def run_calls(job: Job, calls: Sequence[Call], *, workers: int) -> list[Any]:
    """Run every call and return their results in order.

    Args:
        workers: processes; 1 runs the calls one after the other in this one.

    Raises:
        Exception: the first that a call raises; finished parts stay finished.
    """
    if workers == 1 or len(calls) < 2:
        return [function(job, **arguments) for _, function, arguments in calls]
    shared = (job.config, job.out, job.splits, job.render, max(1, (os.cpu_count() or 1) // workers))
    results: list[Any] = [None] * len(calls)
    # Spawned, not forked: a fork would inherit the locks of torch's thread pools without their threads.
    pool = ProcessPoolExecutor(
        min(workers, len(calls)), multiprocessing.get_context("spawn"), initializer=_start, initargs=shared
    )
    try:
        waiting = {pool.submit(_call, function, arguments): i for i, (_, function, arguments) in enumerate(calls)}
        for done, future in enumerate(as_completed(waiting), start=1):
            results[waiting[future]] = future.result()
            log.info("%s finished (%d of %d)", calls[waiting[future]][0], done, len(calls))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _start(config: Any, out: Any, splits: Any, render: Any, threads: int) -> None:
    global _job
    torch.set_num_threads(threads)
    accelerator = build_accelerator(precision=config.precision, log_dir=out / "tracking")
    _job = Job(config, out, splits, accelerator, render, progress=False)


def _call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return function(_job, **arguments)
