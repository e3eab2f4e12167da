"""What the processes of a training tell each other, without the way through ``torch.distributed`` where that is slow.

Collective operations of ``torch.distributed`` on the CPU pass a message on from thread to thread, each of which waits
for a core while all of them compute: milliseconds for a few hundred bytes. Processes of one machine read each other's
numbers from memory that they share instead, in microseconds.
"""

import logging
import os
import platform
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from synthmtl.native import load_functions

SOURCE = Path(__file__).with_name("exchange.cpp")

logger = logging.getLogger(__name__)

CAPACITY = 8192
"""Numbers that a message may have: two per channel of the widest features."""

PARCEL = 2**18
"""Numbers that go through memory at once where there are more."""

SPIN = 1e-4
"""Seconds for which a process looks for an answer without pause: processes that compute the same are soon as far."""

ATTEMPT = 0.05
"""Seconds of waiting after which a process sees whether it is to stop."""

ORDERED = platform.machine() in ("x86_64", "AMD64")
"""Whether other processors see what this one writes in the order in which it does, see :meth:`Mailbox.average`."""

PATIENCE = 1800.0
"""Seconds after which a process that does not answer is given up, as in ``torch.distributed``."""


class Mailbox:
    """An exchange of float32 numbers between all processes that have mapped the same file.

    Each process has two places, used in turn: who writes a place again knows that the others have answered the message
    between, after they had read this one. A number and that of its round are one word of eight bytes, which processors
    write at once, so that a number is never taken for one of another round.

    Args:
        path: a file of :meth:`size` bytes of zeros, which may be removed once all have mapped it.
        rank, processes: this process's number, and how many there are.
    """

    def __init__(self, path: Path | str, rank: int, processes: int):
        mapped = np.memmap(path, np.int64, "r+", shape=(self.size(processes) // 8,))
        words = mapped.view(np.ndarray)  # whose every part is not another map: a third of a message's time
        letters, parcels = np.split(words, [2 * processes * CAPACITY])
        self.places = letters.reshape(2, processes, CAPACITY)
        self.letters = torch.from_numpy(self.places)
        self.parcels = torch.from_numpy(parcels.view(np.float32)).view(2, processes, PARCEL)
        self.rank = rank
        self.round = self.sent = 0

    @staticmethod
    def size(processes: int) -> int:
        """Bytes of the file."""
        return 4 * 2 * processes * (CAPACITY * 2 + PARCEL)

    def gather(self, mine: Tensor) -> Tensor:
        """Every process's numbers (processes, N), given this one's (N,) float32; all must call it.

        Raises:
            TimeoutError: if a process does not answer.
        """
        self.round = self.round % (2**31 - 2) + 1
        since, exchange = time.monotonic(), self._exchange if load_functions(SOURCE) else self._exchange_plainly
        while (read := exchange(mine.detach())) is None:
            if time.monotonic() - since > PATIENCE:
                raise TimeoutError(f"a process has not answered for {PATIENCE:.0f} s")
        return read

    def _exchange(self, mine: Tensor) -> Tensor | None:
        """One attempt, which may be repeated: the same letter is written again."""
        read = torch.ops.synthmtl.exchange(self.letters, self.rank, self.round, mine, SPIN, ATTEMPT)
        return read if len(read) else None

    def _exchange_plainly(self, mine: Tensor) -> Tensor | None:
        # NumPy's operations, not torch's: on so few numbers each takes a third of the time.
        places = self.places[self.round % 2, :, : len(mine)]
        words = np.empty((len(mine), 2), np.int32)
        words[:, 0] = self.round
        words[:, 1] = mine.numpy().view(np.int32)
        places[self.rank] = words.view(np.int64)[:, 0]
        since = time.monotonic()
        while (waited := time.monotonic() - since) < ATTEMPT:
            read = places.copy().view(np.int32).reshape(len(places), -1, 2)
            if (read[..., 0] == self.round).all():
                return torch.from_numpy(read[..., 1].copy().view(np.float32))
            if waited < SPIN:
                os.sched_yield()
            else:
                time.sleep(min(max(waited / 16, 1e-5), 1e-3))
        return None

    def average(self, mine: Tensor) -> None:
        """Make ``mine``, (N,) float32 of any length, the mean over the processes, in place; all must call it.

        The letter that follows says that the numbers are there, which holds where writes are seen in order.

        Raises:
            TimeoutError: if a process does not answer.
        """
        for part in mine.split(PARCEL):
            self.sent += 1
            places = self.parcels[self.sent % 2, :, : len(part)]
            places[self.rank].copy_(part)
            self.gather(torch.zeros(1))
            torch.mean(places, 0, out=part)


_mailboxes: "WeakKeyDictionary[dist.ProcessGroup, Mailbox | None]" = WeakKeyDictionary()


def mailbox() -> Mailbox | None:
    """The mailbox of all processes, None if they do not share memory; the first call must be one of all processes."""
    group = dist.group.WORLD
    assert group is not None  # there is one wherever several processes train
    if group not in _mailboxes:
        _mailboxes[group] = _open()
    return _mailboxes[group]


def _open() -> Mailbox | None:
    rank, processes = dist.get_rank(), dist.get_world_size()
    path, full, found = None, True, None
    if rank == 0 and hasattr(os, "posix_fallocate") and hasattr(os, "sched_yield"):
        shared = Path("/dev/shm")
        try:
            with tempfile.NamedTemporaryFile(dir=shared if shared.is_dir() else None, delete=False) as file:
                path = file.name
                os.posix_fallocate(file.fileno(), 0, Mailbox.size(processes))  # of zeros, and there for sure
            full = False
        except OSError as error:
            logger.debug("no memory to share: %s", error)
    told: list = [(socket.gethostname(), None if full else path)]
    dist.broadcast_object_list(told)
    host, shared_path = told[0]
    try:
        if shared_path is not None and host == socket.gethostname():
            found = Mailbox(shared_path, rank, processes)
    except (OSError, RuntimeError) as error:
        logger.debug("no memory to share: %s", error)
    everyone: list = [None] * processes
    dist.all_gather_object(everyone, found is not None)
    if path is not None:
        os.unlink(path)
    return found if all(everyone) else None


def process_count() -> int:
    """How many processes train together with this one, itself included."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def several_processes() -> bool:
    """Whether this process trains together with others."""
    return process_count() > 1


def _mailbox_for(x: Tensor) -> Mailbox | None:
    return mailbox() if x.device.type == "cpu" and x.dtype == torch.float32 else None


def gathered(x: Tensor) -> Tensor:
    """Every process's ``x``, stacked (processes, ...) in the order of the processes; all must call it."""
    box = _mailbox_for(x) if x.numel() <= CAPACITY else None
    if box is not None:
        return box.gather(x.reshape(-1)).view(-1, *x.shape)
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(process_count())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


def process_mean(x: Tensor) -> Tensor:
    """Mean of ``x`` over the processes, the same to the bit in all; all must call it. One process gets its own back."""
    if not several_processes():
        return x
    if x.numel() <= CAPACITY:
        return gathered(x).mean(0)
    box = _mailbox_for(x) if ORDERED else None
    total = x.clone(memory_format=torch.contiguous_format)
    if box is not None:
        box.average(total.view(-1))
        return total
    dist.all_reduce(total)
    return total / process_count()


def averages_in_memory(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether :func:`average_gradients` serves these; all processes must ask, of the same parameters."""
    served = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in parameters)
    return several_processes() and ORDERED and served and len(parameters) <= CAPACITY and mailbox() is not None


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Make every gradient its mean over the processes, in place, through shared memory; all must call it.

    A gradient that only some processes have counts as zero in the others; what none has stays None. Instead of
    ``DistributedDataParallel``, whose bookkeeping and collective operations take longer than a small network's step.
    """
    box = mailbox()
    assert box is not None  # see averages_in_memory
    mine = [float(p.grad is not None) for p in parameters]
    reached = box.gather(torch.tensor(mine)).amax(0).tolist()
    flat = []
    for parameter in (p for p, somewhere in zip(parameters, reached, strict=True) if somewhere):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        elif parameter.grad.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        # In the order of memory, which is that of the parameter's own and so the same in all processes.
        flat.append(parameter.grad.as_strided((parameter.numel(),), (1,)))
    if flat:
        joined = torch.cat(flat)
        box.average(joined)
        torch._foreach_copy_(flat, joined.split([len(part) for part in flat]))
