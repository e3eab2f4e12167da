"""A diffusion model whose denoiser shares features with recognition, through the gates of FERSNet's encoder."""

import math
from collections.abc import Callable, Iterable, Sequence

import diffusers
import torch
from diffusers import ConfigMixin, ModelMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.models.conditions import SourceAdapter, TargetCondition
from synthmtl.models.encoder import Encoded, ExpressionHead, TwoBranchEncoder
from synthmtl.models.fersnet import sized_config, wanted_targets
from synthmtl.models.grain import restore_grain
from synthmtl.models.noise import NoiseSchedule
from synthmtl.models.sampling import Generator, draw_noise, sample_faces

DIFFUSION_SIZES = {
    "published": {
        "image_size": 128,
        "unet_channels": (128, 256, 384, 512),
        "unet_layers": 2,
        "attention_levels": 2,
        "patch_size": 1,
    },
    "cpu": {
        "image_size": 48,
        "unet_channels": (48, 64, 96),
        "unet_layers": 1,
        "attention_levels": 1,
        "patch_size": 2,
    },
    "tiny": {
        "image_size": 32,
        "unet_channels": (16, 32),
        "unet_layers": 1,
        "attention_levels": 1,
        "patch_size": 2,
    },
}
"""What the sizes of :data:`FERSNET_SIZES` have besides their encoder: ``published`` (128 px, widths of common pixel
diffusion models), ``cpu`` (48 px in patches of 2×2), ``tiny`` (for trials)."""

DIFFUSED = ("face", "change")
"""What a denoiser makes of noise where it is given a source."""

CHANGE_SCALE = 3.0
"""Factor on changes: they deviate by 0.10 between rendered faces of a person, whole faces by 0.35 (of [-1, 1])."""

_DECODER_ONLY = ("output", "decoder_channels", "painted_channels")


def diffusion_config(size: str, **config) -> dict:
    """Arguments of a :class:`DiffusionFERSNet` of one of :data:`DIFFUSION_SIZES`, ``config`` overriding them.

    Raises:
        InputError: if there is no such size.
    """
    encoder = {key: value for key, value in sized_config(size, **config).items() if key not in _DECODER_ONLY}
    return encoder | DIFFUSION_SIZES[size] | config | {"sharing_options": encoder["sharing_options"]}


class DiffusionFERSNet(ModelMixin, ConfigMixin):
    """FERSNet's two branches that share features through gates, with a diffusion model in place of the decoder.

    The encoder reads the clean source, so that recognition needs no sampling. A ``diffusers`` UNet takes noise from
    faces; it is told the target, and of the source what the gates let into the synthesis branch
    (:class:`SourceAdapter`). Without a source it makes new faces by expression alone.

    What is made of noise where there is a source is the wanted ``face``, or the ``change`` of the source,

        d = CHANGE_SCALE (target - source),

    to which the source is added: what no expression changes (person, hair, light, background) then need not be made
    again, only left at zero. (Diffusing what differs from an image at hand: Yue, Wang, Loy, NeurIPS 2023, for
    super-resolution, by another noise process.)

    Args:
        classes: expressions, in canonical order.
        image_size: side of the faces in pixels; with S stages a multiple of 2^(S + 1), and at least twice that, and
            with L UNet levels a multiple of ``patch_size`` · 2^(L - 1).
        image_channels: 1 for gray, 3 for RGB.
        stem_channels, stage_channels, joint_channels, sharing, sharing_options, one_unit, recognition_norm,
            synthesis_norm, stem_kind, pool_first, joint, dropout: as in :class:`FERSNet`.
        condition: what the target is, one of ``conditions.CONDITIONS``.
        diffused: ``face`` or ``change``, see above.
        prediction: ``v`` or ``flow``, as in :class:`NoiseSchedule`.
        unet_channels: width of each level of the UNet, fine to coarse.
        unet_layers: residual blocks a level.
        attention_levels: how many of the coarsest levels have self-attention.
        patch_size: the UNet works on patches of that many pixels a side, 1 or 2; 2 is up to four times as quick.
    """

    @register_to_config
    def __init__(
        self,
        classes: Sequence[str],
        image_size: int = 128,
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
        dropout: float = 0.0,
        condition: str = "expression",
        diffused: str = "face",
        prediction: str = "v",
        unet_channels: Sequence[int] = (128, 256, 384, 512),
        unet_layers: int = 2,
        attention_levels: int = 2,
        patch_size: int = 1,
    ):
        super().__init__()
        if diffused not in DIFFUSED:
            raise InputError(f"diffused is {diffused!r}: use {' or '.join(DIFFUSED)}")
        levels = len(unet_channels)
        step = math.lcm(2 ** (1 + len(stage_channels)), patch_size * 2 ** (levels - 1))
        least = 2 ** (2 + len(stage_channels))
        if patch_size not in (1, 2) or image_size % step or image_size < least:
            raise InputError(
                f"image_size {image_size} and patch_size {patch_size} do not suit the network: use patches of 1 or 2 "
                f"and a multiple of {step} from {least}"
            )
        self.schedule = NoiseSchedule(prediction)
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
        )
        self.head = ExpressionHead(joint_channels // 2, len(classes), recognition_norm, dropout)
        self.target = TargetCondition(condition, len(classes), 4 * unet_channels[0])
        joined = max(4, unet_channels[0] // 4)
        self.adapter = SourceAdapter(
            [stem_channels, *stage_channels[:-1], joint_channels // 2],
            image_size=image_size,
            input_size=image_size // patch_size,
            widths=[joined, *unet_channels],
        )
        common = math.gcd(*unet_channels)
        attends = [level >= levels - attention_levels for level in range(levels)]
        pixels = image_channels * patch_size**2
        self.unet = diffusers.UNet2DConditionModel(
            sample_size=image_size // patch_size,
            in_channels=pixels + joined,
            out_channels=pixels,
            block_out_channels=tuple(unet_channels),
            layers_per_block=unet_layers,
            down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
            mid_block_type="UNetMidBlock2D",
            up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
            norm_num_groups=max(n for n in range(1, max(1, min(32, common // 4)) + 1) if common % n == 0),
            attention_head_dim=min(32, common),
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity",
        )

    @classmethod
    def sized(cls, size: str, **config) -> "DiffusionFERSNet":
        """A network of one of :data:`DIFFUSION_SIZES`, ``config`` overriding it.

        Raises:
            InputError: if there is no such size.
        """
        return cls(**diffusion_config(size, **config))

    @property
    def classes(self) -> tuple[str, ...]:
        """Expressions, in the order of the logits."""
        return tuple(self.config.classes)

    def encode(self, images: Tensor) -> Encoded:
        """Features of clean faces (B, C, H, W) in [-1, 1] for both tasks."""
        return self.encoder(images.to(self.dtype))

    def classify(self, encoded: Encoded) -> Tensor:
        """Logits (B, K), float32."""
        return self.head(encoded.recognition)

    def diffusible(self, face: Tensor, source: Tensor | None, keep_source: Tensor | None = None) -> Tensor:
        """What noise is put on to teach wanted faces (B, C, H, W): they, or where a source is kept, the change to them.

        Args:
            face: in [-1, 1].
            source: as many; None = no source.
            keep_source: (B,) bool; the other rows go without. None = all are kept.
        """
        if source is None or self.config.diffused == "face":
            return face
        change = CHANGE_SCALE * (face - source)
        return change if keep_source is None else torch.where(keep_source.view(-1, 1, 1, 1), change, face)

    def denoise(
        self,
        noisy: Tensor,
        timestep: Tensor,
        encoded: Encoded | None,
        condition: Tensor | None,
        *,
        keep_source: Tensor | None = None,
        keep_condition: Tensor | None = None,
    ) -> Tensor:
        """What ``schedule.target`` is of noisy faces, as far as can be told.

        Args:
            noisy: (B, C, H, W).
            timestep: (B,) or a scalar, as in :class:`NoiseSchedule`.
            encoded: of B sources; None = no source.
            condition: targets as :class:`TargetCondition` takes them; None = none.
            keep_source, keep_condition: (B,) bool; the other rows go without. None = all are kept.

        Returns:
            (B, C, H, W) float32.
        """
        patch, count = self.config.patch_size, len(noisy)
        x = F.pixel_unshuffle(noisy.to(self.dtype), patch)
        added = None if encoded is None else self.adapter(encoded, keep_source)
        if added is None:
            joined = x.new_zeros(count, self.unet.config.in_channels - x.shape[1], *x.shape[2:])
        else:
            joined, *added = added
        if condition is None:
            condition = self.target.missing(count, noisy.device)
        predicted = self.unet(
            torch.cat([x, joined.to(x.dtype)], 1),
            timestep.expand(count),
            None,
            class_labels=self.target(condition, keep_condition),
            down_intrablock_additional_residuals=added,
        ).sample
        return F.pixel_shuffle(predicted, patch).float()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), float32, of faces (B, C, H, W) in [-1, 1]."""
        return self.classify(self.encode(images))

    @torch.no_grad()
    def recognize(self, images: Tensor) -> Tensor:
        """Probabilities (B, K) of faces (B, C, H, W) in [-1, 1]."""
        return self(images).softmax(1)

    @torch.no_grad()
    def synthesize(
        self,
        images: Tensor | None,
        expression: Tensor,
        *,
        generator: Generator | None = None,
        style: Tensor | None = None,
        spread: float = 1.0,
        grain: Tensor | None = None,
        steps: int = 8,
        guidance_scale: float = 1.0,
        solver: str | SchedulerMixin | None = None,
        eta: float = 0.0,
        strength: float | None = None,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> Tensor:
        """The same people with another expression, or new people.

        Args:
            images: source faces (B, C, H, W) in [-1, 1]; None = new faces.
            expression: wanted targets, (B,) int64 classes, or vectors if the network is conditioned on those; -1 or NaN
                leaves them open.
            generator: draws style, grain and what ``eta`` adds: one, or one for each face, which then comes out the
                same whatever the batch it stands in.
            style: the noise to start from, B · C · H · W numbers, instead of drawing it.
            spread: that noise is multiplied by it: 1 as in training, below 1 for faces nearer to the typical one.
            grain: standard normal noise (B, C, H, W) for :func:`restore_grain`, instead of drawing it. Few steps
                leave faces smooth; new faces, which have no source, stay as they are.
            steps, guidance_scale, solver, eta, progress: as for :func:`sample_faces`.
            strength: as in :class:`SamplingOptions`; only sources can have it.

        Returns:
            (B, C, H, W) float32 in [-1, 1].

        Raises:
            InputError: as :func:`sample_faces`, :func:`draw_noise` and :func:`wanted_targets`, or for a strength
                without sources.
        """
        if strength is not None and images is None:
            raise InputError("strength says how much noise is put on a source, new faces have none: leave it out")
        expression = wanted_targets(self, expression, images)
        config, device = self.config, self.device
        shape = (len(expression), config.image_channels, config.image_size, config.image_size)
        noise = spread * draw_noise(shape, generator, device) if style is None else style.to(device).view(shape)
        if images is not None and grain is None:
            grain = draw_noise(shape, generator, device)
        low: Tensor | float = -1.0
        high: Tensor | float = 1.0
        told, change = images if strength is None else None, False
        if told is not None and config.diffused == "change":
            change, low, high = True, CHANGE_SCALE * (-1 - told), CHANGE_SCALE * (1 - told)
        made = sample_faces(
            self,
            noise,
            expression.to(device),
            None if told is None else self.encode(told),
            steps=steps,
            guidance_scale=guidance_scale,
            solver=solver,
            eta=eta,
            generator=generator,
            low=low,
            high=high,
            start=None if strength is None else images,
            strength=strength,
            progress=progress,
        )
        if images is None:
            return made
        assert grain is not None  # given or drawn wherever there are sources
        return restore_grain(images + made / CHANGE_SCALE if change else made, images, grain)

    def recognition_parameters(self) -> int:
        """How many parameters take part in recognition: those of the encoder that reach it, and the head."""
        counts = [sum(p.numel() for p in part.parameters()) for part in (self.encoder, self.head)]
        return sum(counts) - self.encoder.parameters_beside_recognition()
