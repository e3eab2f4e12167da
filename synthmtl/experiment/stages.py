"""The parts of the main job: data, guide and judge, joint training, balancing, and the cells of the table."""

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from accelerate import Accelerator

from synthmtl.balance import feed_back
from synthmtl.data import FaceTable
from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.data.load import Splits, load_splits
from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import ClassBalancedSampler, EpochSampler
from synthmtl.data.streams import RecognitionStream, Sampler
from synthmtl.errors import InputError
from synthmtl.experiment.config import FaceOptions, MainJobConfig
from synthmtl.experiment.methods import Method
from synthmtl.experiment.workspace import Unit
from synthmtl.faces import RenderConfig, render_faces, split_configs
from synthmtl.labels import EXPRESSIONS
from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.losses.expression import carries_expression
from synthmtl.metrics import recognition_metrics
from synthmtl.models import Recognizer, match_capacity
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.inference import predict_table, save_network
from synthmtl.training import Player, TrainingConfig, fit

log = logging.getLogger("synthmtl")


class AnyJob(Protocol):
    """What the jobs of all commands and recipes have: options, among them those of the accelerator, and a folder."""

    __dataclass_fields__: ClassVar[dict[str, Any]]  # a dataclass
    config: Any
    out: Path
    accelerator: Accelerator


@dataclass
class Job:
    """What every part of the main job needs.

    Attributes:
        config: options.
        out: the run's folder.
        splits: train, validation and test faces.
        accelerator: where and in how many processes it runs.
        render: how the faces were rendered, or None for the user's faces.
        notes: what the reader of the report must know.
        progress: show the progress of trainings.
    """

    config: MainJobConfig
    out: Path
    splits: Splits
    accelerator: Accelerator
    render: RenderConfig | None = None
    notes: list[str] = field(default_factory=list)
    progress: bool = True

    @property
    def train(self) -> FaceTable:
        """The training split."""
        return self.splits.train

    @property
    def counts(self) -> list[int]:
        """Training faces per class."""
        return list(self.train.counts().values())

    @property
    def placement(self) -> dict:
        """``rank`` and ``world`` for streams."""
        return {"rank": self.accelerator.process_index, "world": self.accelerator.num_processes}

    def finish(self, unit: Unit, result: dict) -> dict:
        """Finish a part once, from the main process, when every process has done its share."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            unit.finish(result)
        self.accelerator.wait_for_everyone()
        return result

    def note(self, text: str) -> None:
        """Log ``text`` and keep it for the report."""
        if text not in self.notes:
            log.info(text)
            self.notes.append(text)


def load_data(options: FaceOptions, *, require_expression: bool = True) -> tuple[Splits, RenderConfig | None]:
    """The faces of a run: the user's, or rendered ones and how to render more of the same people.

    Args:
        options: which.
        require_expression: as for :func:`~synthmtl.data.load.load_splits`.
    """
    if options.path is not None:
        check_photographs(options)
        splits = load_splits(
            options.path,
            image_size=options.image_size,
            channels=options.channels,
            split_seed=options.split_seed,
            on_bad=options.on_bad_image,
            on_leak=options.on_leak,
            format=options.format,
            every=options.every,
            peaks=options.peaks,
            require_expression=require_expression,
            ferplus=options.ferplus,
            ferplus_rule=options.ferplus_rule,
        )
        return splits, None
    configs, classes = render_configs(options), rendered_classes(options)
    tables = {name: render_faces(part).with_classes(classes) for name, part in configs.items()}
    notes = ["All faces are rendered."]
    if options.nuisance_correlation:
        notes.append(
            f"In the training faces light, pose, skin and person go with the expression (correlation "
            f"{options.nuisance_correlation:g}), in validation and test they do not."
        )
    return Splits(**tables, notes=notes), configs["train"]


def check_photographs(options: FaceOptions) -> None:
    """Stop at what only rendered faces can have, where faces are read from a path.

    Raises:
        InputError: naming the option.
    """
    if options.nuisance_correlation:
        raise InputError("faces.nuisance_correlation is for rendered faces: leave it out, or leave out the path")


def rendered_classes(options: FaceOptions) -> tuple[str, ...]:
    """The expressions that training faces are rendered of; the other splits have no others.

    Raises:
        InputError: if they are fewer than two, or one is unknown.
    """
    wanted = {name for name, count in options.train_counts.items() if count}
    if unknown := sorted(wanted - set(EXPRESSIONS)):
        raise InputError(f"--faces.train_counts has {unknown[0]!r}: use some of {', '.join(EXPRESSIONS)}")
    if len(wanted) < 2:
        raise InputError(f"--faces.train_counts has {len(wanted)} expressions with faces: give at least two")
    return tuple(name for name in EXPRESSIONS if name in wanted)


def render_configs(options: FaceOptions) -> dict[str, RenderConfig]:
    """How the ``train``, ``validation`` and ``test`` faces of a run are rendered."""
    classes = rendered_classes(options)
    base = RenderConfig(
        image_size=options.image_size,
        channels=options.channels,
        seed=options.render_seed,
        nuisance_correlation=options.nuisance_correlation,
    )
    return split_configs(
        options.train_counts,
        dict.fromkeys(classes, options.validation_per_class),
        dict.fromkeys(classes, options.test_per_class),
        config=base,
        **dict(zip(("train_subjects", "validation_subjects", "test_subjects"), options.subjects, strict=True)),
    )


def train_recognition(
    job: Job,
    model: FaceGenerator | Recognizer,
    training: TrainingConfig,
    directory: Path,
    *,
    seed: int,
    method: Method,
    fill: FaceTable | None = None,
    augmentation: AugmentationConfig | None = None,
    description: str = "",
) -> float:
    """Train recognition on the training split, half of each batch ``fill`` if given; returns the seconds it took.

    The best weights by macro-F1 on the validation split stay in ``model``.
    ``augmentation`` replaces the configured one.
    """
    config = job.config
    table, counts, adjustment = job.train, job.counts, method.logit_adjustment
    sampler: Sampler
    if fill is not None:
        feedback = feed_back(
            job.train,
            fill,
            config=config.balance.feedback,
            batch_size=training.batch_size,
            seed=seed,
            multiple_of=job.accelerator.num_processes,
        )
        table, sampler = feedback.table, feedback.sampler
        if config.balance.feedback.real == "natural":
            counts, adjustment = (feedback.class_shares * len(table)).tolist(), 1.0
    elif method.balanced_sampling:
        sampler = ClassBalancedSampler(table.expression, training.batch_size, seed)
    else:
        rows = torch.where(carries_expression(table.expression, table.expression_distribution))[0]
        sampler = EpochSampler(rows, training.batch_size, seed)
    loss = ExpressionLoss(
        counts,
        label_smoothing=config.label_smoothing,
        class_weighted=method.class_weighted,
        logit_adjustment=adjustment,
    )
    views = augmentation or config.augmentation
    stream = RecognitionStream(table, sampler, augmentation=views, seed=seed, **job.placement)
    weights = config.synthesis.weights if config.model.generator == "gan" else config.synthesis.denoising
    objective = RecognitionObjective(model, loss, sharing=weights.sharing)
    result = fit(
        players=[Player("recognition", objective)],
        stream=stream,
        config=dataclasses.replace(training, seed=seed),
        accelerator=job.accelerator,
        directory=directory,
        evaluate=lambda: validation_scores(job, model),
        select_by="macro_f1",
        progress=job.progress,
        description=description,
    )
    return result.seconds


def validation_scores(job: Job, model: FaceGenerator | Recognizer) -> dict[str, float]:
    """Accuracy, macro-F1 and balanced accuracy on the validation split."""
    table = job.splits.validation
    scores = recognition_metrics(predict(job, model, table), table.expression, table.classes)
    return {name: getattr(scores, name) for name in ("accuracy", "macro_f1", "balanced_accuracy")}


def predict(job: Job, model: FaceGenerator | Recognizer, table: FaceTable) -> torch.Tensor:
    """Probabilities (N, K) of a table's faces."""
    return predict_table(model, table, device=job.accelerator.device, mirror=job.config.mirror)


def plain_network(job: Job) -> Recognizer:
    """The recognition branch alone, as wide as the gated network's."""
    return Recognizer(**_recognizer_config(job))


def matched_network(job: Job) -> Recognizer:
    """A recognizer with as many parameters as the gated network uses for recognition, within 2 %."""
    gated = job.config.model.build(job.train.classes, job.config.faces)
    return match_capacity(Recognizer, gated.recognition_parameters(), _recognizer_config(job))


def _recognizer_config(job: Job) -> dict:
    sized = job.config.model.build(job.train.classes, job.config.faces).config
    names = ("classes", "image_size", "image_channels", "stem_kind", "pool_first", "dropout")
    widths = job.config.model.widths()
    return {name: sized[name] for name in names} | {
        "stem_channels": widths["stem_channels"],
        "stage_channels": widths["stage_channels"],
        "joint_channels": widths["joint_channels"] // 2,
    }


def train_judge(job: Job, role: str) -> Path:
    """A recognizer trained on class-balanced batches: ``guide`` teaches the generator, ``judge`` never meets it.

    Returns:
        The folder that keeps the network.
    """
    unit = Unit(job.out, role)
    if unit.result is None:
        seed = derive_seed(role, job.config.seeds[0])
        torch.manual_seed(seed)
        model = plain_network(job)
        method = Method("plain", role, balanced_sampling=True)
        # The generator would please a plain recognizer with patterns that nobody takes for an expression.
        views = job.config.augmentation
        if role == "guide":
            views = dataclasses.replace(views, noise=max(views.noise, job.config.synthesis.guide_noise))
        seconds = train_recognition(
            job, model, job.config.judge, unit.directory,
            seed=seed, method=method, augmentation=views, description=role,
        )  # fmt: skip
        save(job, model, unit.directory / "model")
        job.finish(unit, {"validation": validation_scores(job, model), "seconds": seconds})
    return unit.directory


def save(job: Job, model: FaceGenerator | Recognizer, directory: Path) -> None:
    """Save a network once, from the main process."""
    if job.accelerator.is_main_process:
        save_network(model, directory)
    job.accelerator.wait_for_everyone()
