"""Options of the main job and their presets."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from synthmtl.balance import FeedbackConfig
from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.errors import InputError
from synthmtl.faces import LONG_TAIL
from synthmtl.losses import SynthesisWeights
from synthmtl.losses.diffusion import DenoisingOptions
from synthmtl.models import DIFFUSION_SIZES, FERSNET_SIZES, match_capacity
from synthmtl.models.denoiser import diffusion_config
from synthmtl.models.fersnet import sized_config
from synthmtl.models.generators import GENERATORS, FaceGenerator
from synthmtl.models.sampling import SamplingOptions
from synthmtl.sharing import SHARING_UNITS, compile_units
from synthmtl.training import TrainingConfig

HARD_MATCHED = "hard_matched"
"""What ``model.sharing`` takes beside the sharing units: ``hard``, as large as the network with the leaky unit."""


@dataclass
class FaceOptions:
    """Where faces come from.

    Attributes:
        path: image folder, zip of one, FER2013's csv, or the folder of a published set; None renders faces.
        format: layout of the data set on disk, detected by default: ``image_folder``, ``fer2013``, ``affectnet``,
            ``rafdb``, ``ckplus``, ``affwild2``, ... (``synthmtl.data.readers.formats.FORMATS``).
        every: read only each ``every``-th frame of a video of Aff-Wild2, DISFA or BP4D.
        peaks: how many frames at the end of a sequence of CK+ carry its expression.
        ferplus: FER+ votes (``fer2013new.csv``) beside FER2013's csv.
        ferplus_rule: what becomes of them: ``distribution`` learns from the votes of all annotators, ``drop-unknown``
            also leaves out what most call unknown or no face, ``majority`` makes what more than half say the label.
        image_size: side in pixels that faces are resized to.
        color: RGB instead of gray.
        split_seed: of splits that the data do not bring along.
        on_bad_image: ``error`` stops at files that cannot be read and lists them, ``skip`` leaves them out.
        on_leak: of training faces that have a look-alike in validation or test, or show people who are there, and of
            validation faces with a look-alike in test: ``drop`` leaves them out, ``warn`` counts them, ``error`` stops.
        train_counts: rendered training faces per class, long-tailed by default.
        validation_per_class, test_per_class: rendered faces per class in the balanced splits.
        subjects: rendered people in the training, validation and test split.
        render_seed: of the rendered faces.
        nuisance_correlation: how strongly light, pose, skin and person go with the expression in rendered training
            faces, 0 to 1; validation and test faces never have any of it.
    """

    path: str | None = None
    format: str | None = None
    every: int = 1
    peaks: int = 1
    ferplus: str | None = None
    ferplus_rule: Literal["distribution", "majority", "drop-unknown"] = "distribution"
    image_size: int = 48
    color: bool = False
    split_seed: int = 0
    on_bad_image: Literal["error", "skip"] = "error"
    on_leak: Literal["drop", "warn", "error"] = "drop"
    train_counts: dict[str, int] = field(default_factory=lambda: dict(LONG_TAIL))
    validation_per_class: int = 60
    test_per_class: int = 160
    subjects: tuple[int, int, int] = (120, 20, 40)
    render_seed: int = 0
    nuisance_correlation: float = 0.0

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 3 if self.color else 1


@dataclass
class ModelOptions:
    """The gated network.

    Attributes:
        size: ``published`` (96 px, 64-512 channels), ``cpu`` (48 px, narrow) or ``tiny``.
        generator: what makes faces of the synthesis branch's features: ``gan``, a decoder that guide and critic teach,
            or ``diffusion``, a denoiser, which needs neither.
        condition: what either generator is told of the wanted face: its ``expression``, or its ``action_units`` or
            ``valence_arousal``, which common and rare expressions share. Faces that lack them get them from
            ``synthesis.labeler``, as targets only.
        prediction: of the denoiser: ``v``, or ``flow`` (flow matching).
        diffused: what the denoiser makes of noise where it has a source: the ``face``, or the ``change`` of the source.
        unet_channels: widths of the denoiser's levels, fine to coarse; null = those of the size.
        patch_size: the denoiser works on patches of that many pixels a side, 1 or 2; null = that of the size.
        sharing: sharing unit of the gated methods (``synthmtl.sharing.SHARING_UNITS``), or ``hard_matched``: one trunk,
            widened to the parameter count of the leaky unit's network within 2 %.
        sharing_options: of the unit, by name, beside those that the size sets for the leaky unit; of the leaky unit for
            ``hard_matched``. ``stages``, of every unit that exchanges, says after which stages the branches meet,
            counted from 0, e.g. ``[2]``.
        one_unit: one sharing unit for all stages instead of one per stage.
        joint: behind the last stage, one block that reads both branches (``common``), as published, or one for each of
            recognition and synthesis (``apart``), so that what a gate kept out of recognition does not come back.
        compile_units: fuse the operations of gated units by ``torch.compile`` or functions in C++; it takes a compiler.
        width: factor on all widths of the size; the denoiser's are rounded to multiples of 16.
        dropout: in front of the linear classifier.
        tasks: ``expression``, ``synthesis`` and any of ``compound``, ``action_units``, ``landmarks`` and
            ``valence_arousal`` that the training faces carry labels of; further tasks take part in joint training,
            with the generator ``gan``.
        task_weights: of the further tasks' losses, by name; 1 where left out. Landmarks are in pixels, hence the tenth.
    """

    size: str = "cpu"
    generator: str = "gan"
    condition: str = "expression"
    prediction: str = "v"
    diffused: Literal["face", "change"] = "change"
    unet_channels: list[int] | None = None
    patch_size: int | None = None
    sharing: str = "leaky"
    sharing_options: dict[str, Any] = field(default_factory=dict)
    one_unit: bool = False
    joint: Literal["common", "apart"] = "common"
    compile_units: bool = False
    width: float = 1.0
    dropout: float = 0.0
    tasks: list[str] = field(default_factory=lambda: ["expression", "synthesis"])
    task_weights: dict[str, float] = field(default_factory=lambda: {"landmarks": 0.1})

    def widths(self) -> dict:
        """Stem, stage, joint and decoder channels after ``width``.

        Raises:
            InputError: if the size is unknown.
        """
        if self.size not in FERSNET_SIZES:
            raise InputError(f"unknown model size {self.size!r}: use one of {', '.join(FERSNET_SIZES)}")
        size: dict[str, Any] = FERSNET_SIZES[self.size]

        def scaled(channels: int) -> int:
            return max(4, 4 * round(channels * self.width / 4))

        return {
            "stem_channels": scaled(size["stem_channels"]),
            "stage_channels": tuple(scaled(c) for c in size["stage_channels"]),
            "joint_channels": scaled(size["joint_channels"]),
            "decoder_channels": tuple(scaled(c) for c in size.get("decoder_channels", ())) or None,
        }

    def denoiser(self) -> dict:
        """What the options say of the denoiser; the size says the rest."""
        widths = self.unet_channels
        if widths is None:
            size: dict[str, Any] = DIFFUSION_SIZES[self.size]
            widths = [max(16, 16 * round(c * self.width / 16)) for c in size["unet_channels"]]
        patch = {} if self.patch_size is None else {"patch_size": self.patch_size}
        return {"prediction": self.prediction, "diffused": self.diffused, "unet_channels": tuple(widths)} | patch

    def build(self, classes: tuple[str, ...], faces: FaceOptions, *, matched_hard: bool = False) -> FaceGenerator:
        """A new network for these classes and faces, or its twin with hard sharing and as many parameters.

        Raises:
            InputError: if the size, generator, the sharing unit or one of its options is unknown, or does not suit.
        """
        if self.generator not in GENERATORS:
            raise InputError(f"unknown model.generator {self.generator!r}: use one of {', '.join(GENERATORS)}")
        if self.sharing not in (*SHARING_UNITS, HARD_MATCHED):
            known = ", ".join((*SHARING_UNITS, HARD_MATCHED))
            raise InputError(f"unknown sharing unit {self.sharing!r}: use one of {known}")
        config = {
            "classes": classes,
            "image_size": faces.image_size,
            "image_channels": faces.channels,
            "sharing": "leaky" if self.sharing == HARD_MATCHED else self.sharing,
            "sharing_options": self.sharing_options,
            "condition": self.condition,
            "one_unit": self.one_unit,
            "joint": self.joint,
            "dropout": self.dropout,
        } | self.widths()
        if self.generator == "gan":
            config = sized_config(self.size, **config, tasks=self.tasks)
        else:
            if set(self.tasks) != {"expression", "synthesis"}:
                raise InputError(
                    f"model.tasks are {', '.join(self.tasks)}: with model.generator {self.generator} they are "
                    "expression and synthesis; further ones need gan"
                )
            del config["decoder_channels"]
            config = diffusion_config(self.size, **config, **self.denoiser())
        kind = GENERATORS[self.generator]
        network = kind(**config)
        compile_units(network, self.compile_units)
        if not matched_hard and self.sharing != HARD_MATCHED:
            return network
        hard = config | {"sharing": "hard", "sharing_options": {}, "one_unit": False}
        return match_capacity(kind, network.recognition_parameters(), hard)


@dataclass
class SynthesisOptions:
    """The synthesis branch's training.

    Attributes:
        mode: ``auto`` (``paired`` if the data have same-subject pairs, else ``mixed``), ``paired``, ``unpaired`` (not
            for diffusion) or ``mixed``: rendered pairs teach the edit, the user's faces adapt it in the same batches.
        edits: faces edited in each step.
        rendered_share: share of them that are rendered pairs, in mixed mode.
        rendered_subjects: how many rendered people teach in mixed mode.
        mapped_share: share of the edited faces that are pairs of photographs, in mixed mode: a neutral training face,
            and the same with another expression by expression mapping (``faces.mapping``). 0 = none.
        mapped_subjects: how many neutral training faces are mapped at most.
        labeler: folder of a network of ours that says the action units, or valence and arousal, of training faces that
            carry none, where ``model.condition`` wants them; null = one that is trained on rendered faces for it.
        denoising: losses of the generator ``diffusion``; those below are for ``gan``.
        guide_noise: deviation of the noise, in units of [-1, 1] pixels, through which the guide learns expressions and
            then sees edited faces, so that they cannot please it by fine patterns.
        perceptual: ``lpips``, ``guide`` (features of the guide recognizer), or ``auto``: LPIPS if its weights are here.
        critic_channels: widths of the critic; none turns it off.
        weights: of the losses.
    """

    mode: str = "auto"
    edits: int = 32
    rendered_share: float = 0.5
    rendered_subjects: int = 400
    mapped_share: float = 0.0
    mapped_subjects: int = 1000
    labeler: str | None = None
    denoising: DenoisingOptions = field(default_factory=DenoisingOptions)
    guide_noise: float = 0.3
    perceptual: str = "auto"
    critic_channels: tuple[int, ...] = (32, 64, 128)
    weights: SynthesisWeights = field(default_factory=SynthesisWeights)


@dataclass
class BalanceOptions:
    """Balancing, stage 2.

    Attributes:
        strategy: as in imbalanced-learn: ``auto``, ``minority``, ``not minority``, ``not majority``, ``all``,
            {class: total}, or for two classes the wanted ratio of the rarer to the other, in (0, 1]; or ``cover``:
            every class half as many again as the most frequent one has.
        quantile: a synthesized face is kept if the judge gives the target at least this quantile of what it gives
            real validation faces of that class.
        mistaken_at_most: a class's threshold is raised until no larger share of the real validation faces of other
            classes would pass as it; null = they may, and the report says how many would.
        attempts: tries per wanted face.
        fill: a wanted face whose every try the judge rejected is left out (``leave``) or its best try taken (``best``).
        sources: which training faces are edited: ``any`` of another expression, ``neutral_first``: neutral ones where
            there are some, or ``none``: a diffusion model makes new faces of noise.
        match: attributes of the training faces (columns of their metadata, such as age; of rendered faces yaw, pitch,
            roll, skin, ...) whose mix each class is to have, see :func:`~synthmtl.balance.plan.make_plan`.
        spread: how far drawn styles go from the class's mean, in standard deviations, or a diffusion model's noise.
        sampling: of a diffusion model.
        feedback: how the set enters training.
        quality: make the quality card of the first seed's set, of at most 500 faces a side: a minute of one core.
    """

    strategy: float | str | dict[str, int] = "auto"
    quantile: float = 0.2
    mistaken_at_most: float | None = None
    attempts: int = 3
    fill: str = "leave"
    sources: str = "any"
    match: list[str] = field(default_factory=list)
    spread: float = 1.0
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    quality: bool = True


@dataclass
class MainJobConfig:
    """Everything that the main job does, from faces to the report.

    Attributes:
        methods: rows of the table (``experiment.METHODS``); null = all that the data allow.
        seeds: of the recognizers.
        generator_seeds: how many generators are trained; 1 shares one among all seeds, 0 trains one per seed.
        label_smoothing: of every recognizer's cross-entropy.
        mirror: average predictions with those of the mirrored face.
        workers: trainings side by side, each with its share of the cores; null = one a core, up to four, on the CPU.
        precision: of training: ``auto`` (bf16 where the machine computes in it), ``no``, ``bf16`` or ``fp16``.
        tracker: what follows the curves, by the names of accelerate (``tensorboard``, ``wandb``, ...), or ``none``; it
            writes into ``tracking`` and asks no server unless its own environment variables say so.
        faces, model, synthesis, balance, augmentation: see there.
        recognition: training of the recognizers without synthesis.
        judge: training of guide and judge, both on class-balanced batches.
        joint: training of recognition and synthesis together.
        finetune: recognition after joint training.
        preset: what the defaults were taken from.
    """

    methods: list[str] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    generator_seeds: int = 1
    label_smoothing: float = 0.0
    mirror: bool = True
    workers: int | None = None
    precision: str = "auto"
    tracker: str = "tensorboard"
    faces: FaceOptions = field(default_factory=FaceOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    synthesis: SynthesisOptions = field(default_factory=SynthesisOptions)
    balance: BalanceOptions = field(default_factory=BalanceOptions)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    recognition: TrainingConfig = field(default_factory=TrainingConfig)
    judge: TrainingConfig = field(default_factory=TrainingConfig)
    joint: TrainingConfig = field(default_factory=TrainingConfig)
    finetune: TrainingConfig = field(default_factory=TrainingConfig)
    preset: str = "quick"


def preset(name: str, *, rendered: bool, generator: str = "gan") -> MainJobConfig:
    """Defaults of ``smoke`` (proves the installation), ``quick`` (minutes on two cores) or ``full`` (published sizes).

    Args:
        name: the preset.
        rendered: for rendered faces (``quickstart``) or the user's (``run``).
        generator: with ``diffusion``, joint training is longer and ends with averaged weights, which denoisers need.

    Raises:
        InputError: if there is no such preset.
    """
    if generator == "diffusion":
        config = preset(name, rendered=rendered)
        changes: dict[str, dict[str, Any]] = {
            "smoke": {"ema_decay": 0.9},
            "quick": {"steps": 4 * config.joint.steps, "learning_rate": 1e-3, "ema_decay": 0.995},
            "full": {"betas": (0.9, 0.999), "ema_decay": 0.9999},
        }
        return dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, generator=generator),
            joint=dataclasses.replace(config.joint, **changes[name]),
        )
    if name == "smoke":
        steps = TrainingConfig(steps=6, batch_size=16, log_every=2)
        return MainJobConfig(
            seeds=[0, 1],
            workers=1,
            faces=FaceOptions(
                image_size=32,
                train_counts={c: 12 if i < 4 else 4 for i, c in enumerate(LONG_TAIL)},
                validation_per_class=4,
                test_per_class=4,
                subjects=(8, 4, 4),
            ),
            model=ModelOptions(size="tiny"),
            synthesis=SynthesisOptions(edits=8, rendered_subjects=8, critic_channels=(8, 16)),
            # Hardly trained judges would reject everything, and a card would say nothing of such faces.
            balance=BalanceOptions(fill="best", quality=False),
            recognition=steps,
            judge=dataclasses.replace(steps),
            joint=dataclasses.replace(steps),
            finetune=dataclasses.replace(steps),
            preset=name,
        )
    if name == "quick" and rendered:
        return MainJobConfig(
            model=ModelOptions(width=0.75),
            # Rendered faces have little noise, and pairs bound what the guide can ask for.
            synthesis=SynthesisOptions(edits=40, guide_noise=0.05),
            recognition=TrainingConfig(steps=250, batch_size=64, learning_rate=3e-3),
            judge=TrainingConfig(steps=270, batch_size=64, learning_rate=3e-3),
            joint=TrainingConfig(steps=360, batch_size=24, learning_rate=3e-3),
            finetune=TrainingConfig(steps=180, batch_size=64, learning_rate=1.5e-3),
            preset=name,
        )
    if name == "quick":
        return MainJobConfig(
            label_smoothing=0.1,
            # Unpaired photographs do not bound what the guide asks for: mapped pairs, smooth flows and a critic do.
            synthesis=SynthesisOptions(
                edits=40,
                rendered_share=0.25,
                mapped_share=0.45,
                guide_noise=0.15,
                weights=SynthesisWeights(expression=0.8, adversarial=1.0, smoothness=2.0),
            ),
            recognition=TrainingConfig(steps=2400, batch_size=128, learning_rate=3e-3, evaluate_every=400),
            judge=TrainingConfig(steps=2000, batch_size=128, learning_rate=3e-3),
            joint=TrainingConfig(steps=2000, batch_size=24, learning_rate=2e-3),
            finetune=TrainingConfig(steps=1200, batch_size=128, learning_rate=1.5e-3, evaluate_every=400),
            preset=name,
        )
    if name == "full":
        published = TrainingConfig(
            steps=100_000, batch_size=8, optimizer="adam", learning_rate=1e-4, betas=(0.5, 0.999), weight_decay=5e-4
        )
        return MainJobConfig(
            seeds=[0, 1, 2, 3, 4],
            generator_seeds=0,
            faces=FaceOptions(image_size=96),
            model=ModelOptions(size="published"),
            synthesis=SynthesisOptions(edits=8, critic_channels=(64, 128, 256, 512)),
            recognition=published,
            judge=dataclasses.replace(published),
            joint=dataclasses.replace(published),
            finetune=dataclasses.replace(published, steps=20_000),
            preset=name,
        )
    raise InputError(f"unknown preset {name!r}: use smoke, quick or full")
