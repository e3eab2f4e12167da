"""How far gates are open: running means over faces, and maps to be laid over them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.data.batch import FaceBatch
from synthmtl.errors import InputError
from synthmtl.exchange import process_count, process_mean, several_processes
from synthmtl.interference.recorder import Recorder, step_of
from synthmtl.interference.units import (
    Exchange,
    GatedUnit,
    chosen_units,
    refuse_in_compiled_code,
    watched_exchanges,
)
from synthmtl.models.blocks import evaluating

GATES = ("pass", "take")
"""r, what of the donor may pass, and z, how much of the candidate is taken."""


def gates_of(exchange: Exchange) -> dict[str, Tensor]:
    """r and z of an exchange by :data:`GATES`, (B, C, H, W); of a unit that was forced shut only z = 0."""
    if exchange.passed is None or exchange.taken is None:
        return {"take": torch.zeros_like(exchange.receiver)}
    return {"pass": exchange.passed, "take": exchange.taken}


@dataclass(frozen=True)
class Openness:
    """How far one gate of one unit is open, 0 = shut, 1 = open; means over faces and positions.

    Attributes:
        unit, stage, direction: as in :class:`GatedUnit`.
        gate: ``pass`` (r) or ``take`` (z).
        faces: how many were seen.
        mean: over channels too.
        spread: standard deviation over faces, mean over channels; near 0 = the gate does not look at the face.
        channels: (C,) the mean of each.
        expressions: class → mean over its faces; None for a class without a face.
        expression_channels: class → (C,) likewise.
    """

    unit: str
    stage: int
    direction: str
    gate: str
    faces: int
    mean: float
    spread: float
    channels: list[float]
    expressions: dict[str, float | None]
    expression_channels: dict[str, list[float] | None]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class GateMeter:
    """Running means of a model's gates, see :func:`measured_gates`."""

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self._labels: Tensor | None = None
        self._sums: dict[tuple[GatedUnit, str], Tensor] = {}
        self._device = torch.device("cpu")

    def label(self, expression: Tensor | None) -> None:
        """The expressions (B,) int64, -1 = missing, of the faces in the passes to come; None = unknown."""
        self._labels = None if expression is None else expression.cpu()

    def see(self, unit: GatedUnit, exchange: Exchange) -> None:
        """Add one call of a unit.

        Raises:
            InputError: if there are not as many labels as faces.
        """
        rows = len(exchange.receiver)
        labels = torch.full((rows,), -1) if self._labels is None else self._labels
        if len(labels) != rows:
            raise InputError(f"{len(labels)} expressions were given for a pass of {rows} faces: label() every batch")
        for gate, maps in gates_of(exchange).items():
            self._device = maps.device
            means = maps.detach().float().mean((2, 3)).cpu().double()
            # By class, the last for faces without one: count, sums and sums of squares of C channels.
            columns = torch.cat([torch.ones(rows, 1, dtype=means.dtype), means, means.square()], 1)
            empty = torch.zeros(len(self.classes) + 1, columns.shape[1], dtype=means.dtype)
            sums = self._sums.setdefault((unit, gate), empty)
            unnamed = (labels < 0) | (labels >= len(self.classes))
            sums.index_add_(0, torch.where(unnamed, len(self.classes), labels), columns)

    def result(self) -> list[Openness]:
        """What was seen so far, in the order of the calls; of all processes, which must all ask for it."""
        return [self._openness(unit, gate, sums) for (unit, gate), sums in self._sums.items()]

    def _openness(self, unit: GatedUnit, gate: str, sums: Tensor) -> Openness:
        if several_processes():
            sums = process_mean(sums.to(self._device)).cpu() * process_count()
        counts, totals, squares = sums.split([1, sums.shape[1] // 2, sums.shape[1] // 2], 1)
        faces = counts.sum()
        channels = totals.sum(0) / faces
        variance = (squares.sum(0) / faces - channels.square()).clamp(min=0)
        by_class = [t / c if c > 0 else None for t, c in zip(totals, counts, strict=True)][:-1]
        return Openness(
            unit=unit.name,
            stage=unit.stage,
            direction=unit.direction,
            gate=gate,
            faces=round(float(faces)),
            mean=float(channels.mean()),
            spread=float(variance.sqrt().mean()),
            channels=channels.tolist(),
            expressions={
                name: None if mean is None else float(mean.mean())
                for name, mean in zip(self.classes, by_class, strict=True)
            },
            expression_channels={
                name: None if mean is None else mean.tolist() for name, mean in zip(self.classes, by_class, strict=True)
            },
        )


@contextmanager
def measured_gates(
    model: nn.Module, classes: Sequence[str] = (), units: Sequence[GatedUnit] | None = None
) -> Iterator[GateMeter]:
    """Within it, the gates of every pass of ``model`` are added to the meter that it yields.

        with measured_gates(model, model.classes) as meter, torch.no_grad():
            for batch in batches:
                meter.label(batch.expression)
                model(batch.image)
        openness = meter.result()

    A unit that is forced shut counts as z = 0, and its r, which nobody asked, does not count.

    Args:
        model: with gated units; in the mode in which they are to be measured.
        classes: expressions, in the order of the labels.
        units: by default all of them.

    Raises:
        InputError: if the model has no gated units.
    """
    meter = GateMeter(classes)
    with watched_exchanges(model, meter.see, units):
        yield meter


def openness_over(model: nn.Module, batches: Iterable[FaceBatch], classes: Sequence[str] = ()) -> list[Openness]:
    """Openness of every gate of ``model``, in eval mode, over all faces of ``batches``, which are on its device.

    Raises:
        InputError: if the model has no gated units.
    """
    with evaluating(model), torch.no_grad(), measured_gates(model, classes) as meter:
        for batch in batches:
            meter.label(batch.expression)
            model(batch.image)
    return meter.result()


def gate_maps(
    model: nn.Module, images: Tensor, *, run: Callable[[Tensor], Any] | None = None
) -> dict[str, dict[str, Tensor]]:
    """Where the gates are open on each face, in eval mode: means over channels, at the size of the faces.

    Args:
        images: (B, C, H, W).
        run: takes the images through the units; by default ``model`` itself.

    Returns:
        ``{unit: {"pass": (B, H, W), "take": (B, H, W)}}`` float32 in [0, 1], by :attr:`GatedUnit.name`; without
        ``pass`` for a unit that is forced shut.

    Raises:
        InputError: if the model has no gated units.
    """
    found: dict[str, dict[str, Tensor]] = {}

    def see(unit: GatedUnit, exchange: Exchange) -> None:
        found[unit.name] = {
            gate: F.interpolate(m.float().mean(1, keepdim=True), images.shape[-2:], mode="bilinear").squeeze(1)
            for gate, m in gates_of(exchange).items()
        }

    with evaluating(model), torch.no_grad(), watched_exchanges(model, see):
        (run or model)(images)
    return found


class GateRecorder(Recorder):
    """Openness of the gates over training, in the training passes themselves.

        recorder = GateRecorder(model, every=20)
        with recorder.watching(objective):
            fit(...)

    A look reads the maps that the pass computes anyway, which costs next to nothing. Of units that run compiled, a
    pass that is looked at runs uncompiled, which may round differently.

    Args:
        model: with gated units.
        every: steps between two looks, from step 0.

    Attributes:
        records: one of a look, unit and gate: ``step``, ``stage``, ``direction``, ``gate``, and ``mean`` over faces,
            channels and positions.

    Raises:
        InputError: if the model has no gated units.
    """

    def __init__(self, model: nn.Module, *, every: int = 20):
        super().__init__(every)
        self.model, self.units = model, chosen_units(model)

    @contextmanager
    def watching(self, objective: nn.Module, *, step: Callable[[Any], int] = step_of) -> Iterator[None]:
        """Within it, every training pass of ``objective`` that is due is looked at.

        Args:
            objective: runs the model; ``forward(batch)``. One that is compiled is watched as ``torch.compile`` returned
                it: what was given runs, with its hooks, inside compiled code.
            step: from the batch; it is asked once before each pass.

        Raises:
            InputError: in a pass that is due, if ``objective`` runs inside compiled code.
        """
        seen: dict[tuple[GatedUnit, str], list[Tensor]] = {}
        hooks, at = ExitStack(), 0

        def see(unit: GatedUnit, exchange: Exchange) -> None:
            for gate, maps in gates_of(exchange).items():
                seen.setdefault((unit, gate), []).append(maps.detach().float().mean())

        def begin(module: nn.Module, inputs: tuple) -> None:
            nonlocal at
            at = step(inputs[0])
            # Of a pass that was interrupted.
            hooks.close()
            seen.clear()
            if torch.is_grad_enabled() and self.due(at):
                refuse_in_compiled_code()
                hooks.enter_context(watched_exchanges(self.model, see, self.units))

        def end(module: nn.Module, inputs: tuple, results: object) -> None:
            hooks.close()
            if seen:
                means = process_mean(torch.stack([torch.stack(values).mean() for values in seen.values()])).tolist()
                self.keep(
                    [
                        {"step": at, "stage": unit.stage, "direction": unit.direction, "gate": gate, "mean": mean}
                        for (unit, gate), mean in zip(seen, means, strict=True)
                    ]
                )
                seen.clear()

        handles = [objective.register_forward_pre_hook(begin), objective.register_forward_hook(end)]
        try:
            yield
        finally:
            hooks.close()
            for handle in handles:
                handle.remove()
