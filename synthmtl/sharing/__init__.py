"""Sharing units: what tasks exchange between their branches, one published idea a file."""

from synthmtl.errors import InputError
from synthmtl.sharing.base import SharingUnit
from synthmtl.sharing.hard import HardSharing
from synthmtl.sharing.leaky import ConvFLU, LeakySharing
from synthmtl.sharing.none import NoSharing

SHARING_UNITS: dict[str, type[SharingUnit]] = {"none": NoSharing, "hard": HardSharing, "leaky": LeakySharing}
"""Sharing units by the name that ``--model.sharing`` takes."""


def sharing_class(name: str) -> type[SharingUnit]:
    """The class of a sharing unit.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in SHARING_UNITS:
        raise InputError(f"unknown sharing unit {name!r}: use one of {', '.join(SHARING_UNITS)}")
    return SHARING_UNITS[name]


__all__ = ["SHARING_UNITS", "ConvFLU", "HardSharing", "LeakySharing", "NoSharing", "SharingUnit", "sharing_class"]
