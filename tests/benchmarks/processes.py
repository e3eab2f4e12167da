"""One process against two that train together: images a second on one thread each, twice as many being ideal.

python -m tests.benchmarks.processes STEPS [SECOND_OF_TWO_ALONE]
"""

import json
import socket
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

import torch

from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.models import Recognizer
from synthmtl.training import Player, build_accelerator

from .faces import CLASSES, face_batches, training
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
    """Images a second of both, of two that train each on its own as well: that is what the machine has to give."""
    steps, rounds = (4, 1) if tiny else (40, 3)
    rates: dict[str, list[float]] = {"one": [], "alone": [], "two": []}
    name = f"{__package__}.processes"
    for _ in range(rounds):
        rates["one"].append(run_module(name, steps)["images"])
        # The launcher's -m takes the place of Python's own.
        rates["two"].append(run_module(name, steps, launcher=launcher())["images"])
        if tiny:
            continue
        with ThreadPoolExecutor(2) as pool:
            both = pool.map(lambda _: run_module(name, steps)["images"], range(2))
            rates["alone"].append(sum(both))
    found = []
    for key, what, wanted in (("two", "two together", 0.85), ("alone", "two on their own", None)):
        if rates[key]:
            share = statistics.median(two / (2 * one) for one, two in zip(rates["one"], rates[key], strict=True))
            said = [f"{statistics.median(rates[side]):.0f} images/s" for side in (key, "one")]
            found.append(Row(f"{what}, share of twice one", *said, share, wanted))
    return found


def main(steps: int) -> None:
    accelerator = build_accelerator(precision="auto")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = face_batches(4, BATCH // accelerator.num_processes, 48)
    player = Player("recognition", RecognitionObjective(Recognizer(classes=CLASSES), ExpressionLoss()))
    run = training([player], lambda step: batches[step % 4], accelerator, steps=steps, batch_size=BATCH, log_every=2)
    rates = [record["images_per_second"] for record in run().history if "images_per_second" in record]
    if accelerator.is_main_process:
        print(json.dumps({"images": statistics.median(rates[len(rates) // 4 :])}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
