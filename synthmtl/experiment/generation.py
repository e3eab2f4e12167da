"""Stage 1 and 2 of the main job: joint training of both branches, and the faces that balance the training split."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from synthmtl.balance import (
    calibrate_judge,
    dilution,
    feed_back,
    kept_calibration,
    synthesize_balancing_set,
    write_balancing_set,
)
from synthmtl.balance.plan import make_plan
from synthmtl.balance.strata import strata
from synthmtl.balance.strategy import resolve_strategy
from synthmtl.balance.synthesize import edit_faces
from synthmtl.balance.targets import ClassTargets
from synthmtl.data import FaceTable
from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.data.pairs import EditSampler, edit_mode
from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import EpochSampler
from synthmtl.data.streams import EditSource, EditStream, RecognitionStream
from synthmtl.errors import InputError
from synthmtl.experiment.further import further_loss
from synthmtl.experiment.labeler import lacking, teaching_config, told, told_faces
from synthmtl.experiment.mapped import careless, mapped_pairs, neutral_rows
from synthmtl.experiment.methods import Method
from synthmtl.experiment.stages import Job, predict, save, validation_scores
from synthmtl.experiment.workspace import Unit
from synthmtl.faces import counterparts, render_faces
from synthmtl.labels import EXPRESSIONS
from synthmtl.losses import CriticObjective, ExpressionLoss, FERSNetObjective
from synthmtl.losses.diffusion import DiffusionObjective
from synthmtl.losses.expression import carries_expression
from synthmtl.losses.perceptual import perceptual_distance
from synthmtl.models import FERSNet, PatchDiscriminator, Recognizer
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.inference import load_network
from synthmtl.training import Player, fit

log = logging.getLogger("synthmtl")


def synthesis_mode(job: Job) -> str:
    """``paired``, ``unpaired`` or ``mixed``: what was asked for, or what the data allow."""
    wanted = job.config.synthesis.mode
    return wanted if wanted != "auto" else "paired" if edit_mode(job.train) == "paired" else "mixed"


def maps_photographs(job: Job) -> bool:
    """Whether photographs of the training split are mapped to other expressions, to teach edits."""
    asked = synthesis_mode(job) == "mixed" and job.config.synthesis.mapped_share > 0
    return asked and len(neutral_rows(job.train)) > 0


def note_synthesis_mode(job: Job) -> None:
    """Tell the reader how synthesis is trained, and why so."""
    mode = synthesis_mode(job)
    reasons = {
        "paired": "same-subject pairs of the training faces teach the edit",
        "unpaired": "unpaired faces: adversarial, guide, cycle and subject losses",
        "mixed": "rendered pairs teach the edit, the training faces adapt it without pairs",
    }
    if job.config.model.generator == "diffusion" and mode == "mixed":
        reasons["mixed"] = "rendered pairs teach the edit, the training faces what faces of each expression look like"
    how = "chosen from the data" if job.config.synthesis.mode == "auto" else "forced"
    job.note(f"Synthesis is trained {mode} ({how}): {reasons[mode]}.")
    if mode == "mixed" and job.config.synthesis.mapped_share:
        mapped = Unit(job.out, "mapped").finished["mapped"] if maps_photographs(job) else 0
        if mapped:
            job.note(
                f"Expression mapping gave {mapped} neutral training faces the other expressions, as rendered people "
                "change: pairs of photographs teach the edit as well."
            )
        else:
            job.note("No neutral training face could be given other expressions: rendered pairs alone teach the edit.")


def check_plans(job: Job, methods: Iterable[Method]) -> None:
    """Stop, before anything is trained, at edits or a balance that the training faces do not allow.

    Raises:
        InputError: naming the option.
    """
    if any(method.network in ("gated", "hard") for method in methods):
        mode = synthesis_mode(job)
        if mode == "mixed":
            taught_edits(job, job.config.synthesis.mapped_share if maps_photographs(job) else 0.0)
        EditSampler(job.train, paired=mode == "paired")
    if any(method.fill for method in methods):
        strata(job.train, job.config.balance.match)  # which the faces have to carry
        check_feedback(job, resolve_strategy(job.train.counts(), job.config.balance.strategy))


def check_feedback(job: Job, wanted: Mapping[str, int]) -> None:
    """Stop at a batch of fine-tuning that cannot hold faces of each part; ``wanted`` says how many of a class are made.

    Raises:
        InputError: naming the option.
    """
    filled = [job.train.classes.index(name) for name, count in wanted.items() if count and name in job.train.classes]
    if not filled:
        return
    real = job.train.replace(images=job.train.images[..., :1, :1])
    extra = real.select([0] * len(filled)).replace(expression=torch.tensor(filled))
    sizes = {"batch_size": job.config.finetune.batch_size, "multiple_of": job.accelerator.num_processes}
    try:
        feed_back(real, extra, config=job.config.balance.feedback, **sizes)
    except InputError as error:
        raise InputError(f"--finetune.batch_size: {error}") from None


def taught_edits(job: Job, mapped_share: float = 0.0) -> tuple[int, int]:
    """How many edits of a step are rendered pairs, and how many pairs of photographs, in mixed mode.

    Raises:
        InputError: if there are no rendered pairs, or so few that none is compared with its target
            (:class:`~synthmtl.losses.fersnet.FERSNetObjective`), or nothing but pairs.
    """
    options, world = job.config.synthesis, job.accelerator.num_processes
    rendered, mapped = (
        world * round(options.edits * share / world) for share in (options.rendered_share, mapped_share)
    )
    if rendered == 0 or rendered + mapped >= options.edits:
        raise InputError(
            f"mixed synthesis needs edits of both kinds: {options.edits} edits at a rendered share of "
            f"{options.rendered_share} leave {rendered} rendered ones"
            + (f", and at a mapped share of {mapped_share} {mapped} mapped ones" if mapped_share else "")
        )
    if rendered < 2 and job.config.model.generator == "gan":
        raise InputError(
            f"--synthesis.rendered_share is {options.rendered_share}: it must make at least 2 of {options.edits} edits "
            "rendered pairs, since the first of a step is not compared with its target"
        )
    return rendered, mapped


def edit_sources(job: Job, mode: str, seed: int, mapped: FaceTable | None = None) -> list[EditSource]:
    """Where the edits of joint training come from; ``mapped`` holds pairs of photographs, if there are any."""
    options = job.config.synthesis
    own = told_faces(job)
    if mode != "mixed":
        return [EditSource(own, EditSampler(own, paired=mode == "paired"), options.edits)]
    rendered_edits, mapped_edits = taught_edits(job, options.mapped_share if mapped is not None else 0.0)
    # Eight faces a session: nearly every expression has a partner among the others.
    each = 16 * options.rendered_subjects // len(job.train.classes)
    taught_by = teaching_config(job.config, job.train.classes, seed=derive_seed("teach", seed) % 2**31, faces=each)
    rendered = render_faces(taught_by).with_classes(job.train.classes)
    # The edit is taught on faces that are framed like the photographs it is for.
    framing = gentle(careless(job.config.augmentation))
    sources = [EditSource(rendered, EditSampler(rendered, paired=True), rendered_edits, framing)]
    if mapped is not None and mapped_edits:
        pairs = told(job, mapped)
        sources.append(EditSource(pairs, EditSampler(pairs, paired=True), mapped_edits))
    unpaired = options.edits - rendered_edits - mapped_edits
    return [*sources, EditSource(own, EditSampler(own, paired=False), unpaired)]


def gentle(config: AugmentationConfig) -> AugmentationConfig:
    """Views of faces that are edited: nothing is erased, and there is no noise to be copied."""
    return dataclasses.replace(config, erase_probability=0.0, noise=0.0)


def train_jointly(job: Job, network: str, seed: int) -> Path:
    """Stage 1: recognition and synthesis together, a decoder taught by the guide or a denoiser.

    Args:
        network: ``gated`` or ``hard``, its twin of equal size with one trunk.
        seed: of the generator.

    Returns:
        The folder below ``joint/`` that keeps the network.
    """
    unit = Unit(job.out, f"joint/{network}-seed{seed}")
    if unit.result is None:
        config, options = job.config, job.config.synthesis
        mode = synthesis_mode(job)
        seed_here = derive_seed("joint", network, seed)
        torch.manual_seed(seed_here)
        model = config.model.build(job.train.classes, config.faces, matched_hard=network == "hard")
        rows = torch.where(carries_expression(job.train.expression, job.train.expression_distribution))[0]
        labelled = RecognitionStream(
            job.train,
            EpochSampler(rows, config.joint.batch_size, seed_here),
            augmentation=config.augmentation,
            seed=seed_here,
            **job.placement,
        )
        mapped = mapped_pairs(job) if maps_photographs(job) else None
        stream = EditStream(labelled, edit_sources(job, mode, seed, mapped), gentle(config.augmentation))
        loss = ExpressionLoss(job.counts, label_smoothing=config.label_smoothing)
        taught_by: dict[str, str] = {}
        if config.model.generator == "diffusion":
            players = [Player("generator", DiffusionObjective(model, loss, options.denoising))]
        else:
            players, taught_by = decoder_players(job, model, loss)
        result = fit(
            players=players,
            stream=stream,
            config=dataclasses.replace(config.joint, seed=seed_here),
            accelerator=job.accelerator,
            directory=unit.directory,
            progress=job.progress,
            description=f"{network} joint seed {seed}",
        )
        save(job, model, unit.directory / "model")
        outcome = {"mode": mode, **taught_by, "seconds": result.seconds}
        job.finish(unit, outcome | {"validation": validation_scores(job, model)})
    return unit.directory


def decoder_players(job: Job, model: FERSNet, loss: ExpressionLoss) -> tuple[list[Player], dict[str, str]]:
    """The generator ``gan`` and its critic, taught by the guide; and the kind of ``perceptual`` distance."""
    options, device = job.config.synthesis, job.accelerator.device
    classes, critic = len(job.train.classes), None
    if options.critic_channels and options.weights.adversarial:
        critic = PatchDiscriminator(
            image_channels=job.config.faces.channels,
            classes=classes,
            channels=tuple(options.critic_channels),
            conditioning="projection",
        ).to(device)
    guide = load_network(job.out / "guide").to(device)
    perceptual, kind = perceptual_distance(options.perceptual, guide.features)
    assert perceptual is not None  # the guide has features
    log.info("Perceptual distance of the synthesis loss: %s", kind)
    objective = FERSNetObjective(
        model,
        loss,
        options.weights,
        guide=guide,
        guide_noise=options.guide_noise,
        perceptual=perceptual.to(device),
        critic=critic,
        labels=further_loss(job, model),
    )
    players = [Player("generator", objective)]
    if critic is not None:
        players.append(Player("critic", CriticObjective(critic, classes)))
    return players, {"perceptual": kind}


@dataclass
class Fills:
    """What batches can be filled with, by ``Method.fill`` (if any), and how the synthesized set came about.

    Attributes:
        tables: by ``Method.fill``; none if no face was kept.
        summary: the ``balance`` of ``report.json``.
        source_row: (M,) int64, the training face that each synthesized one was edited from, -1 = it is a new face.
        filtered_by: hash of the judge's weights.
    """

    tables: dict[str, FaceTable]
    summary: dict
    source_row: torch.Tensor
    filtered_by: str


def make_fills(job: Job, generator: FaceGenerator, judge: Recognizer, seed: int, *, kinds: set[str]) -> Fills:
    """Stage 2: the balancing set, and the controls of the same size and classes.

    Args:
        generator: trained jointly, by this ``seed``.
        judge: a recognizer that did not train with the generator.
        kinds: which of ``synthesized``, ``real`` and ``rendered`` are wanted.
    """
    options = job.config.balance
    unit = Unit(job.out, f"balance/seed{seed}")
    device = job.accelerator.device
    calibration = calibrate_judge(
        judge,
        job.splits.validation,
        quantile=options.quantile,
        mistaken_at_most=options.mistaken_at_most,
        device=device,
    )
    directory, rank = unit.directory / "chunks", job.accelerator.process_index
    calibration = kept_calibration(directory, calibration, judge, rank=rank)
    balancing = synthesize_balancing_set(
        generator,
        judge,
        job.train,
        options.strategy,
        targets=ClassTargets(generator, told_faces(job), supplied=int(lacking(job).sum())),
        calibration=calibration,
        max_attempts=options.attempts,
        fill=options.fill,
        sources=options.sources,
        match=options.match,
        spread=options.spread,
        sampling=options.sampling,
        seed=derive_seed("balance", seed) % 2**31,
        device=device,
        directory=directory,
        rank=rank,
        world=job.accelerator.num_processes,
    )
    if unit.result is None:
        if job.accelerator.is_main_process and len(balancing.table):
            write_balancing_set(balancing, unit.directory / "imagefolder", generator=generator, table=job.train)
        job.finish(unit, balancing.summary())
    rows = [-1 if record["source_row"] is None else record["source_row"] for record in balancing.records]
    source_row = torch.tensor(rows, dtype=torch.int64)
    about = {"source_row": source_row, "filtered_by": balancing.identity["judge"]}
    if not len(balancing.table):
        return Fills({}, balancing.summary(), **about)
    tables = {"synthesized": balancing.table}
    if "real" in kinds:
        tables["real"] = dilution(job.train, balancing.kept, seed=derive_seed("dilution", seed) % 2**31)
    if "rendered" in kinds:
        wanted = [EXPRESSIONS.index(job.train.classes[c]) for c in balancing.table.expression.tolist()]
        assert job.render is not None  # no method wants true renders of other faces
        shown = source_row
        if not balancing.plan.edits:  # new faces show nobody: people as an edit would have chosen them
            totals = {name: count + balancing.kept[name] for name, count in balancing.plan.counts.items()}
            shown = make_plan(job.train, totals, seed=derive_seed("oracle", seed) % 2**31).sources[:, 0]
        tables["rendered"] = counterparts(job.train.select(shown), job.render, wanted).with_classes(job.train.classes)
    return Fills(tables, balancing.summary(), **about)


def judged_recall(job: Job, generator: FaceGenerator, judge: Recognizer, *, faces: int = 128) -> dict[str, float]:
    """Share of validation faces, edited to each expression, in which the judge then sees it; or of new faces, where
    balancing edits none."""
    table, spread, sampling = job.splits.validation, job.config.balance.spread, job.config.balance.sampling
    sources = table.select(torch.linspace(0, len(table) - 1, min(faces, len(table))).long())
    seeds, recall = list(range(len(sources))), {}
    for index, name in enumerate(table.classes):
        target = torch.full((len(sources),), index)
        images = None if job.config.balance.sources == "none" else sources.images
        edited, _ = edit_faces(generator, images, target, seeds, spread=spread, sampling=sampling)
        seen = predict(job, judge, sources.replace(images=edited)).argmax(1)
        recall[name] = float((seen == target).double().mean())
    return recall
