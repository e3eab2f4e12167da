"""What is seen of a training while it runs."""

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger("synthmtl.progress")

_place: int | None = None


def place_bars(place: int) -> None:
    """Show the bars of this process on the terminal's line ``place`` from 0, below those of the processes beside it.

    They share the terminal, so they must share a lock, too: ``tqdm.set_lock``.
    """
    global _place
    _place = place


class ProgressLine:
    """Steps done and time left: a bar on a terminal, otherwise a log line now and then.

    Args:
        total, done: steps in all, and before this call.
        description: in front of the bar.
        show: whether this process shows anything; nothing is shown where the log holds errors only.
        every: seconds between log lines.
    """

    def __init__(self, total: int, done: int, description: str, show: bool, every: float = 30.0):
        self.total, self.first, self.done = total, done, done
        self.show = show = show and logger.isEnabledFor(logging.WARNING)
        self.description, self.every = description or "training", every
        self.started = self.said = time.monotonic()
        self.bar = None
        if show and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=self.description, unit="step", leave=False, position=_place)

    def advance(self, loss: float) -> None:
        """One more step is done, with this loss."""
        self.done += 1
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update()
            if now - self.said >= 1:
                self.said = now
                self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        elif self.show and now - self.said >= self.every:
            self.said = now
            left = (self.total - self.done) * (now - self.started) / (self.done - self.first)
            said = f"{self.description}: step {self.done} of {self.total}, loss {loss:.4f}"
            logger.info("%s, about %s left", said, tqdm.format_interval(left))

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
