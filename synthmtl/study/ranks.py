"""Cells dealt out to the processes of a launcher: each trains whole cells on its own, so that none waits for another.

The launcher's key-value store is all that they share: a counter deals out the cells, one after the other, to whoever is
free. The first process opens the folder and writes the report.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch.distributed import Store, rendezvous

from synthmtl.errors import InputError

T = TypeVar("T")
_PATIENCE = timedelta(days=30)
_OWN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class Ranks:
    """The processes of a launcher, or this one alone.

    Attributes:
        rank, world: number of this process, and of all.
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Store | None = None):
        self.rank, self.world, self._store = rank, world, store
        self._firsts = self._gathers = 0

    def first(self, call: Callable[[], object]) -> None:
        """Run ``call`` in the first process while the others wait for it.

        Raises:
            InputError: what ``call`` raises, in every process.
        """
        if self._store is None:
            call()
            return
        self._firsts += 1
        key = f"first {self._firsts}"
        if self.rank == 0:
            try:
                call()
            except InputError as error:
                self._store.set(key, str(error))
                raise
            self._store.set(key, "")
        else:
            self._store.wait([key], _PATIENCE)
            said = self._store.get(key).decode()
            if said:
                raise InputError(said)

    def gather(self, text: str) -> list[str]:
        """The texts of all processes, in the order of their ranks; every process must call."""
        if self._store is None:
            return [text]
        self._gathers += 1
        keys = [f"gather {self._gathers} of {rank}" for rank in range(self.world)]
        self._store.set(keys[self.rank], text)
        self._store.wait(keys, _PATIENCE)
        return [self._store.get(key).decode() for key in keys]

    def deal(self, items: Sequence[T]) -> Iterator[T]:
        """The items that fall to this process, as it asks for them."""
        if self._store is None:
            yield from items
            return
        while (position := self._store.add("dealt", 1) - 1) < len(items):
            yield items[position]

    def wait(self) -> None:
        """Wait, in the first process, until all have come here."""
        if self._store is not None:
            self._store.add("done", 1)
            while self.rank == 0 and self._store.add("done", 0) < self.world:
                time.sleep(0.5)


@contextmanager
def launched() -> Iterator[Ranks]:
    """The launcher's processes; within it each of them counts as alone, on a device of its own."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        yield Ranks()
        return
    store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    own = {name: os.environ.pop(name) for name in _OWN if name in os.environ}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(own.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    try:
        yield Ranks(rank, world, torch.distributed.PrefixStore("study", store))
    finally:
        os.environ.update(own)
