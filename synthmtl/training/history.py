"""What a run leaves to be read: ``losses.jsonl`` and the trackers' curves."""

import json
import math
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from synthmtl.files import write_text
from synthmtl.training.trackers import start_trackers


def read_history(path: Path | str) -> list[dict[str, Any]]:
    """The records of a ``losses.jsonl``, oldest first; a last line that was cut off is left out.

    A record holds ``step`` and either ``losses`` {name: mean since the record before}, ``learning_rate``,
    ``images_per_second``, or ``evaluation`` {metric: value}.
    """
    path = Path(path)
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class History:
    """The append-only log of a run: one JSON line per record, and the same numbers to the trackers.

    Args:
        path: of ``losses.jsonl``; None = in memory only.
        accelerator: only its main process writes.
        name: of the run, for the trackers.
    """

    def __init__(self, path: Path | None, accelerator: Accelerator, name: str):
        self.path = path
        self.accelerator = accelerator
        self.records: list[dict[str, Any]] = []
        if accelerator.log_with:
            start_trackers(accelerator, name or "training")

    def rewind(self, step: int) -> None:
        """Keep the records up to ``step``, those of the checkpoint that a run resumes from."""
        if self.path is None:
            return
        self.records = [record for record in read_history(self.path) if record["step"] <= step]
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.records))

    def add(self, step: int, **values: Any) -> None:
        """Append a record; numbers that are not finite are written as null."""
        record = {"step": step, **{name: _plain(value) for name, value in values.items()}}
        self.records.append(record)
        if self.path is not None and self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        if self.accelerator.log_with:
            curves = {k: v for value in values.values() if isinstance(value, dict) for k, v in value.items()}
            scalars = {name: value for name, value in values.items() if not isinstance(value, dict)}
            self.accelerator.log(curves | scalars, step=step)

    def close(self) -> None:
        """Let the trackers write what they hold."""
        for tracker in self.accelerator.trackers if self.accelerator.log_with else ():
            tracker.finish()


class Means:
    """Means of named numbers since the last :meth:`take`; a number that is NaN does not count.

    Attributes:
        sums: {name: [sum, count]}, what a checkpoint keeps.
    """

    def __init__(self, sums: dict[str, list[float]] | None = None):
        self.sums = sums or {}
        self._steps, self._since = 0, time.monotonic()

    def add(self, values: dict[str, float]) -> None:
        """Count one more value of each name."""
        self._steps += 1
        for name, value in values.items():
            total = self.sums.setdefault(name, [0.0, 0])
            if not math.isnan(value):
                total[0] += value
                total[1] += 1

    def take(self) -> dict[str, float]:
        """The means, NaN where there was no number; counting starts anew."""
        means = {name: total / count if count else math.nan for name, (total, count) in self.sums.items()}
        self.sums, self._steps, self._since = {}, 0, time.monotonic()
        return means

    def steps_per_second(self) -> float:
        """How often :meth:`add` was called per second since the last :meth:`take` of this call."""
        return self._steps / max(time.monotonic() - self._since, 1e-9)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
