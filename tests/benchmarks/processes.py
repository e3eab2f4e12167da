"""One process against two that train together: images a second on one thread each, twice as many being ideal.

Two share one's batch, or have one of the same size each. They train exactly as one does on the joined batch.

python -m tests.benchmarks.processes recognition|joint STEPS BATCH
"""

import json
import socket
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

import torch

from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.models import FERSNet, Recognizer
from synthmtl.models.discriminator import PatchDiscriminator
from synthmtl.training import Player, build_accelerator

from .faces import CLASSES, edit_batch, face_batches, training
from .published import joint_players
from .timing import Row, run_module

BATCH = 128


def launcher() -> list[str]:
    """What starts two processes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", str(port)]
    return ["-m", "accelerate.commands.launch", *options]


def rows(tiny: bool) -> list[Row]:
    """Images a second of both, of two that train each on its own as well: that is what there is to have.

    Of a short step the half with half of the faces takes more than half of the time, whoever takes it.
    """
    found = []
    for job, steps in (("recognition", 40), ("joint", 10)):
        found += rows_of(job, *((2, 1) if tiny else (steps, 3)), alone=not tiny)
    return found


def rows_of(job: str, steps: int, rounds: int, *, alone: bool) -> list[Row]:
    """The rows of one training."""
    rates: dict[str, list[float]] = {"one": [], "alone": [], "halves": [], "shared": [], "each": []}
    name = f"{__package__}.processes"
    for _ in range(rounds):
        rates["one"].append(run_module(name, job, steps, BATCH)["images"])
        # The launcher's -m takes the place of Python's own.
        rates["shared"].append(run_module(name, job, steps, BATCH, launcher=launcher())["images"])
        if alone:
            rates["each"].append(run_module(name, job, steps, 2 * BATCH, launcher=launcher())["images"])
            for key, batch in (("alone", BATCH), ("halves", BATCH // 2)):
                with ThreadPoolExecutor(2) as pool:
                    both = pool.map(lambda _, batch=batch: run_module(name, job, steps, batch)["images"], range(2))
                    rates[key].append(sum(both))
    found = []
    for key, what, wanted in (
        ("each", f"two together, {BATCH} faces each", 0.85),
        ("shared", f"two together, {BATCH} faces shared", 0.85),
        ("alone", f"two on their own, {BATCH} faces each", None),
        ("halves", f"two on their own, {BATCH // 2} faces each", None),
    ):
        if rates[key]:
            share = statistics.median(two / (2 * one) for one, two in zip(rates["one"], rates[key], strict=True))
            said = [f"{statistics.median(rates[side]):.0f} images/s" for side in (key, "one")]
            found.append(Row(f"{job}, {what}, share of twice one", *said, share, wanted))
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


def main(job: str, steps: int, batch: int) -> None:
    accelerator = build_accelerator(precision="auto")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    players, batches = training_of(job, batch // accelerator.num_processes)
    run = training(
        players, lambda step: batches[step % len(batches)], accelerator, steps=steps, batch_size=batch, log_every=2
    )
    rates = [record["images_per_second"] for record in run().history if "images_per_second" in record]
    if accelerator.is_main_process:
        print(json.dumps({"images": statistics.median(rates[len(rates) // 4 :])}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
