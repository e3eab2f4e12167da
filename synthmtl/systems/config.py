"""Options that the recipes of the multi-task systems share: data sets with different labels, and rows of a table."""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.errors import InputError
from synthmtl.labels import TASKS
from synthmtl.systems.objectives import LossOptions
from synthmtl.training import TrainingConfig, check_seed
from synthmtl.training.kinds import fitted
from synthmtl.training.turns import check_precision

Options = TypeVar("Options", bound="SystemOptions")


@dataclass
class Source:
    """One data set of a mixture: on disk, or rendered if it has no ``path``.

    Attributes:
        path: folder or file of the data set; None renders faces.
        format: layout on disk (``synthmtl.data.readers.formats``), detected by default.
        every: read only each ``every``-th frame of a video of Aff-Wild2, DISFA or BP4D.
        peaks: how many frames at the end of a sequence of CK+ carry its expression.
        labels: tasks whose labels are used in training, e.g. ``[landmarks]``; None = all that it carries.
        train: whether its training faces belong to the mixture.
        score: splits that every row is scored on.
        split_seed: of splits that the data do not bring along.
        on_bad_image: ``error`` stops at files that cannot be read and lists them, ``skip`` leaves them out.
        on_leak: what becomes of training faces that have a look-alike in validation or test, or show people who are
            there, of those with a look-alike in what another data set scores, and of validation faces with a look-alike
            in test: ``drop`` leaves them out, ``warn`` says how many they are, ``error`` stops.
        unit_threshold: intensity from which an action unit counts as active when it is scored; published rules are 0.4
            for DISFA and 0.2 for CK+.
        per_class, compound_per_class: rendered training faces per expression and per compound expression.
        held_out_per_class: rendered faces per expression, and per compound expression if there are any, in the
            validation and in the test split.
        subjects: rendered people in the training, validation and test split.
        style: ``studio``, or ``wild`` as photographs from the web, of rendered faces.
        render_seed: of rendered faces; nobody may be in one data set's training and another one's scored splits, so
            data sets with different ``subjects`` need different ones.
    """

    path: str | None = None
    format: str | None = None
    every: int = 1
    peaks: int = 1
    labels: list[str] | None = None
    train: bool = True
    score: list[str] = field(default_factory=lambda: ["test"])
    split_seed: int = 0
    on_bad_image: Literal["error", "skip"] = "error"
    on_leak: Literal["drop", "warn", "error"] = "drop"
    unit_threshold: float = 0.5
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
        FILES: options whose value may be the path of a file that is read, which a recipe adds.
        size: ``published``, ``cpu`` (48 px, narrow) or ``tiny``, see the ``SIZES`` of the system's network.
        tasks: what it predicts: any of expression, compound, action_units, landmarks, valence_arousal.
        sharing: unit between the tasks' branches (``synthmtl.sharing.SHARING_UNITS``); ``hard`` is one trunk for all.
        sharing_options: of the unit, by name, and ``stages``, after which of the stages that are not common the
            branches meet, counted from 0.
        one_unit: one unit for all stages.
        dropout: in front of the classifiers.
    """

    FILES: ClassVar[tuple[str, ...]] = ()

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
        InputError: if a name is unknown, a list that must have entries is empty, or an option would not be read.
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
        if not 0 < source.unit_threshold <= 1:
            raise InputError(f"data.{name}.unit_threshold lies in (0, 1], not {source.unit_threshold}")
    check_sources(options)
    if not any(source.score for source in options.data.values()):
        raise InputError("data: no data set has a split in its score, so nothing would be measured")
    if len(options.seeds) != len(set(options.seeds)) or not options.seeds:
        raise InputError(f"seeds: give at least one and none twice, not {options.seeds}")
    for name in options.only or ():
        if name not in options.variants:
            raise InputError(f"only: unknown variant {name!r}: use one of {', '.join(options.variants)}")
    if options.workers is not None and options.workers < 1:
        raise InputError(f"workers must be at least 1, or null, not {options.workers}")
    check_seed("training", options.training)
    check_training(options.training)
    check_precision(options.precision, options.training.aggregator)
    if not options.variants:
        raise InputError("variants: give at least one row of the table")
    if not chosen_variants(options):
        raise InputError("only: name at least one variant, or leave it out for all")
    for variant, changes in options.variants.items():
        if not variant.replace("_", "").replace("-", "").isalnum():
            raise InputError(f"variants: {variant!r} names a folder: use letters, digits, - and _")
        for name in changes:
            if name == "training.seed" or name.split(".")[0] in JOB_WIDE:
                raise InputError(f"variants.{variant}: {name} is the same for all variants: give it beside them")
        changed = override(options, changes, where=f"variants.{variant}")
        check_sources(changed, f"variants.{variant}: ")
        check_training(changed.training, f"variants.{variant}: ")
        check_precision(options.precision, changed.training.aggregator)


def check_batches(options: SystemOptions, processes: int) -> None:
    """Stop at a batch that processes cannot share equally.

    Raises:
        InputError: naming the variant.
    """
    for variant, changes in chosen_variants(options).items():
        size = override(options, changes, where=f"variants.{variant}").training.batch_size
        if size % processes:
            raise InputError(
                f"variants.{variant}: training.batch_size must be a multiple of the {processes} processes, not {size}"
            )


def file_hashes(options: SystemOptions) -> dict[str, str]:
    """Of files that options of the network name, by the option: the first 16 hex digits of the SHA-256 of their bytes.

    A variant's own file is at ``variants.NAME.model.OPTION``.

    Raises:
        InputError: if one cannot be read.
    """
    named = {f"model.{name}": getattr(network_options(options), name) for name in _files_of(options)}
    for variant, changes in options.variants.items():
        changed = network_options(override(options, changes, where=f"variants.{variant}"))
        own = {f"model.{name}": getattr(changed, name) for name in _files_of(options)}
        named |= {f"variants.{variant}.{name}": value for name, value in own.items() if value != named[name]}
    return {name: _hash(name, Path(value)) for name, value in named.items() if Path(value).is_file()}


def _files_of(options: SystemOptions) -> tuple[str, ...]:
    return getattr(network_options(options), "FILES", ())


def _hash(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{name}: {path} cannot be read ({error.strerror})") from None


def check_sources(options: SystemOptions, where: str = "") -> None:
    """Stop at an empty list of data sets, and at one that names none of them.

    Args:
        options: of all variants, or of one.
        where: in front of the option's name.

    Raises:
        InputError: naming the option.
    """
    if options.sources is not None and not options.sources:
        raise InputError(f"{where}sources: name at least one data set, or leave it out for all")
    for name in options.sources or ():
        if name not in options.data:
            raise InputError(f"{where}sources: no data set {name!r} in data, which has {', '.join(options.data)}")


def check_training(training: TrainingConfig, where: str = "") -> None:
    """Stop at settings that no training of a system reads.

    Args:
        training: of all variants, or of one.
        where: in front of the option's name.

    Raises:
        InputError: naming the option.
    """
    for name in ("evaluate_every", "patience"):
        if getattr(training, name) is not None:
            raise InputError(
                f"{where}training.{name} is {getattr(training, name)}: a system keeps the weights of its last step, so "
                "nothing is evaluated on the way: leave it out"
            )
    if training.precision != "auto":
        raise InputError(f"{where}training.precision is {training.precision!r}: leave it out, and give precision")


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
    return _replaced(options, type(options), [(f"{where}: {name}", name.split("."), changes[name]) for name in changes])


def _replaced(node: Any, hint: Any, changes: list[tuple[str, list[str], Any]]) -> Any:
    """An option, annotated by ``hint``, after changes: (where it was named, path from here, value) each.

    Those in one group of options are made together, since they may need each other.
    """
    by_head: dict[str, list[tuple[str, list[str], Any]]] = {}
    for where, path, value in changes:
        if not path:
            node = _fitted(where, value, hint)
        else:
            by_head.setdefault(path[0], []).append((where, path[1:], value))
    new = {}
    for head, inner in by_head.items():
        old, kind = _inner(node, hint, head, inner[0][0])
        new[head] = _replaced(old, kind, inner)
    if not new:
        return node
    if isinstance(node, dict):
        return node | new
    try:
        return dataclasses.replace(node, **new)
    except InputError as error:  # of options that do not go together
        raise InputError(f"{changes[0][0].split(': ')[0]}: {error}") from None


def _inner(node: Any, hint: Any, name: str, where: str) -> tuple[Any, Any]:
    """The value called ``name`` in a group of options, and its annotation."""
    if isinstance(node, dict):
        if name not in node:
            raise InputError(f"{where}: there is no {name!r}, only {', '.join(node)}")
        kinds = [get_args(kind) for kind in (hint, *get_args(hint)) if get_origin(kind) is dict]
        return node[name], kinds[0][1] if kinds else Any
    known = [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
    if name not in known:
        raise InputError(f"{where}: there is no option {name!r}" + (f", only {', '.join(known)}" if known else ""))
    return getattr(node, name), get_type_hints(type(node))[name]


def _fitted(where: str, value: Any, hint: Any) -> Any:
    """``value`` as the annotation has it; a group of options is no value."""
    if dataclasses.is_dataclass(hint) and not isinstance(value, hint):  # type: ignore[arg-type]
        first = dataclasses.fields(hint)[0].name
        raise InputError(f"{where} is {value!r}: it is a group, whose options have names of their own, as .{first}")
    return fitted(where, value, hint)
