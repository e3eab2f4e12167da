"""What is wrong with the options of a study, found before anything is read or written."""

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from synthmtl.errors import InputError, check
from synthmtl.experiment.checks import check_faces
from synthmtl.experiment.config import HARD_MATCHED, FaceOptions, ModelOptions
from synthmtl.labels import EXPRESSIONS
from synthmtl.sharing import SHARING_UNITS
from synthmtl.study.config import SINGLE, StudyConfig, grid_conditions, network_options, preset, unit_of_row
from synthmtl.study.heads import head_network
from synthmtl.study.tasks import EDITING, HEADS, is_editing
from synthmtl.training import TrainingConfig, check_seed
from synthmtl.training.aggregation import AGGREGATORS, check_aggregator
from synthmtl.training.turns import PLAIN, check_precision

log = logging.getLogger("synthmtl")

UNITS = tuple(unit for unit in (*SHARING_UNITS, HARD_MATCHED) if unit != SINGLE)
"""What tasks may share by."""

_DECODING = ("condition", "joint", "compile_units")
_DENOISING = ("prediction", "diffused", "unet_channels", "patch_size")


def check_study(config: StudyConfig) -> None:
    """Stop at options that no data could make good.

    Raises:
        InputError: naming the option and what it takes.
    """
    grid, faces, synthesis, measures = config.grid, config.faces, config.synthesis, config.measures
    check_tasks(config)
    for name, values in dataclasses.asdict(grid).items():
        if not values:
            raise InputError(f"--grid.{name} is empty: give at least one")
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise InputError(f"--grid.{name} has {twice[0]!r} twice: each cell of the grid may be there once only")
    for aggregator in grid.aggregators:
        check_aggregator(aggregator, config.aggregator_options.get(aggregator))
        check_precision(config.precision, aggregator)
    for name, options in config.variants.items():
        check_variant(name, options)
    for name in config.unit_options:
        check(name in UNITS, "unit_options", name, f"one of {', '.join(UNITS)}")
    for name in config.aggregator_options:
        check(name in AGGREGATORS, "aggregator_options", name, f"one of {', '.join(AGGREGATORS)}")
    names = Counter(condition.name for condition in grid_conditions(grid))
    alike = [name for name, count in names.items() if count > 1]
    if alike:
        raise InputError(f"--grid.rho has two values that are both called {alike[0]}: give six digits at most")
    for rho in grid.rho:
        check(0 <= rho <= 1, "grid.rho", rho, "in [0, 1]")
    check(faces.path is None or grid.rho == [0], "grid.rho", grid.rho, "[0] with --faces.path: only renders have it")
    check_faces(faces, preset(config.preset).faces, FaceOptions())
    check(config.model.generator == "gan", "model.generator", config.model.generator, "gan in a study")
    check(config.model.sharing == "leaky", "model.sharing", config.model.sharing, "in --grid.sharing")
    check(not config.model.sharing_options, "model.sharing_options", config.model.sharing_options, "in --unit_options")
    check(not faces.nuisance_correlation, "faces.nuisance_correlation", faces.nuisance_correlation, "in --grid.rho")
    check_trainings(config)
    if "two_step" in grid.schedules and any(a not in PLAIN for a in grid.aggregators):
        raise InputError(
            "--grid.aggregators must be [sum] with --grid.schedules two_step: the tasks are never trained together"
        )
    for labels in grid.labels_per_class:
        check(labels is None or labels >= 1, "grid.labels_per_class", labels, "at least 1, or null")
    check(config.workers is None or config.workers >= 1, "workers", config.workers, "at least 1, or null")
    check(0 <= config.label_smoothing < 1, "label_smoothing", config.label_smoothing, "in [0, 1)")
    if not synthesis.labels and config.model.condition != "expression":
        raise InputError(
            f"--synthesis.labels false is for --model.condition expression: {config.model.condition} would tell as much"
        )
    edits, share = synthesis.edits, synthesis.rendered_share
    check(edits >= 2, "synthesis.edits", edits, "at least 2: the first pair of a step is not compared with its target")
    both = synthesis.mode == "paired" or 2 <= round(share * edits) < edits
    check(both, "synthesis.rendered_share", share, f"such that {edits} edits are of both kinds, 2 or more rendered")
    check(synthesis.rendered_subjects >= 1, "synthesis.rendered_subjects", synthesis.rendered_subjects, "at least 1")
    for name in ("conflict_every", "gates_every", "affinity_every", "map_faces"):
        check(getattr(measures, name) >= 0, f"measures.{name}", getattr(measures, name), "at least 0 (off)")
    for name in ("held_out_per_class", "held_out_subjects", "intervention_faces"):
        check(getattr(measures, name) >= 4, f"measures.{name}", getattr(measures, name), "at least 4")
    with torch.device("meta"):
        for sharing in dict.fromkeys([*grid.sharing, *config.variants, *config.unit_options]):
            if is_editing(config.tasks):
                network_options(config, sharing).build(EXPRESSIONS, faces)
            else:
                head_network(config, sharing, EXPRESSIONS, config.tasks)
    _say_unused(config)


def _say_unused(config: StudyConfig) -> None:
    """Log what the grid lacks: part of a larger one, given beside its configuration, need not use all that is there."""
    grid = config.grid
    for option, named, used in (
        ("unit_options", config.unit_options, [unit_of_row(config, sharing) for sharing in grid.sharing]),
        ("variants", config.variants, grid.sharing),
        ("aggregator_options", config.aggregator_options, grid.aggregators),
    ):
        if unused := [name for name in named if name not in used]:
            log.info("--%s: not in the grid, so not used: %s", option, ", ".join(unused))


def check_trainings(config: StudyConfig) -> None:
    """Stop at settings of trainings that a study has in other places, or that none of its trainings could heed.

    Raises:
        InputError: naming the option.
    """
    for name in ("joint", "recognition"):
        training: TrainingConfig = getattr(config, name)
        check(training.aggregator is None, f"{name}.aggregator", training.aggregator, "in --grid.aggregators")
        check(training.precision == "auto", f"{name}.precision", training.precision, "in --precision")
        check_seed(name, training)
    heads, alone = not is_editing(config.tasks), "joint" not in config.grid.schedules
    for name in ("evaluate_every", "patience"):
        if getattr(config.joint, name) is None:
            continue
        if heads:
            raise InputError(
                f"--joint.{name} is for --tasks [{', '.join(EDITING)}]: heads keep the weights of the last step, so "
                "leave it out"
            )
        if alone:
            raise InputError(
                f"--joint.{name} is for --grid.schedules joint: in two steps, it is --recognition.{name} that counts"
            )


def check_tasks(config: StudyConfig) -> None:
    """Stop at tasks that cannot be studied together, and at options that they have no use for.

    Raises:
        InputError: naming them.
    """
    tasks, grid, usual = config.tasks, config.grid, ModelOptions()
    editing = is_editing(tasks)
    known = {*HEADS} if not editing else {*EDITING}
    if len(tasks) < 2 or len(set(tasks)) < len(tasks) or not set(tasks) <= known:
        raise InputError(f"--tasks is {tasks}: give [{', '.join(EDITING)}], or two or more of {', '.join(HEADS)}")
    check(config.model.tasks == usual.tasks, "model.tasks", config.model.tasks, "left out: give --tasks")
    if editing:
        return
    for name in (*_DECODING, *_DENOISING):
        if getattr(config.model, name) != getattr(usual, name):
            raise InputError(f"--model.{name} is for --tasks [{', '.join(EDITING)}]: leave it out")
    for name in config.model.task_weights:
        check(name in (*tasks, *usual.task_weights), "model.task_weights", name, f"one of {', '.join(tasks)}")
    if config.label_smoothing and "expression" not in tasks:
        raise InputError("--label_smoothing is for the task expression: leave it out")
    check(grid.schedules == ["joint"], "grid.schedules", grid.schedules, "[joint] without synthesis")
    check(grid.labels_per_class == [None], "grid.labels_per_class", grid.labels_per_class, "[null] without synthesis")
    check_unused(config, "synthesis", used=("weights.sharing",))
    check_unused(config, "recognition")


def check_unused(config: StudyConfig, group: str, *, used: Sequence[str] = ()) -> None:
    """Stop at an option of a group that only recognition and synthesis need; the values of presets may stand.

    Args:
        config: all options.
        group: name of the group.
        used: names in it that are needed all the same.

    Raises:
        InputError: naming the option.
    """
    presets = [dict(_flat(dataclasses.asdict(getattr(preset(name), group)))) for name in ("smoke", "quick", "full")]
    for name, value in _flat(dataclasses.asdict(getattr(config, group))):
        if name not in used and all(name not in one or value != one[name] for one in presets):
            raise InputError(f"--{group}.{name} is for --tasks [{', '.join(EDITING)}]: leave it out")


def _flat(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested options."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_variant(name: str, options: dict[str, Any]) -> None:
    """Stop at a variant that is none; its options are checked when the network is built.

    Raises:
        InputError: naming it.
    """
    if re.fullmatch(r"[A-Za-z0-9_.]+", name) is None or name in (*UNITS, SINGLE):
        raise InputError(f"--variants: {name!r} must be a new name, of letters, digits, '_' and '.'")
    if options.get("unit") not in UNITS:
        raise InputError(f"--variants.{name}.unit is {options.get('unit')!r}: it must be one of {', '.join(UNITS)}")
