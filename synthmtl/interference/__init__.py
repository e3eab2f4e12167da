"""Where tasks interfere: gradient conflict, look-ahead affinity, transfer, and what gates let through."""

from synthmtl.interference.affinity import Affinity, AffinityRecorder, look_ahead_affinity
from synthmtl.interference.conflict import ConflictRecorder, PairConflict, gradient_conflict, parameter_groups
from synthmtl.interference.features import collect_features, unit_filtering
from synthmtl.interference.filtering import Filtering, filtering_ratio
from synthmtl.interference.gates import GateMeter, GateRecorder, Openness, gate_maps, measured_gates, openness_over
from synthmtl.interference.gradients import task_losses
from synthmtl.interference.interventions import (
    Effect,
    forced_gates,
    intervention_effects,
    open_gates,
    shut_gates,
    standard_interventions,
    swapped_gates,
)
from synthmtl.interference.probes import ProbeResult, ProbeSplit, linear_probe, probe_targets, split_rows
from synthmtl.interference.recorder import Recorder
from synthmtl.interference.transfer import Gain, Transfer, relative_gain
from synthmtl.interference.units import Exchange, GatedUnit, gated_units, watched_exchanges

__all__ = [
    "Affinity",
    "AffinityRecorder",
    "ConflictRecorder",
    "Effect",
    "Exchange",
    "Filtering",
    "Gain",
    "GateMeter",
    "GateRecorder",
    "GatedUnit",
    "Openness",
    "PairConflict",
    "ProbeResult",
    "ProbeSplit",
    "Recorder",
    "Transfer",
    "collect_features",
    "filtering_ratio",
    "forced_gates",
    "gate_maps",
    "gated_units",
    "gradient_conflict",
    "intervention_effects",
    "linear_probe",
    "look_ahead_affinity",
    "measured_gates",
    "open_gates",
    "openness_over",
    "parameter_groups",
    "probe_targets",
    "relative_gain",
    "shut_gates",
    "split_rows",
    "standard_interventions",
    "swapped_gates",
    "task_losses",
    "unit_filtering",
    "watched_exchanges",
]
