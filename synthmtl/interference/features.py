"""Features on both sides of every exchange, pooled for probes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.interference.filtering import Filtering, filtering_ratio
from synthmtl.interference.probes import ProbeResult
from synthmtl.interference.units import (
    Exchange,
    GatedUnit,
    at_stage,
    check_original,
    gated_units,
    uncompiled,
    watched_exchanges,
)
from synthmtl.models.blocks import evaluating
from synthmtl.sharing import SharingUnit

PLACES = ("donor", "message", "receiver_before", "receiver_after")
"""Where features are taken: of the donor, r ⊙ donor, and of the receiver before and after the exchange."""

SIDES = {"message": ("donor", "message"), "receiver": ("receiver_before", "receiver_after")}
"""The two filters that an exchange is judged as: what the message carries of the donor, and what the exchange leaves
in the receiver."""


def pooled(features: Tensor, grid: int) -> Tensor:
    """Means over a grid of cells, float32 on the CPU: (B, C, h, w) → (B, C · grid²)."""
    return F.adaptive_avg_pool2d(features.detach().float(), grid).flatten(1).cpu()


def collect_features(
    model: nn.Module, batches: Iterable[Tensor], *, grid: int = 1, run: Callable[[Tensor], Any] | None = None
) -> dict[str, dict[str, Tensor]]:
    """Pooled features of every exchange, in eval mode.

    Gated units are taken pair by pair; with more than two tasks, ``receiver_after`` is what one pair alone would leave
    of it. Other sharing units have no message, and are taken for every ordered pair of their tasks.

    Args:
        model: with sharing units, or gated units of one's own.
        batches: images (B, C, H, W), on the model's device.
        grid: cells a side.
        run: takes a batch through the units once; by default ``model`` itself.

    Returns:
        ``{unit: {place: (N, C · grid²)}}``, ``place`` one of :data:`PLACES`; units by :attr:`GatedUnit.name`, others
        as ``NAME.DONOR_to_RECEIVER``. A unit that is forced shut has no message.

    Raises:
        InputError: if the model has no sharing unit, or no batch came.
    """
    kept: dict[str, dict[str, list[Tensor]]] = {}

    def keep(unit: str, place: str, features: Tensor | None) -> None:
        if features is not None:
            kept.setdefault(unit, {}).setdefault(place, []).append(pooled(features, grid))

    def see(unit: GatedUnit, exchange: Exchange) -> None:
        given = (exchange.donor, exchange.message, exchange.receiver, exchange.output)
        for place, features in zip(PLACES, given, strict=True):
            keep(unit.name, place, features)

    def see_plain(name: str, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        for donor, receiver in permutations(range(len(before)), 2):
            given = (before[donor], None, before[receiver], after[receiver])
            for place, features in zip(PLACES, given, strict=True):
                keep(f"{name}.{donor}_to_{receiver}", place, features)

    units = gated_units(model)
    plain = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, SharingUnit) and not any(unit.name.startswith(f"{name}.".lstrip(".")) for unit in units)
    ]
    if not units and not plain:
        raise InputError(f"{type(model).__name__} has no sharing units: nothing is exchanged")
    with evaluating(model), torch.no_grad(), watched_exchanges(model, see, units), _watched_units(plain, see_plain):
        for images in batches:
            (run or model)(images)
    if not kept:
        raise InputError("no features were collected: give at least one batch of images")
    return {unit: {place: torch.cat(parts) for place, parts in places.items()} for unit, places in kept.items()}


def unit_filtering(
    scores: Mapping[str, Mapping[str, ProbeResult]], *, needed: tuple[str, ...] = ("expression",)
) -> dict[str, Filtering]:
    """Filtering ratio of one unit: of the message against the donor, and of the receiver after against before.

    Args:
        scores: place → target → probe, of the features of one unit of :func:`collect_features`.
        needed: targets that should pass.

    Returns:
        By the names in :data:`SIDES`; a side without features (a unit without a message) is left out.
    """
    return {
        side: filtering_ratio(*({t: probe.score for t, probe in scores[p].items()} for p in places), needed=needed)
        for side, places in SIDES.items()
        if all(place in scores for place in places)
    }


@contextmanager
def _watched_units(
    units: list[tuple[str, SharingUnit]], see: Callable[[str, Sequence[Tensor], Sequence[Tensor]], None]
) -> Iterator[None]:
    """Within it, ``see`` gets the name, the features and the results of every call of plain sharing units; the calls of
    a unit that serves several stages are dealt out to them in turn."""
    with uncompiled(), ExitStack() as hooks:
        for name, module in units:
            hooks.enter_context(module.register_forward_hook(_unit_hook(name, module, see)))
        yield


def _unit_hook(
    name: str, module: SharingUnit, see: Callable[[str, Sequence[Tensor], Sequence[Tensor]], None]
) -> Callable[[nn.Module, tuple, Sequence[Tensor]], None]:
    turns = cycle(range(module.stages))

    def look(called: nn.Module, inputs: tuple, results: Sequence[Tensor]) -> None:
        check_original(called, module, name)
        see(at_stage(name, next(turns)), inputs[0], results)

    return look
