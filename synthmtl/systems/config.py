"""Options that the recipes of the multi-task systems share: data sets with different labels, and rows of a table."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.errors import InputError
from synthmtl.labels import TASKS
from synthmtl.systems.objectives import LossOptions
from synthmtl.training import TrainingConfig, check_seed

Options = TypeVar("Options", bound="SystemOptions")


@dataclass
class Source:
    """One data set of a mixture: on disk, or rendered if it has no ``path``.

    Attributes:
        path: folder or file of the data set; None renders faces.
        format: layout on disk (``synthmtl.data.readers.formats``), detected by default.
        labels: tasks whose labels are used in training, e.g. ``[landmarks]``; None = all that it carries.
        train: whether its training faces belong to the mixture.
        score: splits that every row is scored on.
        split_seed: of splits that the data do not bring along.
        on_bad_image: ``error`` stops at files that cannot be read and lists them, ``skip`` leaves them out.
        on_leak: what becomes of training faces that have a look-alike in validation or test, or show people who are
            there, and of validation faces with a look-alike in test: ``drop`` leaves them out, ``warn`` says how many
            they are, ``error`` stops.
        per_class, compound_per_class: rendered training faces per expression and per compound expression.
        held_out_per_class: rendered faces per expression, and per compound expression if there are any, in the
            validation and in the test split.
        subjects: rendered people in the training, validation and test split.
        style: ``studio``, or ``wild`` as photographs from the web, of rendered faces.
        render_seed: of rendered faces.
    """

    path: str | None = None
    format: str | None = None
    labels: list[str] | None = None
    train: bool = True
    score: list[str] = field(default_factory=lambda: ["test"])
    split_seed: int = 0
    on_bad_image: Literal["error", "skip"] = "error"
    on_leak: Literal["drop", "warn", "error"] = "drop"
    per_class: int = 500
    compound_per_class: int = 0
    held_out_per_class: int = 80
    subjects: tuple[int, int, int] = (400, 20, 40)
    style: Literal["studio", "wild"] = "studio"
    render_seed: int = 0


@dataclass
class SystemModel:
    """What every system's network takes; a recipe adds its own and sets the defaults.

    Attributes:
        size: ``published``, ``cpu`` (48 px, narrow) or ``tiny``, see the ``SIZES`` of the system's network.
        tasks: what it predicts: any of expression, compound, action_units, landmarks, valence_arousal.
        sharing: unit between the tasks' branches (``synthmtl.sharing.SHARING_UNITS``); ``hard`` is one trunk for all.
        sharing_options: of the unit, by name, and ``stages``, after which of the stages that are not common the
            branches meet, counted from 0.
        one_unit: one unit for all stages.
        dropout: in front of the classifiers.
    """

    size: Literal["published", "cpu", "tiny"] = "cpu"
    tasks: list[str] = field(default_factory=lambda: ["expression"])
    sharing: str = "hard"
    sharing_options: dict[str, Any] = field(default_factory=dict)
    one_unit: bool = False
    dropout: float = 0.0

    def arguments(self) -> dict[str, Any]:
        """What a network takes of these options, beside its size."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(SystemModel) if f.name != "size"}


@dataclass
class SystemOptions:
    """What every system's recipe takes beside its own options.

    Attributes:
        data: data sets by name; on the command line ``--data.NAME.path DIR``.
        sources: names of those that training uses; None = all whose ``train`` is true.
        sampling: how often each data set comes up: ``size`` (every face equally often), ``equal``, ``temperature``, or
            the share of each by name.
        temperature: T of ``temperature``; shares go with size^(1/T).
        labelled: ``any``: train on every face with a label of a task of the model; ``all``: only on faces that carry
            the labels of all its tasks.
        image_size, color: side of the faces in pixels; RGB instead of gray.
        variants: rows of the table: {name: {option: value}} with options by their dotted names, e.g.
            ``{hard: {model.sharing: hard}}``. The first is compared with each other one.
        only: names of the variants to run; None = all.
        seeds: of every variant.
        training: of every variant.
        losses: what is minimized.
        augmentation: random views of the training faces; landmarks move with them.
        mirror: average predictions with those of the mirrored face.
        workers: trainings side by side; null = one a core, up to four, on the CPU.
        precision: ``auto``, ``no``, ``bf16`` or ``fp16``.
        tracker: what follows the curves, by the names of accelerate (``tensorboard``, ``wandb``, ...), or ``none``; it
            writes into ``tracking`` and asks no server unless its own environment variables say so.
        preset: ``smoke`` trains four steps on a few small faces, to prove the installation.
    """

    data: dict[str, Source] = field(default_factory=lambda: {"rendered": Source()})
    sources: list[str] | None = None
    sampling: Literal["size", "equal", "temperature"] | dict[str, float] = "size"
    temperature: float = 2.0
    labelled: Literal["any", "all"] = "any"
    image_size: int = 48
    color: bool = False
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    only: list[str] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=1500, ema_decay=0.99))
    losses: LossOptions = field(default_factory=LossOptions)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    mirror: bool = True
    workers: int | None = None
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    tracker: str = "tensorboard"
    preset: Literal["quick", "smoke"] = "quick"


JOB_WIDE = (
    "data", "image_size", "color", "variants", "only", "seeds", "workers", "precision", "tracker", "preset"
)  # fmt: skip
"""Options that variants cannot change: what is scored must be the same, and one process trains several of them."""


def check_options(options: SystemOptions) -> None:
    """Check what does not depend on the data.

    Raises:
        InputError: if a name is unknown, or a list that must have entries is empty.
    """
    if not options.data:
        raise InputError("data: give at least one data set")
    for name, source in options.data.items():
        for task in source.labels or ():
            if task not in TASKS:
                raise InputError(f"data.{name}.labels: unknown task {task!r}: use one of {', '.join(TASKS)}")
        for split in source.score:
            if split not in ("train", "validation", "test"):
                raise InputError(f"data.{name}.score: unknown split {split!r}: use train, validation or test")
    for name in options.sources or ():
        if name not in options.data:
            raise InputError(f"sources: no data set {name!r} in data, which has {', '.join(options.data)}")
    if not any(source.score for source in options.data.values()):
        raise InputError("data: no data set has a split in its score, so nothing would be measured")
    if len(options.seeds) != len(set(options.seeds)) or not options.seeds:
        raise InputError(f"seeds: give at least one and none twice, not {options.seeds}")
    for name in options.only or ():
        if name not in options.variants:
            raise InputError(f"only: unknown variant {name!r}: use one of {', '.join(options.variants)}")
    check_seed("training", options.training)
    for variant, changes in options.variants.items():
        if not variant.replace("_", "").replace("-", "").isalnum():
            raise InputError(f"variants: {variant!r} names a folder: use letters, digits, - and _")
        for name in changes:
            if name == "training.seed" or name.split(".")[0] in JOB_WIDE:
                raise InputError(f"variants.{variant}: {name} is the same for all variants: give it beside them")
        override(options, changes, where=f"variants.{variant}")


def smoke(options: Options) -> Options:
    """The same options with a training and faces so small that they prove the installation only."""
    data = {
        name: source
        if source.path
        else dataclasses.replace(
            source,
            per_class=4,
            compound_per_class=min(source.compound_per_class, 2),
            held_out_per_class=2,
            subjects=(6, 3, 3),
        )
        for name, source in options.data.items()
    }
    training = dataclasses.replace(options.training, steps=4, batch_size=16, log_every=2)
    model = dataclasses.replace(network_options(options), size="tiny")
    changes: dict[str, Any] = {"data": data, "image_size": 32, "model": model, "training": training, "workers": 1}
    return dataclasses.replace(options, seeds=options.seeds[:2], **changes)


def network_options(options: SystemOptions) -> SystemModel:
    """The options of a recipe's network, ``model``, which every recipe adds with defaults of its own."""
    recipe: Any = options
    return recipe.model


def chosen_variants(options: SystemOptions) -> dict[str, dict[str, Any]]:
    """The variants to run, in their order."""
    return {name: each for name, each in options.variants.items() if options.only is None or name in options.only}


def override(options: Options, changes: dict[str, Any], *, where: str = "options") -> Options:
    """A copy with some options changed, each named by the dots that lead to it (``model.sharing``).

    Args:
        where: named in messages.

    Raises:
        InputError: if there is no option of a name, or its value is of another kind.
    """
    for name, value in changes.items():
        options = _replaced(options, name.split("."), value, f"{where}: {name}")
    return options


def _choices(hint: Any) -> list[str]:
    """The strings that a type like ``Literal["a", "b"] | None`` takes; none if it takes any."""
    if get_origin(hint) is Literal:
        return [value for value in get_args(hint) if isinstance(value, str)]
    if str in get_args(hint):
        return []
    return [name for part in get_args(hint) for name in _choices(part)]


def _replaced(node: Any, path: list[str], value: Any, where: str) -> Any:
    head, *rest = path
    if isinstance(node, dict):
        if head not in node:
            raise InputError(f"{where}: there is no {head!r}, only {', '.join(node)}")
        return node | {head: _replaced(node[head], rest, value, where) if rest else value}
    known = [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
    if head not in known:
        raise InputError(f"{where}: there is no option {head!r}" + (f", only {', '.join(known)}" if known else ""))
    old = getattr(node, head)
    if rest:
        return dataclasses.replace(node, **{head: _replaced(old, rest, value, where)})
    if isinstance(value, str) and (names := _choices(get_type_hints(type(node))[head])) and value not in names:
        raise InputError(f"{where}: is {value!r}, it must be one of {', '.join(names)}")
    numbers = (int, float)
    alike = type(value) is type(old) or (type(value) in numbers and type(old) in numbers) or None in (old, value)
    sequences = (list, tuple)
    if not alike and not (isinstance(value, sequences) and isinstance(old, sequences)):
        raise InputError(f"{where}: is {value!r}, it must be a {type(old).__name__} such as {old!r}")
    return dataclasses.replace(node, **{head: type(old)(value) if type(old) in sequences else value})
