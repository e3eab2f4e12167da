"""Independent parts of a run side by side, in processes of their own.

The networks of the ``cpu`` size are so small that two threads on one network idle a third of the time; two networks on
a thread each do not. Every part writes its own folder, so that nothing but finished folders comes back.
"""

import dataclasses
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm import tqdm

from synthmtl.errors import InputError
from synthmtl.experiment.stages import AnyJob
from synthmtl.progress import place_bars
from synthmtl.training import build_accelerator

log = logging.getLogger("synthmtl")
progress = logging.getLogger("synthmtl.progress")

Call = tuple[str, Callable[..., Any], dict[str, Any]]
"""A name for the log, a function whose first argument is the job, and its further arguments."""

_job: AnyJob | None = None


class WorkerKilled(InputError):
    """A worker ended without a word; the others end with it."""

    def __init__(self) -> None:
        super().__init__(
            "a worker process was killed, perhaps for lack of memory: give fewer --workers; --resume goes on with what "
            "is unfinished"
        )


class Workers:
    """Processes that run calls for one job; a context manager, since they live until it is left.

    Args:
        job: what every call gets as its first argument.
        wanted: how many; None = one a core up to four. On accelerators, and where several processes train together,
            there is one, this process. They share the cores as threads, on whose number a training's rounding depends.
    """

    def __init__(self, job: AnyJob, wanted: int | None = None):
        alone = job.accelerator.num_processes > 1 or job.accelerator.device.type != "cpu"
        self.job = job
        self.count = 1 if alone else wanted or max(1, min(4, os.cpu_count() or 1))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._pool is None:
            return
        if kind is not None:
            # What has been handed out already cannot be cancelled, and would be trained to its end.
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run every call and return their results in order; a single one, or one worker, runs in this process.

        Raises:
            WorkerKilled: if the system ended one of the processes; the others end, too.
            Exception: the first that a call raises; finished parts stay finished.
        """
        if self.count == 1 or len(calls) < 2:
            return [function(self.job, **arguments) for _, function, arguments in calls]
        results: list[Any] = [None] * len(calls)
        pool = self._started()
        waiting = {pool.submit(_call, function, arguments): i for i, (_, function, arguments) in enumerate(calls)}
        for done, future in enumerate(as_completed(waiting), start=1):
            try:
                results[waiting[future]] = future.result()
            except BrokenProcessPool:
                raise WorkerKilled from None
            log.info("%s finished (%d of %d)", calls[waiting[future]][0], done, len(calls))
        return results

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: a fork would inherit the locks of torch's thread pools without their threads.
            context = multiprocessing.get_context("spawn")
            shared = (
                dataclasses.replace(self.job, accelerator=None),  # an accelerator belongs to its process
                max(1, (os.cpu_count() or 1) // self.count),
                context.Value("i", 0),
                context.RLock(),
                progress.isEnabledFor(logging.WARNING),  # only --quiet sets it higher
            )
            self._pool = ProcessPoolExecutor(self.count, context, initializer=_start, initargs=shared)
        return self._pool


def _start(job: AnyJob, threads: int, started: Any, terminal: Any, shown: bool) -> None:
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, too, and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    tqdm.set_lock(terminal)
    with started.get_lock():
        place_bars(started.value)
        started.value += 1
    # Of the log, the parent has said or will say all but how far trainings are.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    progress.setLevel(logging.INFO if shown else logging.ERROR)
    job.accelerator = build_accelerator(
        precision=job.config.precision, log_dir=job.out / "tracking", tracker=job.config.tracker
    )
    _job = job


def _end_with_parent() -> None:
    """Stop at once when the process that runs the job is gone; a resumed job would train the same parts again."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return function(_job, **arguments)
