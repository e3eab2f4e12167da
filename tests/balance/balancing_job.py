"""A small balancing job, for fixtures and, run as a script, for a process to kill: ``balancing_job.py DIR [PAUSE]``."""

import sys
import time

import torch

from synthmtl.balance.calibration import calibrate_judge
from synthmtl.balance.synthesize import BalancingResult, synthesize_balancing_set
from synthmtl.data.table import FaceTable
from synthmtl.models.denoiser import DiffusionFERSNet
from synthmtl.models.fersnet import FERSNet
from synthmtl.models.recognizer import Recognizer

CLASSES = ("neutral", "happiness", "fear")


def make_faces(counts: dict[str, int], *, subjects: int = 4, seed: int = 0, size: int = 32) -> FaceTable:
    """Noise faces; subjects in turn, or all unknown with ``subjects=0``."""
    random = torch.Generator().manual_seed(seed)
    classes = tuple(counts)
    total = sum(counts.values())
    return FaceTable(
        images=torch.randint(0, 256, (total, 1, size, size), dtype=torch.uint8, generator=random),
        classes=classes,
        expression=torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(list(counts.values()))),
        subject=torch.arange(total) % subjects if subjects else None,
        files=[f"faces/{i}.png" for i in range(total)],
    )


def make_generator(classes: tuple[str, ...] = CLASSES, *, seed: int = 0) -> FERSNet:
    """An untrained network whose edits are visible and differ by style."""
    torch.manual_seed(seed)
    generator = FERSNet.sized("tiny", classes=classes)
    for layer in (generator.decoder.flow, generator.decoder.paint[-1]):
        torch.nn.init.normal_(layer.weight, std=0.2)
    torch.nn.init.normal_(generator.style.prior_moments.weight, std=0.5)
    return generator.eval()


def make_diffusion(classes: tuple[str, ...] = CLASSES, *, seed: int = 0) -> DiffusionFERSNet:
    """An untrained network that reads its sources."""
    torch.manual_seed(seed)
    generator = DiffusionFERSNet.sized("tiny", classes=classes)
    for parameter in generator.adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return generator.eval()


def make_judge(classes: tuple[str, ...] = CLASSES, *, seed: int = 1) -> Recognizer:
    """An untrained judge: it likes some faces more than others."""
    torch.manual_seed(seed)
    return Recognizer(classes=classes, image_size=32, stem_channels=4, stage_channels=(4, 8), joint_channels=8).eval()


def run_job(directory: str | None, pause: float = 0.0, **options) -> BalancingResult:
    """29 wanted faces in chunks of 4."""
    torch.set_num_threads(1)
    judge = make_judge()
    calibration = calibrate_judge(judge, make_faces(dict.fromkeys(CLASSES, 8), seed=5), quantile=0.5)
    return synthesize_balancing_set(
        make_generator(),
        judge,
        make_faces({"neutral": 20, "happiness": 8, "fear": 3}),
        "auto",
        calibration=calibration,
        batch_size=4,
        directory=directory,
        on_chunk=lambda done, total: time.sleep(pause),
        **options,
    )


if __name__ == "__main__":
    run_job(sys.argv[1], float(sys.argv[2]))
