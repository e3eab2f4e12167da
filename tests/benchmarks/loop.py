"""Our training loop against a bare PyTorch loop: the same network, batches, precision, clipping and optimizer."""

import copy
from collections.abc import Callable

import torch

from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.models import Recognizer
from synthmtl.training import Player, build_accelerator, resolve_precision

from .faces import CLASSES, face_batches, training
from .timing import Laps, Row, compare, in_turn


def bare_training(model: Recognizer, stream: Laps, steps: int, bfloat16: bool) -> Callable[[], float]:
    """A call that trains by the loop that a tutorial would write; it returns the seconds of a step."""
    model.to(memory_format=torch.channels_last).train()

    def run() -> float:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.02, fused=True)
        total = 0.0
        for step in range(steps):
            batch = stream(step)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = model(batch.image)
            loss = torch.nn.functional.cross_entropy(logits, batch.expression)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
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
        player = Player("recognition", RecognitionObjective(copy.deepcopy(model), ExpressionLoss()))
        calls = {
            "ours": training([player], Laps(batches), accelerator, steps=steps),
            "plain": bare_training(model, Laps(batches), steps, resolve_precision("auto") == "bf16"),
        }
        seconds = in_turn(calls, rounds=1 if tiny else 10, warmup=0)
        found.append(compare(f"batch {batch_size}", *seconds.values(), wanted=0.97))
    return found
