"""What is seen of long work while it runs: a bar on a terminal, otherwise a line of the log now and then."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger("synthmtl.progress")

PATIENCE = 5.0
"""Seconds after which work that may be short begins to say how far it is."""

T = TypeVar("T")

_place: int | None = None


def place_bars(place: int) -> None:
    """Show the bars of this process on the terminal's line ``place`` from 0, below those of the processes beside it.

    They share the terminal, so they must share a lock, too: ``tqdm.set_lock``.
    """
    global _place
    _place = place


class ProgressLine:
    """How much is done, how fast, and the time left. In a process group only the first process shows it.

    Args:
        total, done: in all, and before this call.
        description: in front.
        show: whether this process shows anything; nothing is shown where the log holds errors only.
        every: seconds between log lines.
        unit: what is counted.
        patience: seconds before anything is shown.
    """

    def __init__(
        self,
        total: int,
        done: int,
        description: str,
        show: bool = True,
        every: float = 30.0,
        *,
        unit: str = "step",
        patience: float = 0.0,
    ):
        self.total, self.first, self.done = total, done, done
        leads = int(os.environ.get("RANK", 0)) == 0
        self.show = show = show and leads and logger.isEnabledFor(logging.WARNING)
        self.description, self.every, self.unit = description or "training", every, unit
        self.started = self.said = time.monotonic()
        self.bar = None
        if self.show and sys.stderr.isatty():
            self.bar = tqdm(
                total=total, initial=done, desc=self.description, unit=f" {unit}s", leave=False, position=_place,
                delay=patience,
            )  # fmt: skip

    def advance(self, loss: float | None = None, *, count: int = 1) -> None:
        """``count`` more are done, with this loss if there is one."""
        self.done += count
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(count)
            if loss is not None and now - self.said >= 1:
                self.said = now
                self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        elif self.show and now - self.said >= self.every:
            self.said = now
            left = (self.total - self.done) * (now - self.started) / (self.done - self.first)
            at = "" if loss is None else f", loss {loss:.4f}"
            said = f"{self.description}: {self.unit} {self.done} of {self.total}{at}"
            logger.info("%s, about %s left", said, tqdm.format_interval(left))

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def shown(
    items: Iterable[T],
    description: str,
    *,
    unit: str,
    total: int | None = None,
    count: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """``items``, with the progress through them shown once it takes longer than :data:`PATIENCE`.

    Args:
        items: what is gone through.
        description: in front.
        unit: what is counted, as ``face``.
        total: how many there are; None = the number of items.
        count: as how many an item counts.

    Raises:
        TypeError: if neither ``total`` is given nor the items can be counted beforehand.
    """
    if total is None:
        if not isinstance(items, Sized):
            raise TypeError("how many items there are cannot be seen: give total")
        total = len(items)
    line = ProgressLine(total, 0, description, unit=unit, patience=PATIENCE)
    try:
        for item in items:
            yield item
            line.advance(count=count(item))
    finally:
        line.close()
