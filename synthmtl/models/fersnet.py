"""FERSNet: recognition and synthesis of expressions with selective feature sharing.

Zhao, Liu, Xiao, Lun, Lam: Deep Multi-task Learning for Facial Expression Recognition and Synthesis Based on Selective
Feature Sharing. ICPR 2020, arXiv 2007.04514. Layer widths, norms and the decoder's conditioning follow the published
network; the flow decoder and the style prior are additions of ours and switched by the configuration.
"""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.blocks import in_precision_of
from synthmtl.models.conditions import check_condition, code_width, read_target, target_code
from synthmtl.models.decoder import Edit, EditDecoder
from synthmtl.models.encoder import Encoded, ExpressionHead, TwoBranchEncoder
from synthmtl.models.grain import restore_grain
from synthmtl.models.heads import build_head, checked_tasks, read_prediction
from synthmtl.models.multitask import size_config
from synthmtl.models.sampling import Generator, draw_noise
from synthmtl.models.style import ExpressionStyle

FERSNET_SIZES = {
    "published": {
        "image_size": 96,
        "stem_channels": 64,
        "stage_channels": (128, 256, 512),
        "joint_channels": 1024,
        "stem_kind": "pool",
        "pool_first": False,
        "output": "direct",
        "sharing_options": {},
    },
    "cpu": {
        "image_size": 48,
        "stem_channels": 16,
        "stage_channels": (32, 64, 96),
        "joint_channels": 192,
        # Half as wide, faces come out more blurred and hardly cheaper: the costly part is the pair of encoder branches.
        "decoder_channels": (96, 80, 64),
        "painted_channels": 24,
        "stem_kind": "unshuffle",
        "pool_first": True,
        "output": "flow",
        "sharing_options": {"gate_bias": -2.0},
    },
    "tiny": {
        "image_size": 32,
        "stem_channels": 8,
        "stage_channels": (8, 16, 16),
        "joint_channels": 32,
        "stem_kind": "unshuffle",
        "pool_first": True,
        "output": "flow",
        "sharing_options": {"gate_bias": -2.0},
    },
}
"""Configurations by name: ``published`` (96 px, 64-512 channels), ``cpu`` (48 px, narrow), ``tiny`` (for trials).

Their ``sharing_options`` are those of the leaky unit.
"""


def sized_config(size: str, **config) -> dict:
    """Arguments of a :class:`FERSNet` of one of :data:`FERSNET_SIZES`, ``config`` overriding them.

    The size's ``sharing_options`` go to the leaky unit and its ablations only, and stay where ``config`` has others.

    Raises:
        InputError: if there is no such size.
    """
    return size_config(FERSNET_SIZES, size, config, sharing=config.get("sharing", "leaky"))


def wanted_targets(network: ModelMixin, expression: Tensor, images: Tensor | None) -> Tensor:
    """Targets as :func:`~synthmtl.models.conditions.read_target` gives them, one for each of ``images`` (None = any).

    Raises:
        InputError: if they are not what the network is conditioned on, or out of range, or not as many as the images.
    """
    target = read_target(network.config.condition, tuple(network.config.classes), expression)
    if images is not None and len(target) != len(images):
        raise InputError(f"{len(images)} images for {len(target)} expressions: give one for each")
    return target


class FERSNet(ModelMixin, ConfigMixin):
    """Two branches that share features through gates: faces in, expressions and edited faces out.

    Args:
        classes: expressions, in canonical order.
        image_size: side of the faces in pixels; with S stages a multiple of 2^(S + 1), and at least twice that.
        image_channels: 1 for gray, 3 for RGB.
        stem_channels, stage_channels, joint_channels: widths of :class:`TwoBranchEncoder`.
        sharing: name of the sharing unit.
        sharing_options: of the unit, by name (:func:`synthmtl.sharing.build_sharing`).
        one_unit: one sharing unit for all stages, as in :class:`TwoBranchEncoder`.
        recognition_norm, synthesis_norm, stem_kind, pool_first, joint: as in :class:`TwoBranchEncoder`.
        output: ``flow`` or ``direct``, as in :class:`EditDecoder`.
        condition: what the decoder is told of the wanted face, one of ``conditions.CONDITIONS``; the published network
            is told the expression.
        style_dim: size of the style.
        decoder_channels, painted_channels: as in :class:`EditDecoder`.
        dropout: in front of the linear classifier.
        tasks: ``expression`` and ``synthesis``, and any further tasks of ``labels.TASKS``, each with a branch that
            takes part in the exchange, or with the features of the single trunk, and a head of its own.

    Raises:
        InputError: if a size, task or sharing unit does not suit.
    """

    @register_to_config
    def __init__(
        self,
        classes: Sequence[str],
        image_size: int = 96,
        image_channels: int = 1,
        stem_channels: int = 64,
        stage_channels: Sequence[int] = (128, 256, 512),
        joint_channels: int = 1024,
        sharing: str = "leaky",
        sharing_options: dict | None = None,
        one_unit: bool = False,
        recognition_norm: str = "batch",
        synthesis_norm: str = "instance",
        stem_kind: str = "pool",
        pool_first: bool = False,
        joint: str = "common",
        output: str = "direct",
        condition: str = "expression",
        style_dim: int = 16,
        decoder_channels: Sequence[int] | None = None,
        painted_channels: int | None = None,
        dropout: float = 0.0,
        tasks: Sequence[str] = ("expression", "synthesis"),
    ):
        super().__init__()
        if not {"expression", "synthesis"} <= set(tasks):
            raise InputError(f"tasks are {', '.join(tasks)}: FERSNet needs expression and synthesis among them")
        check_condition(condition)
        further = [task for task in checked_tasks([t for t in tasks if t != "synthesis"]) if task != "expression"]
        step = 2 ** (1 + len(stage_channels))
        if image_size % step or image_size < 2 * step:
            raise InputError(
                f"image_size {image_size} does not suit the network: use a multiple of {step} from {2 * step}"
            )
        self.encoder = TwoBranchEncoder(
            image_channels=image_channels,
            stem_channels=stem_channels,
            stage_channels=stage_channels,
            joint_channels=joint_channels,
            sharing=sharing,
            sharing_options=sharing_options,
            one_unit=one_unit,
            recognition_norm=recognition_norm,
            synthesis_norm=synthesis_norm,
            stem_kind=stem_kind,
            pool_first=pool_first,
            joint=joint,
            further=len(further),
        )
        self.head = ExpressionHead(joint_channels // 2, len(classes), recognition_norm, dropout)
        self.style = ExpressionStyle(image_channels, len(classes), style_dim, condition)
        self.decoder = EditDecoder(
            in_channels=joint_channels // 2,
            skip_channels=[*reversed(stage_channels[:-1]), stem_channels],
            image_channels=image_channels,
            code_dim=code_width(condition, len(classes)),
            style_dim=style_dim,
            channels=decoder_channels,
            painted_channels=painted_channels,
            output=output,
        )
        options = {"map_size": image_size // step, "classes": len(classes), "norm": recognition_norm}
        self.heads = nn.ModuleDict(
            {task: build_head(task, stage_channels[-1], dropout=dropout, **options) for task in further}
        )

    @classmethod
    def sized(cls, size: str, **config) -> "FERSNet":
        """A network of one of :data:`FERSNET_SIZES`, ``config`` overriding it.

        Raises:
            InputError: if there is no such size.
        """
        return cls(**sized_config(size, **config))

    @property
    def tasks(self) -> tuple[str, ...]:
        """What :meth:`predict` tells: expression and the further tasks."""
        return ("expression", *self.heads)

    @property
    def classes(self) -> tuple[str, ...]:
        """Expressions, in the order of the logits."""
        return tuple(self.config.classes)

    def encode(self, images: Tensor) -> Encoded:
        """Features of faces (B, C, H, W) in [-1, 1] for both tasks."""
        return self.encoder(in_precision_of(self.encoder, images))

    def classify(self, encoded: Encoded) -> Tensor:
        """Logits (B, K), float32."""
        return self.head(encoded.recognition)

    def read_further(self, encoded: Encoded) -> dict[str, Tensor]:
        """Outputs of the further tasks by name, as ``heads.build_head`` makes them."""
        return {task: head(x) for (task, head), x in zip(self.heads.items(), encoded.further, strict=True)}

    def decode(self, encoded: Encoded, source: Tensor, target: Tensor, style: Tensor) -> Edit:
        """Edit ``source`` (B, C, H, W), encoded before, to ``target`` shown with ``style`` (B, S).

        Targets are expressions (B,) int64, or action units (B, 22) or valence and arousal (B, 2) as the network is
        conditioned, of which NaN is free.
        """
        code = target_code(self.config.condition, len(self.classes), target.to(source.device))
        return self.decoder(
            encoded.synthesis, encoded.skips, source, code, in_precision_of(self.decoder, style.to(source.device))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), float32, of faces (B, C, H, W) in [-1, 1]."""
        return self.classify(self.encode(images))

    @torch.no_grad()
    def recognize(self, images: Tensor) -> Tensor:
        """Probabilities (B, K) of faces (B, C, H, W) in [-1, 1]."""
        return self(images).softmax(1)

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """What faces (B, C, H, W) in [-1, 1] show, by task: as :meth:`MultiTaskModel.predict`, without synthesis."""
        encoded = self.encode(images)
        outputs = {"expression": self.classify(encoded)} | self.read_further(encoded)
        return {task: read_prediction(task, output) for task, output in outputs.items()}

    @torch.no_grad()
    def synthesize(
        self,
        images: Tensor,
        expression: Tensor,
        *,
        generator: Generator | None = None,
        style: Tensor | None = None,
        spread: float = 1.0,
        grain: Tensor | None = None,
    ) -> Tensor:
        """The same people with another expression.

        Args:
            images: source faces (B, C, H, W) in [-1, 1].
            expression: wanted class of each, (B,) int64; or vectors, as :meth:`decode` takes them.
            generator: draws style and grain: one, or one for each face, which then comes out the same whatever the
                batch it stands in. One seed gives the same faces on every device.
            style: (B, S), instead of drawing one.
            spread: how far styles go from the class's mean, in standard deviations of its prior; 0 gives the mean.
            grain: standard normal noise (B, C, H, W) for :func:`restore_grain`, instead of drawing it.

        Returns:
            (B, C, H, W) float32 in [-1, 1].

        Raises:
            InputError: as :func:`draw_noise` and :func:`wanted_targets`; or if a wanted class is missing (-1).
        """
        expression = wanted_targets(self, expression, images)
        if not expression.is_floating_point() and len(expression) and int(expression.min()) < 0:
            raise InputError("an edit needs the expression that is wanted, and -1 names none")
        expression = expression.to(images.device)
        if style is None:
            noise = draw_noise((len(images), self.style.dim), generator, images.device)
            style = self.style.draw(self.style.prior(expression), spread * noise)
        if grain is None:
            grain = draw_noise(images.shape, generator, images.device)
        edited = self.decode(self.encode(images), images, expression, style).image
        return restore_grain(edited, images, grain)

    def recognition_parameters(self) -> int:
        """How many parameters take part in recognition: those of the encoder that reach it, and the head."""
        counts = [sum(p.numel() for p in part.parameters()) for part in (self.encoder, self.head)]
        return sum(counts) - self.encoder.parameters_beside_recognition()
