"""Synthesis of expressions as a ``diffusers`` pipeline."""

from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin
from PIL import Image
from torch import Tensor

from synthmtl.data.images import opened_face, pillow_image
from synthmtl.data.pixels import to_pixels, to_unit
from synthmtl.errors import InputError
from synthmtl.models.conditions import Target, read_target
from synthmtl.models.denoiser import DiffusionFERSNet
from synthmtl.models.sampling import Generator


class ExpressionSynthesisPipeline(DiffusionPipeline):
    """Faces with a wanted expression: of given people, or new ones.

        pipeline = ExpressionSynthesisPipeline.from_pretrained(directory).to("cuda")
        faces = pipeline(image, "happiness", generator=torch.Generator().manual_seed(0), output_type="pil").images

    Args:
        model: the trained network, which is put into evaluation mode.
        scheduler: a ``diffusers`` scheduler that goes with the network's prediction; None = DPM-Solver++.
    """

    _optional_components = ["scheduler"]

    def __init__(self, model: DiffusionFERSNet, scheduler: SchedulerMixin | None = None):
        super().__init__()
        # Batch statistics would tie the faces of a batch together.
        self.register_modules(model=model.eval(), scheduler=model.schedule.solver(scheduler))

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor | Image.Image | Sequence[Image.Image] | None,
        expression: Target,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 8,
        generator: Generator | None = None,
        *,
        scheduler: str | SchedulerMixin | None = None,
        spread: float = 1.0,
        eta: float = 0.0,
        strength: float | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Make faces.

        Args:
            image: sources, (B, C, H, W) or (C, H, W) in [-1, 1], or Pillow images, which are read as
                :func:`synthmtl.data.read_face` reads their files; None = new faces.
            expression: names, indices or whatever else :func:`read_target` takes; one for all sources, or one each. A
                single source is shown with each of several expressions.
            guidance_scale: strength of classifier-free guidance; 1 is none, others double the cost of a step.
            num_inference_steps: solver steps.
            generator: one, or one for each face, which then comes out the same whatever the batch it stands in.
            scheduler: instead of the pipeline's own: ``dpm``, ``ddim`` (v prediction) or ``flow`` (flow prediction).
            spread, eta, strength: as in :meth:`DiffusionFERSNet.synthesize`.
            output_type: ``pt`` for a float32 tensor (B, C, H, W) in [-1, 1], ``pil`` for a list of Pillow images.
            return_dict: False gives a tuple.

        Raises:
            InputError: if sources and expressions do not match in number, or an argument does not suit the network.
        """
        if output_type not in ("pt", "pil"):
            raise InputError(f"unknown output_type {output_type!r}: use pt or pil")
        if _is_empty(image):
            raise InputError("image is empty: give at least one, or None for new faces")
        if _is_empty(expression):
            raise InputError("expression is empty: give at least one")
        target = read_target(self.model.config.condition, self.model.classes, expression)
        sources = None if image is None else self._faces(image)
        if sources is not None:
            count = max(len(sources), len(target))
            if not {len(sources), len(target)} <= {1, count}:
                raise InputError(f"{len(sources)} images for {len(target)} expressions: give one of either, or as many")
            sources, target = (x.expand(count, *x.shape[1:]) if len(x) == 1 else x for x in (sources, target))
        faces = self.model.synthesize(
            sources,
            target,
            generator=generator,
            spread=spread,
            steps=num_inference_steps,
            guidance_scale=guidance_scale,
            solver=self.scheduler if scheduler is None else scheduler,
            eta=eta,
            strength=strength,
            progress=self.progress_bar,
        )
        if output_type == "pil":
            faces = [pillow_image(face) for face in to_pixels(faces)]
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=faces) if return_dict else (faces,)

    def _faces(self, image: Tensor | Image.Image | Sequence[Image.Image]) -> Tensor:
        config = self.model.config
        size, channels = config.image_size, config.image_channels
        if not isinstance(image, Tensor):
            images = [image] if isinstance(image, Image.Image) else image
            if not isinstance(images, Sequence) or not all(isinstance(each, Image.Image) for each in images):
                raise InputError(f"image is {_kind(image)}: give a tensor, a Pillow image or a list of Pillow images")
            image = to_unit(torch.stack([opened_face(each, size, channels) for each in images]))
        elif not image.is_floating_point():
            raise InputError(
                f"images as a tensor are numbers in [-1, 1], not {image.dtype}: use synthmtl.data.pixels.to_unit"
            )
        elif image.ndim == 3:
            image = image[None]
        if image.shape[1:] != (channels, size, size):
            raise InputError(f"images must be {channels} x {size} x {size} pixels, not {tuple(image.shape[1:])}")
        return image.to(self._execution_device)


def _is_empty(value: object) -> bool:
    """Whether a value is a tensor or a sequence with nothing in it."""
    return not value.numel() if isinstance(value, Tensor) else isinstance(value, Sequence) and not value


def _kind(value: object) -> str:
    """What a value is, e.g. ``ndarray``, or ``list of Tensor`` after the first that is no Pillow image."""
    name = type(value).__name__
    if not isinstance(value, Sequence) or isinstance(value, str):
        return name
    return f"{name} of {next(type(each).__name__ for each in value if not isinstance(each, Image.Image))}"
