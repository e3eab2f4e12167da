"""Interventions at test time: shut, open or swap gates, and see what each task loses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial

from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference.units import GatedUnit, chosen_units, gated_units
from synthmtl.sharing.gates import GatedPair

Intervention = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Effect:
    """What :func:`intervention_effects` measured under one intervention.

    Attributes:
        values: measure → value.
        change: measure → value less the untouched model's.
    """

    values: dict[str, float]
    change: dict[str, float]

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


@contextmanager
def forced_gates(
    model: nn.Module,
    *,
    take: float | None = None,
    passed: float | None = None,
    stage: int | None = None,
    direction: str | None = None,
) -> Iterator[None]:
    """Within it, z (``take``) and r (``passed``) of the chosen units are these numbers; None leaves a gate as it is.

    Args:
        model: with gated units (``forced_take``, ``forced_pass``).
        take, passed: in [0, 1].
        stage, direction: which units, as in :class:`GatedUnit`; None = all.

    Raises:
        InputError: if no unit fits or one is no ``GatedPair``, a number lies outside [0, 1], one stage is asked for of
            a unit that serves several, or a unit that was built shut should open.
    """
    for value in (take, passed):
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"a gate is forced to a number in [0, 1], not {value}")
    units = chosen_units(model, stage=stage, direction=direction)
    _check_own_modules(units, gated_units(model))
    modules: dict[int, GatedPair] = {}
    for unit in units:
        module = unit.module
        if not isinstance(module, GatedPair):
            raise InputError(f"{unit.name} is a {type(module).__name__}, whose gates obey no force: use a GatedPair")
        if take and module.gates.fixed_take and module.forced_take == 0:
            raise InputError(f"{unit.name} was built shut and has nothing to open: choose another unit")
        modules[id(module)] = module
    before = [(module.forced_take, module.forced_pass) for module in modules.values()]
    try:
        for module in modules.values():
            module.forced_take = module.forced_take if take is None else take
            module.forced_pass = module.forced_pass if passed is None else passed
        yield
    finally:
        for module, (own_take, own_pass) in zip(modules.values(), before, strict=True):
            module.forced_take, module.forced_pass = own_take, own_pass


def shut_gates(
    model: nn.Module, *, stage: int | None = None, direction: str | None = None
) -> AbstractContextManager[None]:
    """Within it the chosen units take nothing (z = 0): receivers stay as they are. As :func:`forced_gates`."""
    return forced_gates(model, take=0.0, stage=stage, direction=direction)


def open_gates(
    model: nn.Module, *, stage: int | None = None, direction: str | None = None
) -> AbstractContextManager[None]:
    """Within it the chosen units pass and take everything (r = z = 1). As :func:`forced_gates`."""
    return forced_gates(model, take=1.0, passed=1.0, stage=stage, direction=direction)


@contextmanager
def swapped_gates(model: nn.Module, *, stage: int | None = None) -> Iterator[None]:
    """Within it, at one stage or all, the units of the directions a → b and b → a have changed places.

    Raises:
        InputError: if nothing can be swapped: no gated units there, or no two opposite directions.
    """
    pairs = swappable_pairs(model, stage)
    if not pairs:
        where = "any stage" if stage is None else f"stage {stage}"
        raise InputError(f"no two opposite directions at {where}: swapping needs units both ways")
    places = [(model.get_submodule(unit.path.rpartition(".")[0]), unit) for pair in pairs for unit in pair]
    others = [unit for a, b in pairs for unit in (b, a)]
    try:
        for (parent, unit), other in zip(places, others, strict=True):
            parent._modules[unit.direction] = other.module
        yield
    finally:
        for parent, unit in places:
            parent._modules[unit.direction] = unit.module


def swappable_pairs(model: nn.Module, stage: int | None = None) -> list[tuple[GatedUnit, GatedUnit]]:
    """Units of opposite directions (``0_to_1`` and ``1_to_0``) with one parent; each pair once.

    Raises:
        InputError: as :func:`chosen_units`; or if one stage is asked for of a unit that serves several.
    """
    units = chosen_units(model, stage=stage)
    by_name = {unit.name: unit for unit in units}
    pairs, seen = [], set()
    for unit in units:
        parent, _, direction = unit.name.rpartition(".")
        opposite = "_to_".join(reversed(direction.split("_to_")))
        other = by_name.get(f"{parent}.{opposite}" if parent else opposite)
        # A parent that serves several stages has several names, and is met at each.
        place = (id(model.get_submodule(unit.path.rpartition(".")[0])), frozenset((direction, opposite)))
        if other is None or other is unit or place in seen:
            continue
        seen.add(place)
        pairs.append((unit, other))
    if stage is not None:
        _check_own_modules([unit for pair in pairs for unit in pair], gated_units(model))
    return pairs


def standard_interventions(model: nn.Module) -> dict[str, Intervention]:
    """Shut and open each unit (``shut/STAGE/DIRECTION``), swap each stage (``swap/STAGE``), and each of all stages.

    Units that cannot be opened or swapped are left out, and so are single stages of units that serve several.
    """
    units = chosen_units(model)
    stages = sorted({unit.stage for unit in units})
    directions = sorted({unit.direction for unit in units})
    shared = len({id(unit.module) for unit in units}) < len(units)
    built_shut = any(unit.module.gates.fixed_take and unit.module.forced_take == 0 for unit in units)  # type: ignore[union-attr]
    kinds = {"shut": shut_gates} if built_shut else {"shut": shut_gates, "open": open_gates}
    found: dict[str, Intervention] = {}
    for kind, gates in kinds.items():
        for direction in directions:
            found[f"{kind}/all/{direction}"] = partial(gates, model, direction=direction)
        if not shared:
            for unit in units:
                name = f"{kind}/{unit.stage}/{unit.direction}"
                found[name] = partial(gates, model, stage=unit.stage, direction=unit.direction)
    if swappable_pairs(model):
        found["swap/all"] = partial(swapped_gates, model)
        if not shared:
            found |= {f"swap/{s}": partial(swapped_gates, model, stage=s) for s in stages if swappable_pairs(model, s)}
    return found


def intervention_effects(
    model: nn.Module,
    evaluate: Callable[[], Mapping[str, float]],
    interventions: Mapping[str, Intervention] | None = None,
) -> dict[str, Effect]:
    """What each intervention does to each measure; the model is afterwards what it was.

    Args:
        model: trained, in eval mode.
        evaluate: measures of all tasks, the same ones at every call; of the same faces and random numbers.
        interventions: by name; by default :func:`standard_interventions`.

    Returns:
        ``untouched``, whose changes are 0, and one effect for each intervention.

    Raises:
        InputError: if the model has no gated units, or ``untouched`` names an intervention.
    """
    interventions = standard_interventions(model) if interventions is None else interventions
    if "untouched" in interventions:
        raise InputError("untouched is the name of the model without intervention: give the intervention another")
    before = dict(evaluate())
    effects = {"untouched": Effect(before, dict.fromkeys(before, 0.0))}
    for name, intervention in interventions.items():
        with intervention():
            values = dict(evaluate())
        effects[name] = Effect(values, {measure: values[measure] - before[measure] for measure in before})
    return effects


def _check_own_modules(units: list[GatedUnit], everyone: list[GatedUnit]) -> None:
    """Stop where a module of ``units`` also serves a unit that was not chosen."""
    chosen = {unit.name for unit in units}
    modules = {id(unit.module) for unit in units}
    for unit in everyone:
        if id(unit.module) in modules and unit.name not in chosen:
            raise InputError(f"the unit at {unit.name} serves several stages: intervene at all of them at once")
