"""Peak memory of a training by our loop against a bare PyTorch loop.

python -m tests.benchmarks.memory ours|plain BATCH STEPS
"""

import json
import re
import resource
import sys
from pathlib import Path

import torch

from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.models import Recognizer
from synthmtl.training import Player, build_accelerator, resolve_precision

from .faces import CLASSES, face_batches, training
from .loop import CrossEntropy, bare_training
from .timing import Laps, Row, run_module


def rows(tiny: bool) -> list[Row]:
    """Largest resident size of a process of its own, libraries included."""
    batch_size, steps = (8, 3) if tiny else (256, 12)
    ours, plain = (run_module(f"{__package__}.memory", side, batch_size, steps)["peak"] for side in ("ours", "plain"))
    return [Row(f"batch {batch_size}, 48 px", f"{ours:.0f} MiB", f"{plain:.0f} MiB", plain / ours, 0.95)]


def peak() -> float:
    """Largest resident size of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage says on Linux includes the parent's size at the time of the fork
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main(side: str, batch_size: int, steps: int) -> None:
    torch.set_num_threads(1)
    model, batches = Recognizer(classes=CLASSES), face_batches(2, batch_size, 48)
    accelerator = build_accelerator(precision="auto")
    if side == "ours":
        player = Player("recognition", RecognitionObjective(model, ExpressionLoss()))
        training([player], lambda step: batches[step % 2], accelerator, steps=steps)()
    else:
        bare_training(CrossEntropy(model), Laps(batches), steps, resolve_precision("auto") == "bf16")()
    print(json.dumps({"peak": peak()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
