"""How much of the machine's matrix products a training step reaches: a share of the measured peak, same precision."""

import copy
import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from synthmtl.losses import ExpressionLoss, FERSNetObjective, RecognitionObjective
from synthmtl.losses.fersnet import SynthesisWeights
from synthmtl.models import FERSNet, Recognizer
from synthmtl.training import resolve_precision

from .faces import CLASSES, edit_batch, face_batches, parameters_of
from .timing import Row, in_turn


def rows(tiny: bool) -> list[Row]:
    """GFLOP a second of a step (forward, backward, optimizer) and of a product of large matrices."""
    bfloat16 = resolve_precision("auto") == "bf16"
    side, rounds, size = (64, 1, "tiny") if tiny else (2048, 7, "cpu")
    torch.manual_seed(0)
    fersnet = FERSNet.sized(size, classes=CLASSES)
    pixels = fersnet.config.image_size
    count = 4 if tiny else 64
    cases: dict[str, tuple[nn.Module, object]] = {
        f"recognizer, {count} faces of 48 px": (
            RecognitionObjective(Recognizer(classes=CLASSES), ExpressionLoss()),
            face_batches(1, count, 48)[0],
        ),
        f"FERSNet, {count} faces and {count} edits of {pixels} px": (
            FERSNetObjective(fersnet, ExpressionLoss(), SynthesisWeights()),
            edit_batch(count, pixels, labelled=count, paired=True),
        ),
    }
    if not tiny:
        cases["FERSNet published, 8 faces and 8 edits of 96 px"] = (
            FERSNetObjective(FERSNet.sized("published", classes=CLASSES), ExpressionLoss(), SynthesisWeights()),
            edit_batch(8, 96, labelled=8, paired=True),
        )
    matrix = torch.randn(side, side, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    calls, work = {"peak": lambda: matrix @ matrix}, {"peak": 2 * side**3}
    for name, (objective, batch) in cases.items():
        step = make_step(objective, batch, bfloat16)
        with FlopCounterMode(display=False) as counter:
            step()
        calls[name], work[name] = step, counter.get_total_flops()
    seconds = in_turn(calls, rounds=rounds, warmup=1, clock=time.process_time)
    rates = {name: work[name] / statistics.median(each) / 1e9 for name, each in seconds.items()}
    peak = rates.pop("peak")
    precision = "bf16" if bfloat16 else "float32"
    return [
        Row(f"{name}, {precision}", f"{rate:.0f} GFLOP/s", f"{peak:.0f} GFLOP/s", rate / peak)
        for name, rate in rates.items()
    ]


def make_step(objective: nn.Module, batch: object, bfloat16: bool):
    """A call that takes a training step, as short as it can be written."""
    objective = copy.deepcopy(objective).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(parameters_of(objective), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = objective(batch)["loss"]
        loss.backward()
        optimizer.step()

    return step
