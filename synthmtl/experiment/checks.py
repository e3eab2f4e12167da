"""What is wrong with the options of a run, found before anything is read or written."""

import torch

from synthmtl.balance.plan import SOURCES
from synthmtl.balance.strategy import resolve_strategy
from synthmtl.balance.synthesize import FILLS
from synthmtl.errors import InputError, check
from synthmtl.experiment.config import FaceOptions, MainJobConfig, preset
from synthmtl.labels import EXPRESSIONS, TASKS
from synthmtl.losses.perceptual import PERCEPTUAL
from synthmtl.models import PatchDiscriminator
from synthmtl.models.conditions import CONDITIONS
from synthmtl.models.generators import GENERATORS
from synthmtl.models.noise import NoiseSchedule
from synthmtl.training import check_part
from synthmtl.training.turns import check_precision

GENERATOR_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "gan": {"synthesis": ("guide_noise", "perceptual", "critic_channels", "weights")},
    "diffusion": {
        "model": ("diffused", "prediction", "unet_channels", "patch_size"),
        "synthesis": ("denoising",),
        "balance": ("sampling",),
    },
}
"""Options of the parts that one generator has and the other has not."""

RENDERED_ONLY = (
    "train_counts", "validation_per_class", "test_per_class", "subjects", "render_seed", "nuisance_correlation",
)  # fmt: skip
"""Options of faces that are rendered."""

READ_ONLY = ("format", "every", "peaks", "ferplus", "ferplus_rule", "split_seed", "on_bad_image", "on_leak")
"""Options of faces that are read from a path."""


def check_config(config: MainJobConfig, *, world: int = 1) -> None:
    """Stop at options that no data could make good.

    Args:
        config: all options.
        world: number of processes.

    Raises:
        InputError: naming the option and what it takes.
    """
    if not config.seeds:
        raise InputError("--seeds is empty: give at least one")
    if len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"--seeds is {config.seeds}: each seed may be there once only")
    check(config.generator_seeds >= 0, "generator_seeds", config.generator_seeds, "0 (one per seed) or more")
    check(config.workers is None or config.workers >= 1, "workers", config.workers, "at least 1, or null")
    check(0 <= config.label_smoothing < 1, "label_smoothing", config.label_smoothing, "in [0, 1)")
    synthesis, balance, model = config.synthesis, config.balance, config.model
    modes = ("auto", "paired", "unpaired", "mixed")
    check(synthesis.mode in modes, "synthesis.mode", synthesis.mode, f"one of {', '.join(modes)}")
    check(synthesis.perceptual in PERCEPTUAL, "synthesis.perceptual", synthesis.perceptual, ", ".join(PERCEPTUAL))
    least = 2 if model.generator == "gan" and synthesis.mode != "unpaired" else 1
    first = ": the first pair of a step is not compared with its target" if least > 1 else ""
    check(synthesis.edits >= least, "synthesis.edits", synthesis.edits, f"at least {least}{first}")
    check(0 < synthesis.rendered_share < 1, "synthesis.rendered_share", synthesis.rendered_share, "in (0, 1)")
    check(synthesis.rendered_subjects >= 1, "synthesis.rendered_subjects", synthesis.rendered_subjects, "at least 1")
    check(0 <= synthesis.mapped_share < 1, "synthesis.mapped_share", synthesis.mapped_share, "in [0, 1)")
    check(synthesis.mapped_subjects >= 1, "synthesis.mapped_subjects", synthesis.mapped_subjects, "at least 1")
    check(0 <= balance.quantile < 1, "balance.quantile", balance.quantile, "in [0, 1)")
    at_most = balance.mistaken_at_most
    check(at_most is None or 0 <= at_most <= 1, "balance.mistaken_at_most", at_most, "in [0, 1], or null")
    check(balance.attempts >= 1, "balance.attempts", balance.attempts, "at least 1")
    check(balance.fill in FILLS, "balance.fill", balance.fill, " or ".join(FILLS))
    check(balance.sources in SOURCES, "balance.sources", balance.sources, f"one of {', '.join(SOURCES)}")
    if balance.sources == "none" and balance.match:
        raise InputError(
            "--balance.match is about the faces that are edited, and --balance.sources is none: leave it out"
        )
    check(balance.spread >= 0, "balance.spread", balance.spread, "at least 0")
    if isinstance(balance.strategy, str):
        resolve_strategy(dict.fromkeys(EXPRESSIONS, 1), balance.strategy)
    check(model.condition in CONDITIONS, "model.condition", model.condition, f"one of {', '.join(CONDITIONS)}")
    if synthesis.labeler is not None and model.condition == "expression":
        raise InputError(
            "--synthesis.labeler is for --model.condition action_units or valence_arousal: a generator that is told "
            "the expression needs none"
        )
    check(model.width > 0, "model.width", model.width, "above 0")
    check(0 <= model.dropout < 1, "model.dropout", model.dropout, "in [0, 1)")
    check_generator(config)
    for task in model.task_weights:
        check(task in TASKS, "model.task_weights", task, f"names of {', '.join(TASKS)}")
    with torch.device("meta"):
        model.build(EXPRESSIONS, config.faces)
    if model.generator == "gan":
        check_critic(config)
    parts = {f"{name}.batch_size": getattr(config, name).batch_size for name in ("recognition", "judge", "joint")}
    parts |= {"finetune.batch_size": config.finetune.batch_size, "synthesis.edits": synthesis.edits}
    for name in ("recognition", "judge", "joint", "finetune"):
        joint = name == "joint"
        check_part(name, getattr(config, name), evaluated=not joint, aggregated=joint)
    for name, size in parts.items():
        check(size % world == 0, name, size, f"a multiple of the {world} processes")
    check_precision(config.precision, config.joint.aggregator)


def check_faces(faces: FaceOptions, *defaults: FaceOptions) -> None:
    """Stop at options of rendered faces where faces are read from a path, and at the others' where they are rendered.

    Args:
        faces: as given on a command line.
        defaults: what nobody gave, and so nobody misses.

    Raises:
        InputError: naming the option.
    """
    kind, these = ("rendered faces", "read") if faces.path is not None else ("faces that are read", "rendered")
    for name in RENDERED_ONLY if faces.path is not None else READ_ONLY:
        if all(getattr(faces, name) != getattr(default, name) for default in defaults):
            raise InputError(f"--faces.{name} is for {kind}, and these are {these}: leave it out")


def check_generator(config: MainJobConfig) -> None:
    """Stop at an unknown generator, at options that do not suit it, and at those of the other one.

    Raises:
        InputError: naming the option and what it takes.
    """
    model, generator = config.model, config.model.generator
    check(generator in GENERATORS, "model.generator", generator, f"one of {', '.join(GENERATORS)}")
    defaults = [MainJobConfig()]
    defaults += [preset(name, rendered=rendered) for name in ("smoke", "quick", "full") for rendered in (True, False)]
    for other in GENERATOR_OPTIONS.keys() - {generator}:
        for part, names in GENERATOR_OPTIONS[other].items():
            for name in names:
                value = getattr(getattr(config, part), name)
                if all(value != getattr(getattr(default, part), name) for default in defaults):
                    raise InputError(f"--{part}.{name} is for --model.generator {other}, not {generator}: leave it out")
    if generator != "diffusion" and config.balance.sources == "none":
        raise InputError("--balance.sources none makes new faces: only --model.generator diffusion can")
    if generator == "diffusion":
        if config.synthesis.mode == "unpaired":
            raise InputError(
                "--synthesis.mode is 'unpaired': without pairs a diffusion model learns new faces and no edit; use "
                "mixed, whose rendered pairs teach it"
            )
        widths = model.unet_channels
        check(widths is None or (bool(widths) and min(widths) > 0), "model.unet_channels", widths, "widths, or null")
        config.balance.sampling.check(NoiseSchedule(model.prediction))
        if config.balance.sources == "none" and config.balance.sampling.strength is not None:
            raise InputError(
                "--balance.sampling.strength says how much noise is put on a source, and --balance.sources is none"
            )


def check_critic(config: MainJobConfig) -> None:
    """Stop at a critic that cannot be built, or that faces of this size are too small for.

    Raises:
        InputError: naming the option.
    """
    widths, side = tuple(config.synthesis.critic_channels), config.faces.image_size
    name = "synthesis.critic_channels"
    check(all(width >= 1 for width in widths), name, widths, "widths from 1 up, or [] for no critic")
    if widths and config.synthesis.weights.adversarial:
        with torch.device("meta"):
            least = PatchDiscriminator(image_channels=config.faces.channels, classes=2, channels=widths).least_size
        check(side >= least, name, widths, f"fewer widths, for {side} pixels a side: each halves them, and 2 must stay")
