"""The gated units of a model, and what passes through them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.sharing import NoSharing, SharingUnit
from synthmtl.sharing.gates import Gates


@dataclass(frozen=True)
class GatedUnit:
    """One direction of a gated exchange at one stage.

    Attributes:
        name: of the module in the model, e.g. ``encoder.units.0.units.1_to_0``; of a unit that serves several stages,
            ``encoder.units.0@1.units.1_to_0`` at the second of them, and so on.
        stage: 0, 1, ... in the order of the sharing units in the model that are gated or share nothing (where a model
            leaves a stage out), or of the parents of modules outside any.
        direction: last part of the name; in our models ``DONOR_to_RECEIVER`` by the numbers of the tasks.
        module: ``forward(receiver, donor)``, with ``gates`` as a child whose ``forward`` returns (r, z).
        path: of the module in the model, for ``get_submodule``.
    """

    name: str
    stage: int
    direction: str
    module: nn.Module
    path: str


@dataclass(frozen=True)
class Exchange:
    """What one call of a gated unit read and returned, (B, C, H, W) each.

    Attributes:
        receiver, donor: the features that came in.
        passed, taken: the gates r and z; None where the unit was forced shut and did not ask them.
        output: the receiver's new features.
    """

    receiver: Tensor
    donor: Tensor
    passed: Tensor | None
    taken: Tensor | None
    output: Tensor

    @property
    def message(self) -> Tensor | None:
        """r ⊙ donor, or None where nothing was sent."""
        return None if self.passed is None else self.passed * self.donor


def gated_units(model: nn.Module) -> list[GatedUnit]:
    """Every module of ``model`` with :class:`~synthmtl.sharing.gates.Gates` as its child ``gates``, in order.

    A module that serves several stages (``SharingUnit.stages``, or several names) is listed once for each of them.
    """
    # With duplicates: a unit that serves all stages has a name, and a place, at each.
    named = list(model.named_modules(remove_duplicate=False))
    containers = {name: module for name, module in named if isinstance(module, SharingUnit)}
    places: dict[str, int] = {}
    units, count = [], 0
    for name, module in named:
        if isinstance(module, NoSharing):
            count += module.stages
        if isinstance(getattr(module, "gates", None), Gates):
            around = [container for container in containers if name.startswith(f"{container}.".lstrip("."))]
            place = around[-1] if around else name.rpartition(".")[0]
            stages = max((containers[container].stages for container in around), default=1)
            if place not in places:
                places[place] = count
                count += stages
            for turn in range(stages):
                at = at_stage(place, turn) + name[len(place) :]
                units.append(GatedUnit(at, places[place] + turn, name.rpartition(".")[2], module, name))
    return sorted(units, key=lambda unit: unit.stage)


def at_stage(name: str, turn: int) -> str:
    """How a sharing unit is called at the stage that is the ``turn``-th, from 0, of those that it serves."""
    return f"{name}@{turn}" if turn else name


def chosen_units(model: nn.Module, *, stage: int | None = None, direction: str | None = None) -> list[GatedUnit]:
    """The gated units of one stage, one direction, or both; None = all.

    Raises:
        InputError: if there are none.
    """
    units = gated_units(model)
    if not units:
        raise InputError(f"{type(model).__name__} has no gated units: use a gated sharing unit, e.g. leaky")
    chosen = [u for u in units if stage in (None, u.stage) and direction in (None, u.direction)]
    if not chosen:
        known = ", ".join(f"{unit.stage}/{unit.direction}" for unit in units)
        raise InputError(f"no gated unit at stage {stage}, direction {direction}: there are {known} (stage/direction)")
    return chosen


_IN_COMPILED_CODE = (
    "compiled code cannot look at its own gates: watch, from outside, what torch.compile(module) returns"
)

_eager = ExitStack()
_within = 0


def refuse_in_compiled_code() -> None:
    """Stop where ``torch.compile`` reads along, before it meets what it cannot read.

    Raises:
        InputError: if it does.
    """
    if torch.compiler.is_compiling():
        raise InputError(_IN_COMPILED_CODE)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within it what ``torch.compile`` made runs as it was written, in all threads; its compiled code is kept.

    Compiled code passes by the hooks that came after it. Those within may leave in another order than they came, as
    recorders of one objective do: the last one lets compiled code run again.

    Raises:
        InputError: if compiled code itself enters it.
    """
    global _within
    refuse_in_compiled_code()
    if not _within:
        try:
            _eager.enter_context(torch.compiler.set_stance("force_eager"))
        except RuntimeError:
            raise InputError(_IN_COMPILED_CODE) from None
    _within += 1
    try:
        yield
    finally:
        _within -= 1
        if not _within:
            _eager.close()


def check_original(called: nn.Module, watched: nn.Module, name: str) -> None:
    """See that a hook was called by the module ``name`` that it was given to, and by no copy.

    Raises:
        InputError: if it was a copy.
    """
    if called is not watched:
        raise InputError(f"a copy of {name} was run: measure the module that is wrapped, not nn.DataParallel around it")


def _refuse_replicas(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise InputError("nn.DataParallel runs copies of the model in threads: measure the module that it wraps")


@contextmanager
def watched_exchanges(
    model: nn.Module, see: Callable[[GatedUnit, Exchange], None], units: Sequence[GatedUnit] | None = None
) -> Iterator[None]:
    """Within it, ``see`` is called after every call of a gated unit, with graph if there is one.

    Meanwhile nothing runs compiled, see :func:`uncompiled`.

    Args:
        model: the units' model.
        see: what looks on.
        units: by default all :func:`gated_units`. Of a module that serves several stages, the calls are dealt out to
            them in turn, those that were not chosen included.

    Raises:
        InputError: if the model has no gated units, if copies of it are run (by ``nn.DataParallel`` on several devices,
            see the module that it wraps instead), or if compiled code enters it.
    """
    _refuse_replicas(model)
    everyone = chosen_units(model) if units is None else gated_units(model)
    chosen = set(everyone if units is None else units)
    places: dict[nn.Module, list[GatedUnit]] = {unit.module: [] for unit in everyone if unit in chosen}
    for unit in everyone:
        if unit.module in places:
            places[unit.module].append(unit)
    asked: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    calls = dict.fromkeys(places, 0)
    with uncompiled(), ExitStack() as hooks:
        for module, own in places.items():

            def ask(gates: nn.Module, inputs: tuple, maps: tuple[Tensor, Tensor], module: nn.Module = module) -> None:
                asked[module] = maps

            def look(
                module: nn.Module, inputs: tuple, named: dict, output: Tensor, own: Sequence[GatedUnit] = own
            ) -> None:
                check_original(module, own[0].module, own[0].name)
                unit = own[calls[module] % len(own)]
                calls[module] += 1
                given = dict(zip(("receiver", "donor"), inputs, strict=False)) | named
                passed, taken = asked.pop(module, (None, None))
                if unit in chosen:
                    see(unit, Exchange(given["receiver"], given["donor"], passed, taken, output))

            hooks.enter_context(module.get_submodule("gates").register_forward_hook(ask))
            hooks.enter_context(module.register_forward_hook(look, with_kwargs=True))
        yield
