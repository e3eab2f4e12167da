"""Sharing units by name, built from options that come from a file or the command line."""

from inspect import Parameter
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from synthmtl.errors import InputError
from synthmtl.sharing.adopt import AdoptSharing
from synthmtl.sharing.base import SharingUnit
from synthmtl.sharing.bottleneck import BottleneckSharing
from synthmtl.sharing.cgc import CGC
from synthmtl.sharing.cross_stitch import CrossStitch
from synthmtl.sharing.hard import HardSharing
from synthmtl.sharing.leaky import LEAKY_ABLATIONS, LeakySharing
from synthmtl.sharing.mtan import MTAN
from synthmtl.sharing.nddr import NDDR
from synthmtl.sharing.none import NoSharing
from synthmtl.sharing.replace import ReplaceSharing
from synthmtl.sharing.residual import ResidualSharing
from synthmtl.sharing.sparse import SparseSharing

SHARING_UNITS: dict[str, type[SharingUnit]] = {
    "none": NoSharing,
    "hard": HardSharing,
    "leaky": LeakySharing,
    **dict.fromkeys(LEAKY_ABLATIONS, LeakySharing),
    "cross_stitch": CrossStitch,
    "nddr": NDDR,
    "mtan": MTAN,
    "cgc": CGC,
    "residual": ResidualSharing,
    "bottleneck": BottleneckSharing,
    "sparse": SparseSharing,
    "replace": ReplaceSharing,
    "adopt": AdoptSharing,
}
"""Sharing units by the name that ``--model.sharing`` takes; of an ablation, with the options that make it one."""


def sharing_class(name: str) -> type[SharingUnit]:
    """The class of a sharing unit.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in SHARING_UNITS:
        raise InputError(f"unknown sharing unit {name!r}: use one of {', '.join(SHARING_UNITS)}")
    return SHARING_UNITS[name]


def build_sharing(name: str, channels: int, tasks: int = 2, options: dict[str, Any] | None = None) -> SharingUnit:
    """A new sharing unit.

    Args:
        name: one of :data:`SHARING_UNITS`.
        channels: of the stage that it follows.
        tasks: at least 2.
        options: of the unit; of an ablation, only those that do not make it one.

    Raises:
        InputError: if the name or an option is unknown, or an option's value does not suit it.
    """
    unit = sharing_class(name)
    fixed = LEAKY_ABLATIONS.get(name, {})
    known = {option: parameter for option, parameter in unit.options().items() if option not in fixed}
    for option, value in (options or {}).items():
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"sharing_options: unit {name!r} has no option {option!r}, {has}")
        wanted = _mismatch(value, known[option])
        if wanted:
            raise InputError(f"sharing_options: {option!r} of unit {name!r} is {value!r}, it must be {wanted}")
    return unit(channels, tasks, **{**fixed, **(options or {})})


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", list: "a list", NoneType: "null"}


def _mismatch(value: Any, parameter: Parameter) -> str | None:
    """What an option takes, in words, if ``value`` is nothing of that kind."""
    kind = parameter.annotation
    if get_origin(kind) is Literal:
        # By type too: 1.0 and True equal 1, and are no kernel size.
        known = any(type(value) is type(one) and value == one for one in get_args(kind))
        return None if known else " or ".join(map(str, get_args(kind)))
    kinds = {get_origin(each) or each for each in get_args(kind) or (kind,)}
    suits = type(value) in kinds or (type(value) is int and float in kinds) or (type(value) is tuple and list in kinds)
    return None if suits else " or ".join(sorted(_NAMES[each] for each in kinds))
