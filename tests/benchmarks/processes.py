"""One process against two that train together: images a second on one thread each, twice as many being ideal.

Two share one's batch, or have one of the same size each. They train exactly as one does on the joined batch. All run at
the same time, stopped but for one training after the other, again and again: machines that others use as well are now
quick and now slow.

python -m tests.benchmarks.processes recognition|joint FACES STAMPS: trains until it is stopped, a time for every step
"""

import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.models import FERSNet, Recognizer
from synthmtl.models.discriminator import PatchDiscriminator
from synthmtl.training import Player, build_accelerator

from .faces import CLASSES, edit_batch, face_batches, training
from .published import joint_players
from .timing import ROOT, Row, clean_environment

BATCH = 128
NEVER = 10**9  # steps
SETTLING = 0.5  # seconds behind an interruption that do not count

WAYS = {
    "each": (2 * BATCH, 2, True),
    "shared": (BATCH, 2, True),
    "alone": (BATCH, 2, False),
    "halves": (BATCH // 2, 2, False),
}
"""Faces a step (of all together, or of each alone), processes, and whether they train together."""

SHARES = (
    ("each", "one", 2, f"two together, {BATCH} faces each, share of twice one", 0.85),
    ("shared", "one", 2, f"two together, {BATCH} faces shared, share of twice one", 0.85),
    ("each", "alone", 1, f"two together, {BATCH} faces each, share of two on their own", 0.85),
    ("shared", "halves", 1, f"two together, {BATCH} faces shared, share of two on their own", 0.85),
    ("alone", "one", 2, f"two on their own, {BATCH} faces each, share of twice one", None),
    ("halves", "one", 2, f"two on their own, {BATCH // 2} faces each, share of twice one", None),
)
"""A row each: whose rate, set against whose and how many times it, in words, and what is wanted."""


@dataclass
class Running:
    """Processes that train, together or each on its own, and the files of the times at which they began a step.

    Args:
        faces: of a step of each file's.
    """

    processes: list[subprocess.Popen]
    stamps: list[Path]
    faces: int

    def times(self) -> list[tuple[float, ...]]:
        """Of each file, in seconds."""
        found = []
        for path in self.stamps:
            read = path.read_bytes() if path.exists() else b""
            found.append(struct.unpack(f"<{len(read) // 8}d", read[: len(read) // 8 * 8]))
        return found

    def send(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.poll() is not None:
                raise RuntimeError(f"a training ended: {process.stderr.read()[-2000:]}")  # type: ignore[union-attr]
            process.send_signal(number)

    def rate(self, steps: int) -> float:
        """Images a second over some steps, from now."""
        since = time.monotonic() + SETTLING
        self.send(signal.SIGCONT)
        while True:
            time.sleep(0.02)
            now = [[t for t in times if t > since] for times in self.times()]
            if all(len(times) > steps for times in now):
                break
            self.send(signal.SIGCONT)
        self.send(signal.SIGSTOP)
        return sum(self.faces * (len(times) - 1) / (times[-1] - times[0]) for times in now)


@contextmanager
def running(
    job: str, faces: int, processes: int, *, together: bool, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Processes with ``faces`` a step, all together or each by itself; they have begun, and are stopped."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    started: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as folder:
        stamps = [Path(folder, str(i)) for i in range(processes)]
        for rank, path in enumerate(stamps):
            launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            own = {name: str(value) for name, value in launched.items()} | {"MASTER_ADDR": "127.0.0.1"}
            command = [sys.executable, "-m", f"{__package__}.processes", job, str(faces), str(path)]
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=clean_environment((own if together else {}) | dict(environment or {})),
                    stderr=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                )
            )
        found = Running(started, stamps[:1] if together else stamps, faces)
        try:
            found.rate(2)
            yield found
        finally:
            for process in started:
                process.kill()
                process.communicate()


def rows(tiny: bool) -> list[Row]:
    """Images a second of both, of two that train each on its own as well: that is what there is to have.

    Half of the faces take more than half of a short step's time, whether or not there is a second process. So what
    waiting for each other costs is seen beside two that do not wait, and what sharing a batch is worth beside one.
    """
    if tiny:
        return [*rows_of("recognition", 1, 1, ["each"]), *rows_of("joint", 1, 1, ["shared"])]
    return [row for job, steps in (("recognition", 30), ("joint", 6)) for row in rows_of(job, steps, 9, [*WAYS])]


def rows_of(job: str, steps: int, rounds: int, ways: Sequence[str]) -> list[Row]:
    """The rows of one training by some of :data:`WAYS`, which one process is set against."""
    trainings = {"one": (BATCH, 1, False)} | {name: WAYS[name] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in trainings}
    with ExitStack() as stack:
        all_running = {
            name: stack.enter_context(running(job, faces, processes, together=together))
            for name, (faces, processes, together) in trainings.items()
        }
        for i in range(rounds):
            for name in rates if i % 2 else reversed(rates):
                rates[name].append(all_running[name].rate(steps))
    found = []
    for name, other, times, what, wanted in SHARES:
        if rates.keys() >= {name, other}:
            share = statistics.median(a / (times * b) for a, b in zip(rates[name], rates[other], strict=True))
            said = [f"{statistics.median(rates[side]):.0f} images/s" for side in (name, other)]
            found.append(Row(f"{job}, {what}", *said, share, wanted))
    return found


def training_of(job: str, share: int) -> tuple[list[Player], list]:
    """Players and batches, ``share`` faces each, of a recognizer or of FERSNet with its critic."""
    recognizer = Recognizer(classes=CLASSES)
    if job == "recognition":
        return [Player(job, RecognitionObjective(recognizer, ExpressionLoss()))], face_batches(4, share, 48)
    critic = PatchDiscriminator(image_channels=1, classes=len(CLASSES), channels=(32, 64, 128))
    guide = recognizer.eval().requires_grad_(False)
    players = joint_players(FERSNet.sized("cpu", classes=CLASSES), critic, guide)
    return players, [edit_batch(share // 2, 48, labelled=share // 2, paired=True)]


def main(job: str, faces: int, stamps: str) -> None:
    accelerator = build_accelerator(precision="auto")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    players, batches = training_of(job, faces // accelerator.num_processes)
    parent = os.getppid()
    with open(stamps, "ab", buffering=0) as file:

        def stream(step: int) -> object:
            if os.getppid() != parent:
                sys.exit("who waits for this training has ended")
            file.write(struct.pack("<d", time.monotonic()))
            return batches[step % len(batches)]

        training(players, stream, accelerator, steps=NEVER, batch_size=faces, log_every=NEVER)()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
