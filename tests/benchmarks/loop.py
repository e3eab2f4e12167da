"""Our training loop against a bare PyTorch loop: the same network, batches, precision, clipping and optimizer.

Once with the same objective, so that the loop is all that differs, and once with the cross-entropy of a tutorial, which
has no place for missing labels and for weights.
"""

import copy
from collections.abc import Callable

import torch

from synthmtl.data.batch import FaceBatch
from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.models import Recognizer
from synthmtl.training import Player, build_accelerator, resolve_precision

from .faces import CLASSES, face_batches, training
from .timing import Laps, Row, compare, in_turn


class CrossEntropy(torch.nn.Module):
    """What a tutorial minimizes."""

    def __init__(self, model: Recognizer):
        super().__init__()
        self.model = model

    def forward(self, batch: FaceBatch) -> dict[str, torch.Tensor]:
        return {"loss": torch.nn.functional.cross_entropy(self.model(batch.image), batch.expression)}


def bare_training(objective: torch.nn.Module, stream: Laps, steps: int, bfloat16: bool) -> Callable[[], float]:
    """A call that trains by the loop that a tutorial would write; it returns the seconds of a step."""
    objective.to(memory_format=torch.channels_last).train()

    def run() -> float:
        optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02, fused=True)
        total = 0.0
        for step in range(steps):
            batch = stream(step)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = objective(batch)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(objective.parameters(), 5.0)
            optimizer.step()
            total += loss.item()
        return stream.median()

    return run


def rows(tiny: bool) -> list[Row]:
    """Milliseconds of a step; at most 3 % more than the bare loop's are wanted."""
    found = []
    sizes = [(8, 3)] if tiny else [(128, 7), (16, 40)]
    for batch_size, steps in sizes:
        batches = face_batches(4, batch_size, 48)
        torch.manual_seed(0)
        model = Recognizer(classes=CLASSES)
        accelerator = build_accelerator(precision="auto")
        bfloat16 = resolve_precision("auto") == "bf16"
        player = Player("recognition", RecognitionObjective(copy.deepcopy(model), ExpressionLoss()))
        bare = {
            "the same objective": RecognitionObjective(copy.deepcopy(model), ExpressionLoss()),
            "plain cross-entropy": CrossEntropy(copy.deepcopy(model)),
        }
        calls = {"ours": training([player], Laps(batches), accelerator, steps=steps)}
        calls |= {name: bare_training(each, Laps(batches), steps, bfloat16) for name, each in bare.items()}
        seconds = in_turn(calls, rounds=1 if tiny else 25, warmup=0 if tiny else 1)
        found += [compare(f"batch {batch_size}, {name}", seconds["ours"], seconds[name], wanted=0.97) for name in bare]
    return found
