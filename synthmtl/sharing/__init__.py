"""Sharing units: what tasks exchange between their branches, one published idea a file."""

from synthmtl.sharing.base import SharingUnit
from synthmtl.sharing.gates import GatedPair, GateMaps, Gates, PairwiseSharing, compile_units, recorded_gates
from synthmtl.sharing.hard import HardSharing
from synthmtl.sharing.leaky import LEAKY_ABLATIONS, ConvFLU, LeakySharing
from synthmtl.sharing.none import NoSharing
from synthmtl.sharing.projection import ProjectedExchange
from synthmtl.sharing.registry import SHARING_UNITS, build_sharing, sharing_class

__all__ = [
    "LEAKY_ABLATIONS",
    "SHARING_UNITS",
    "ConvFLU",
    "GateMaps",
    "GatedPair",
    "Gates",
    "HardSharing",
    "LeakySharing",
    "NoSharing",
    "PairwiseSharing",
    "ProjectedExchange",
    "SharingUnit",
    "build_sharing",
    "compile_units",
    "recorded_gates",
    "sharing_class",
]
