"""Options of the interference study and its presets."""

import dataclasses
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.errors import InputError
from synthmtl.experiment.config import FaceOptions, ModelOptions
from synthmtl.labels import EXPRESSIONS
from synthmtl.losses import SynthesisWeights
from synthmtl.study.tasks import EDITING
from synthmtl.training import TrainingConfig

SINGLE = "none"
"""The sharing unit whose cells train each task on its own, in a network of its own: the reference of every gain."""


@dataclass
class Grid:
    """What is combined with what; every combination is a cell.

    Attributes:
        sharing: sharing units, or ``variants`` of them, by name; ``none`` trains each task in a network of its own, the
            reference of all gains.
        aggregators: how the tasks' gradients are put together, by name.
        schedules: ``joint`` (both tasks in every step) or ``two_step`` (synthesis first, then recognition, which leaves
            the stem and the synthesis branch as they are; a single trunk is trained on).
        labels_per_class: training faces per class whose expression recognition may see, drawn anew by each seed; null =
            all.
        rho: nuisance correlations of rendered training faces, 0 to 1; [0] for the user's faces.
        seeds: of initialization and batches; every unit gets the same ones, so that comparisons are paired.
    """

    sharing: list[str] = field(default_factory=lambda: ["none", "hard_matched", "cross_stitch", "leaky"])
    aggregators: list[str] = field(default_factory=lambda: ["sum"])
    schedules: list[Literal["joint", "two_step"]] = field(default_factory=lambda: ["joint"])
    labels_per_class: list[int | None] = field(default_factory=lambda: [None])
    rho: list[float] = field(default_factory=lambda: [0.0, 0.9])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])


@dataclass
class EditOptions:
    """The synthesis task of a study. There is no guide, perceptual distance or critic, which would bring in a third
    party; their weights play no role.

    Attributes:
        mode: ``paired`` (same-subject pairs of the training faces), ``mixed`` (rendered pairs beside the user's faces)
            or ``auto``: paired if the data have such pairs.
        edits: faces edited in each step.
        rendered_share: share of them that are rendered pairs, in mixed mode.
        rendered_subjects: how many rendered people teach in mixed mode.
        labels: tell the decoder the wanted expression. Without, it learns from the style alone, which is read from the
            target, so that synthesis sees no expression label.
        weights: of the losses.
    """

    mode: Literal["auto", "paired", "mixed"] = "auto"
    edits: int = 40
    rendered_share: float = 0.5
    rendered_subjects: int = 400
    labels: bool = True
    weights: SynthesisWeights = field(default_factory=SynthesisWeights)


@dataclass
class MeasureOptions:
    """What is measured of each cell beside its scores.

    Attributes:
        conflict_every: steps between two looks at the tasks' gradients; 0 turns them off. Every 20 steps they make
            joint training 4 % longer (``python -m tests.benchmarks looks``).
        gates_every: steps between two looks at how far gates are open, which cost next to nothing; 0 turns them off.
        affinity_every: steps between two looks at what a step on one task does to the other's loss, of which each takes
            as long as two and a third steps; 0 turns them off.
        map_faces: held-out faces over which maps of the gates are laid; 0 = none.
        held_out_per_class: rendered faces per class of people that no split has, for synthesis error, gates and probes.
        held_out_subjects: how many such people.
        probes: linear probes on both sides of every exchange.
        interventions: shut, open and swap gates at test time.
        intervention_faces: test and held-out faces that these are measured on.
        networks: keep the trained networks of each cell.
    """

    conflict_every: int = 20
    gates_every: int = 20
    affinity_every: int = 40
    map_faces: int = 6
    held_out_per_class: int = 120
    held_out_subjects: int = 48
    probes: bool = True
    interventions: bool = True
    intervention_faces: int = 320
    networks: bool = True


@dataclass
class StudyConfig:
    """Everything that a study does.

    Attributes:
        tasks: ``[expression, synthesis]``, or two or more of expression, action_units, landmarks and valence_arousal:
            these are heads of one network (``models.SJMT``), a branch each, of the ``size``, ``width``, ``one_unit``,
            ``dropout`` and ``task_weights`` of ``model``, which learns from all training faces by the settings of
            ``joint``, and keeps the weights of the last step. What the first of them receives of the second is probed.
        grid: what is combined with what.
        unit_options: options of sharing units: {unit: {option: value}}. Those of units that the grid lacks are not
            used; nor are such variants, and options of such aggregators.
        variants: sharing units with options of their own, each under a name that the grid takes:
            {name: {unit: leaky, gate_bias: 0.0}}. The options join those in ``unit_options``, and go before them.
        aggregator_options: options of aggregators: {aggregator: {option: number}}.
        label_smoothing: of the cross-entropy.
        mirror: average predictions with those of the mirrored face.
        workers: cells side by side, each with its share of the cores; null = one a core, up to four, on the CPU.
        precision: of training: ``auto`` (bf16 where the machine computes in it), ``no``, ``bf16`` or ``fp16``.
        tracker: what follows the curves, by the names of accelerate (``tensorboard``, ``wandb``, ...), or ``none``; it
            writes into ``tracking`` and asks no server unless its own environment variables say so.
        faces, model, synthesis, augmentation, measures: see there; the network's sharing unit is the grid's.
        joint: training of both tasks, of synthesis in two steps, and of single tasks. Weights are selected by how well
            they recognize; synthesis alone trains all steps, whatever the ``patience``.
        recognition: training of recognition in two steps.
        preset: what the defaults were taken from.
    """

    tasks: list[str] = field(default_factory=lambda: list(EDITING))
    grid: Grid = field(default_factory=Grid)
    unit_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    aggregator_options: dict[str, dict[str, float]] = field(default_factory=dict)
    label_smoothing: float = 0.0
    mirror: bool = True
    workers: int | None = None
    precision: str = "auto"
    tracker: str = "tensorboard"
    faces: FaceOptions = field(default_factory=FaceOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    synthesis: EditOptions = field(default_factory=EditOptions)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    joint: TrainingConfig = field(default_factory=TrainingConfig)
    recognition: TrainingConfig = field(default_factory=TrainingConfig)
    measures: MeasureOptions = field(default_factory=MeasureOptions)
    preset: str = "quick"


@dataclass(frozen=True)
class Condition:
    """What methods are compared under.

    Attributes:
        rho, labels_per_class, schedule: as in :class:`Grid`.
    """

    rho: float
    labels_per_class: int | None = None
    schedule: str = "joint"

    @property
    def name(self) -> str:
        """E.g. ``rho0.9-labels2-two_step``; labels if they are few, the schedule if it is not joint."""
        labels = [] if self.labels_per_class is None else [f"labels{self.labels_per_class}"]
        return "-".join([f"rho{self.rho:g}", *labels, *([] if self.schedule == "joint" else [self.schedule])])


@dataclass(frozen=True)
class Cell:
    """One training of the grid.

    Attributes:
        sharing, seed: as in :class:`Grid`.
        aggregator: as there; ``single`` where each task is trained on its own.
        condition: the rest.
    """

    sharing: str
    aggregator: str
    condition: Condition
    seed: int

    @property
    def name(self) -> str:
        """Of its folder below ``cells/``."""
        return f"{self.sharing}-{self.aggregator}-{self.condition.name}-seed{self.seed}"

    @property
    def method(self) -> str:
        """What is compared: the sharing unit, with its aggregator unless that is the plain sum."""
        return self.sharing if self.aggregator in ("sum", "single") else f"{self.sharing}+{self.aggregator}"

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, as results state it."""
        own = {"sharing": self.sharing, "aggregator": self.aggregator, "condition": self.condition.name}
        return {
            "name": self.name,
            "method": self.method,
            **own,
            **dataclasses.asdict(self.condition),
            "seed": self.seed,
        }


def grid_conditions(grid: Grid) -> list[Condition]:
    """All conditions, the nuisance correlation changing fastest."""
    found = product(grid.schedules, grid.labels_per_class, grid.rho)
    return [Condition(float(rho), labels, schedule) for schedule, labels, rho in found]


def grid_cells(grid: Grid) -> list[Cell]:
    """All cells, seed by seed, so that an unfinished study has every unit at some seeds."""
    found = {}
    for seed, condition, sharing, aggregator in product(
        grid.seeds, grid_conditions(grid), grid.sharing, grid.aggregators
    ):
        cell = Cell(sharing, "single" if sharing == SINGLE else aggregator, condition, seed)
        found[cell.name] = cell
    return list(found.values())


def unit_of_row(config: StudyConfig, sharing: str) -> str:
    """The sharing unit that a name in the grid stands for."""
    return config.variants.get(sharing, {}).get("unit", sharing)


def options_of_row(config: StudyConfig, sharing: str) -> dict[str, Any]:
    """Options of the sharing unit that a name in the grid stands for."""
    own = {name: value for name, value in config.variants.get(sharing, {}).items() if name != "unit"}
    return config.unit_options.get(unit_of_row(config, sharing), {}) | own


def network_options(config: StudyConfig, sharing: str) -> ModelOptions:
    """Options of the network with this sharing unit, or variant of one."""
    unit, options = unit_of_row(config, sharing), options_of_row(config, sharing)
    return dataclasses.replace(config.model, sharing=unit, sharing_options=options)


PUBLISHED_UNITS = ["none", "hard", "hard_matched", "cross_stitch", "nddr", "mtan", "cgc", "residual", "leaky"]
"""Sharing units of papers, and their controls."""


def preset(name: str) -> StudyConfig:
    """Defaults of ``smoke`` (proves the installation), ``quick`` (minutes to an hour on two cores) or ``full``.

    Raises:
        InputError: if there is no such preset.
    """
    if name == "smoke":
        steps = TrainingConfig(steps=6, batch_size=16, log_every=2)
        return StudyConfig(
            grid=Grid(sharing=["none", "cross_stitch", "leaky"], rho=[0.0, 0.9], seeds=[0, 1]),
            workers=1,
            faces=FaceOptions(
                image_size=32,
                train_counts=dict.fromkeys(EXPRESSIONS, 12),
                validation_per_class=4,
                test_per_class=4,
                subjects=(16, 4, 4),
            ),
            model=ModelOptions(size="tiny"),
            synthesis=EditOptions(edits=8, rendered_subjects=8),
            measures=MeasureOptions(
                conflict_every=2,
                gates_every=2,
                affinity_every=4,
                map_faces=2,
                held_out_per_class=8,
                held_out_subjects=8,
                intervention_faces=16,
                networks=False,
            ),
            joint=steps,
            recognition=dataclasses.replace(steps),
            preset=name,
        )
    balanced = dict.fromkeys(EXPRESSIONS, 160)
    if name == "quick":
        return StudyConfig(
            faces=FaceOptions(train_counts=balanced),
            model=ModelOptions(width=0.75),
            joint=TrainingConfig(steps=330, batch_size=32, learning_rate=3e-3),
            recognition=TrainingConfig(steps=180, batch_size=32, learning_rate=1.5e-3),
            preset=name,
        )
    if name == "full":
        published = TrainingConfig(
            steps=100_000, batch_size=8, optimizer="adam", learning_rate=1e-4, betas=(0.5, 0.999), weight_decay=5e-4
        )
        return StudyConfig(
            grid=Grid(sharing=list(PUBLISHED_UNITS), rho=[0.0, 0.5, 0.9], seeds=[0, 1, 2, 3, 4]),
            faces=FaceOptions(image_size=96, train_counts=balanced),
            model=ModelOptions(size="published"),
            synthesis=EditOptions(edits=8),
            joint=published,
            recognition=dataclasses.replace(published, steps=20_000),
            preset=name,
        )
    raise InputError(f"unknown preset {name!r}: use smoke, quick or full")
