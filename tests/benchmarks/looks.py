"""What looking costs: joint training that measures look at every so many steps, against the same without any."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import torch
from accelerate import Accelerator
from torch import nn

from synthmtl.data.batch import EditBatch
from synthmtl.data.randomness import StepRandom
from synthmtl.interference import AffinityRecorder, ConflictRecorder, GateRecorder
from synthmtl.losses import ExpressionLoss, FERSNetObjective, SynthesisWeights
from synthmtl.models import FERSNet
from synthmtl.study.looks import conflict_groups
from synthmtl.training import Player, build_accelerator

from .faces import CLASSES, edit_batch, training
from .timing import Row, compare, in_turn

EVERY = {"conflict": 20, "gates": 20, "affinity": 40}
"""Steps between two looks, as a study has them if nothing else is said."""

LEARNING_RATE = 3e-3


def recorder(name: str, model: FERSNet, objective: nn.Module, every: int) -> AbstractContextManager[None]:
    """Within it, training of ``objective`` is looked at."""
    if name == "conflict":
        return ConflictRecorder(conflict_groups(model), every=every).watching(objective)
    if name == "gates":
        return GateRecorder(model, every=every).watching(objective)
    return AffinityRecorder(model.encoder.parameters(), step_size=LEARNING_RATE, every=every).watching(objective)


def looked_at(
    names: tuple[str, ...], batch: EditBatch, size: str, every: dict[str, int], steps: int, accelerator: Accelerator
) -> Callable[[], object]:
    """A call that trains for some steps, looked at by the measures of these names."""
    torch.manual_seed(0)
    model = FERSNet.sized(size, classes=CLASSES)
    objective = FERSNetObjective(model, ExpressionLoss(), SynthesisWeights())
    player = Player("network", objective)

    def stream(step: int) -> EditBatch:
        return dataclasses.replace(batch, random=StepRandom(0, step))

    train = training([player], stream, accelerator, steps=steps, learning_rate=LEARNING_RATE)

    def run() -> None:
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(recorder(name, model, objective, every[name]))
            train()

    return run


def rows(tiny: bool) -> list[Row]:
    """Milliseconds of a step, looks shared out over the steps between them; at most 15 % are for gradient conflict."""
    size, faces, edits, pixels, rounds = ("tiny", 2, 2, 32, 1) if tiny else ("cpu", 32, 40, 48, 5)
    every = {name: 2 if tiny else steps for name, steps in EVERY.items()}
    steps = max(every.values())
    batch = edit_batch(edits, pixels, labelled=faces, paired=True)
    accelerator = build_accelerator(precision="auto")
    cases = {f"{name}, every {often} steps": (name,) for name, often in every.items()} | {"all three": tuple(every)}
    calls = {case: looked_at(names, batch, size, every, steps, accelerator) for case, names in cases.items()}
    calls["none"] = looked_at((), batch, size, every, steps, accelerator)
    seconds = in_turn(calls, rounds=rounds, warmup=0 if tiny else 1)
    plain, wanted = seconds.pop("none"), {("conflict",): 0.87}
    return [compare(case, seconds[case], plain, wanted=wanted.get(names), per=steps) for case, names in cases.items()]
