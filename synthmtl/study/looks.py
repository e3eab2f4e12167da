"""What is recorded while a cell trains: gradient conflict, openness of the gates, and look-ahead affinity."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from synthmtl.interference import (
    AffinityRecorder,
    ConflictRecorder,
    GateRecorder,
    gated_units,
    parameter_groups,
)
from synthmtl.models import FERSNet
from synthmtl.models.multitask import MultiTaskModel
from synthmtl.models.trunk import MultiTaskTrunk
from synthmtl.study.config import MeasureOptions
from synthmtl.training import TrainingConfig, latest

Looks = dict[str, list[dict[str, Any]]]
"""Records by what they are of: ``conflict``, ``gates`` and ``affinity``, as their recorders describe them; none of what
was turned off, is not there, or needs both tasks in one step."""


@contextmanager
def recorded(
    measures: MeasureOptions,
    model: FERSNet | MultiTaskModel,
    objective: nn.Module,
    stream: Callable[[int], Any],
    training: TrainingConfig,
    directory: Path,
    *,
    together: bool,
) -> Iterator[tuple[Callable[[int], Any], Looks]]:
    """Within it, a cell's training is looked at: on the stream that it yields, besides looks to be filled at the end.

    Every look is written to ``directory`` too, and goes on there with the training's last checkpoint. The weights
    become what they would have become without; in half precision a look may round differently, since sharing units
    that are looked into run uncompiled.

    Args:
        measures: what is looked at, and how often.
        model: the network.
        objective: what trains it.
        stream: its batches, by micro-step.
        training: its settings.
        directory: of the training.
        together: the objective returns the losses of both tasks; else there is nothing but gates to look at.
    """
    recorders: dict[str, AffinityRecorder | ConflictRecorder | GateRecorder] = {}
    if measures.affinity_every and together:
        _, trunk = trunk_of(model)
        recorders["affinity"] = AffinityRecorder(
            trunk.parameters(), step_size=training.learning_rate, every=measures.affinity_every
        )
    if measures.gates_every and gated_units(model):
        recorders["gates"] = GateRecorder(model, every=measures.gates_every)
    if measures.conflict_every and together:
        recorders["conflict"] = ConflictRecorder(conflict_groups(model), every=measures.conflict_every)
    checkpoint = latest(directory / "checkpoints")
    before = 0 if checkpoint is None else int(checkpoint.name.split("-")[-1]) * training.accumulation
    looks: Looks = {}
    numbered = NumberedStream(stream, training.accumulation)
    with ExitStack() as stack:
        for name, recorder in recorders.items():
            recorder.keep_in(directory / f"{name}.jsonl", before=before)
            stack.enter_context(recorder.watching(objective, step=numbered.step_of))
        yield numbered, looks
    looks |= {name: recorder.records for name, recorder in recorders.items()}


class NumberedStream:
    """A stream that knows which micro-step its batches are of, since a ``FaceBatch`` does not.

    The training loop asks for all batches of a step, puts them on its device, and then passes them on in their order,
    each of them twice for an aggregator that looks back.

    Args:
        stream: micro-step → batch.
        accumulation: micro-steps per step.
    """

    def __init__(self, stream: Callable[[int], Any], accumulation: int):
        self.stream, self.accumulation = stream, accumulation
        self.first = 0
        self.passed: list[Any] = []

    def __call__(self, step: int) -> Any:
        if step % self.accumulation == 0:
            self.first, self.passed = step, []
        return self.stream(step)

    def step_of(self, batch: Any) -> int:
        """The micro-step of a batch that the objective is given."""
        known = [i for i, other in enumerate(self.passed) if other is batch]
        if known:
            return self.first + known[0]
        self.passed.append(batch)
        return self.first + len(self.passed) - 1


def trunk_of(model: FERSNet | MultiTaskModel) -> tuple[str, MultiTaskTrunk]:
    """Where a network's tasks share: the name of that part, and the part."""
    return ("encoder", model.encoder) if isinstance(model, FERSNet) else ("trunk", model.trunk)


def conflict_groups(model: FERSNet | MultiTaskModel) -> dict[str, list[nn.Parameter]]:
    """Parameters of the trunk by stage: ``stem``, ``stage 0``, ``unit 0``, ..., and ``joint`` of a joint block."""
    name, trunk = trunk_of(model)
    groups = {"stem": [f"{name}.stem"]}
    for i, _ in enumerate(trunk.branches[0].children()):
        groups[f"stage {i}"] = [f"{name}.branches.{b}.{i}" for b in range(len(trunk.branches))]
        groups[f"unit {i}"] = [f"{name}.units.{i}"]
    groups["joint"] = [f"{name}.joint"]
    # Of one unit for all stages only the first place has parameters, and a unit may have none at all.
    named = [name for name, _ in model.named_parameters()]
    kept = {
        group: prefixes
        for group, prefixes in groups.items()
        if all(any(name.startswith(f"{prefix}.") for name in named) for prefix in prefixes)
    }
    return parameter_groups(model, stages=kept)
