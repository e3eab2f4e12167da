"""Measures over training: looks at every N-th step, kept in memory and, for a run that may be killed, in a file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed

from synthmtl.errors import InputError
from synthmtl.exchange import several_processes


class Recorder:
    """What every recorder has in common. None of them changes what it looks at: training goes on as without it.

    In half precision it may round differently at a look: sharing units that are looked into run uncompiled.

    Args:
        every: steps between two looks, from step 0.

    Attributes:
        records: plain JSON types, one or several of a look, each with its ``step``.
    """

    def __init__(self, every: int):
        if every < 1:
            raise InputError(f"every must be at least 1 step, not {every}")
        self.every = every
        self.records: list[dict[str, Any]] = []
        self._file: Path | None = None

    def due(self, step: int) -> bool:
        """Whether to look at ``step``; not at one that comes again, as in another player's turn on the same batches."""
        seen = bool(self.records) and self.records[-1]["step"] >= step
        return step % self.every == 0 and not seen

    def keep(self, records: Sequence[dict[str, Any]]) -> None:
        """Add the records of a look."""
        self.records += records
        self._write(records, "a")

    def keep_in(self, file: Path, *, before: int = 0) -> None:
        """From now on write records to a file of JSON lines too, going on with what an interrupted run left in it.

        Every process of a group must call it; all read, and the first one writes.

        Args:
            file: need not exist; its records from step ``before`` on, which a resumed run repeats, are forgotten.
            before: the step at which training goes on.
        """
        self._file = file
        lines = file.read_text().splitlines() if file.is_file() else []
        self.load_state({"records": [json.loads(line) for line in lines if line.endswith("}")]}, before=before)
        if several_processes():
            torch.distributed.barrier()  # all have read
        file.parent.mkdir(parents=True, exist_ok=True)
        self._write(self.records, "w")

    def state(self) -> dict[str, Any]:
        """The history in plain JSON types, for a checkpoint or a report."""
        return {"every": self.every, "records": [dict(record) for record in self.records]}

    def load_state(self, state: Mapping[str, Any], *, before: int | None = None) -> None:
        """Go on from a :meth:`state`, forgetting looks from step ``before`` on, which a resumed run repeats."""
        kept = [record for record in state["records"] if before is None or record["step"] < before]
        self.records = [dict(record) for record in kept]

    def _write(self, records: Sequence[dict[str, Any]], mode: str) -> None:
        if self._file is not None and not (several_processes() and torch.distributed.get_rank()):
            with self._file.open(mode) as file:
                file.writelines(json.dumps(record) + "\n" for record in records)


def step_of(batch: Any) -> int:
    """The number of the micro-step, which an ``EditBatch`` knows."""
    return batch.random.step
