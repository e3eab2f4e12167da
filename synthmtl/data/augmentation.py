"""Random views of faces, each face by its own parameters, made for the whole batch at once."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthmtl.data.randomness import StepRandom
from synthmtl.errors import InputError

FLIPPED_LANDMARKS = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip
"""Which of the 68 landmarks each one is in the mirror image."""


@dataclass
class AugmentationConfig:
    """How strongly faces are varied; 0 switches a variation off.

    Attributes:
        flip: probability of a mirror image.
        rotation_degrees: largest rotation, either way.
        shift: largest shift along each side, as a share of the side.
        scale: largest change of size, as a share.
        brightness: largest addition, as a share of half the range of the pixels.
        contrast: largest change of the distance from mid-gray, as a share.
        noise: deviation of Gaussian pixel noise, in units of [-1, 1] pixels.
        erase_probability: probability that a rectangle is filled with one gray (Zhong et al., AAAI 2020).
        erase_area: smallest and largest area of the rectangle, as a share of the image.

    Raises:
        InputError: if one is out of its range.
    """

    flip: float = 0.5
    rotation_degrees: float = 10.0
    shift: float = 0.08
    scale: float = 0.1
    brightness: float = 0.2
    contrast: float = 0.2
    noise: float = 0.02
    erase_probability: float = 0.25
    erase_area: tuple[float, float] = (0.02, 0.15)

    def __post_init__(self):
        for name in ("flip", "erase_probability"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise InputError(f"augmentation {name} is a probability, from 0 to 1, not {value}")
        for name in ("rotation_degrees", "shift", "brightness", "contrast", "noise"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise InputError(f"augmentation {name} must be a finite number from 0 up, not {value}")
        if not 0 <= self.scale < 1:
            raise InputError(f"augmentation scale is a share of the size in [0, 1), not {self.scale}")
        low, high = self.erase_area
        if not 0 <= low <= high <= 1:
            raise InputError(f"augmentation erase_area is two ascending shares of the image, not {self.erase_area}")


def augment(images: Tensor, random: StepRandom, config: AugmentationConfig, name: str = "augment") -> Tensor:
    """Varied images, clamped to [-1, 1]; differentiable with respect to ``images``.

    Args:
        images: (B, C, H, W) float in [-1, 1].
        random: draws of the step; the same draws give the same result.
        config: strengths.
        name: of the draws; another name gives another view of the same faces.
    """
    return _noisy(_vary(images, random, config, name), random, config, f"{name}/noise")


def augment_pair(
    source: Tensor, target: Tensor, random: StepRandom, config: AugmentationConfig, name: str = "augment"
) -> tuple[Tensor, Tensor]:
    """Two views of the same people, varied alike pixel for pixel; only the noise is drawn for each.

    Args:
        source, target: (B, C, H, W) float in [-1, 1], pairs that share pose, light and framing.
        random, config, name: as in :func:`augment`.
    """
    channels = source.shape[1]
    both = _vary(torch.cat([source, target], 1), random, config, name)
    return (
        _noisy(both[:, :channels], random, config, f"{name}/noise"),
        _noisy(both[:, channels:], random, config, f"{name}/target noise"),
    )


def augment_landmarks(
    landmarks: Tensor, size: tuple[int, int], random: StepRandom, config: AugmentationConfig, name: str = "augment"
) -> Tensor:
    """Where the landmarks are in the faces that :func:`augment` makes with the same draws.

    Args:
        landmarks: (B, 68, 2) in [0, 1] of the image, NaN = missing.
        size: height and width of the faces.
        random, config, name: as given to :func:`augment`.

    Returns:
        (B, 68, 2); points that left the image are missing.
    """
    count = len(landmarks)
    if config.flip:
        mirrored = _mirrored(count, random, config, name)
        landmarks = torch.where(mirrored[:, None, None], flip_landmarks(landmarks), landmarks)
    if config.rotation_degrees or config.shift or config.scale:
        # The map goes from places in the new face to places in the old one.
        theta = _placement(count, *size, random, config, name).to(landmarks.dtype)
        places = torch.linalg.solve(theta[:, :, :2], (2 * landmarks - 1).mT - theta[:, :, 2:]).mT
        landmarks = (places + 1) / 2
    inside = ((landmarks >= 0) & (landmarks <= 1)).all(2, keepdim=True)
    return torch.where(inside, landmarks, float("nan"))


def flip_landmarks(landmarks: Tensor) -> Tensor:
    """Landmarks (B, 68, 2) in [0, 1] of the mirrored images, each under its own number again."""
    flipped = landmarks[:, list(FLIPPED_LANDMARKS)]
    return torch.stack([1 - flipped[..., 0], flipped[..., 1]], -1)


def _vary(images: Tensor, random: StepRandom, config: AugmentationConfig, name: str) -> Tensor:
    """Geometry, photometry and erasing: one map of places and one of gray values for all channels of an image."""
    count = len(images)
    if config.flip:
        mirrored = _mirrored(count, random, config, name)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if config.rotation_degrees or config.shift or config.scale:
        images = _move(images, random, config, name)
    change = random.uniform(f"{name}/photometry", count, 2, low=-1.0)[:, :, None, None, None]
    images = images * (1 + config.contrast * change[:, 0]) + config.brightness * change[:, 1]
    return _erased(images, random, config, name) if config.erase_probability else images


def _mirrored(count: int, random: StepRandom, config: AugmentationConfig, name: str) -> Tensor:
    return random.uniform(f"{name}/flip", count) < config.flip


def _move(images: Tensor, random: StepRandom, config: AugmentationConfig, name: str) -> Tensor:
    count, _, height, width = images.shape
    theta = _placement(count, height, width, random, config, name)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _placement(
    count: int, height: int, width: int, random: StepRandom, config: AugmentationConfig, name: str
) -> Tensor:
    """Maps (B, 2, 3) from places in the new images to places in the old ones, both from -1 to 1 along each side."""
    draw = random.uniform(f"{name}/geometry", count, 4, low=-1.0).unbind(1)
    angle = torch.deg2rad(config.rotation_degrees * draw[0])
    inverse_scale = 1 / (1 + config.scale * draw[1])
    cosine, sine = angle.cos() * inverse_scale, angle.sin() * inverse_scale
    # The sides of an oblong image are units of different lengths, and a rotation must not shear it.
    rows = [cosine, -sine * height / width, 2 * config.shift * draw[2]]
    rows += [sine * width / height, cosine, 2 * config.shift * draw[3]]
    return torch.stack(rows, 1).view(count, 2, 3)


def _erased(images: Tensor, random: StepRandom, config: AugmentationConfig, name: str) -> Tensor:
    count, _, height, width = images.shape
    draw = random.uniform(f"{name}/erase", count, 6)
    chosen = (draw[:, 0] < config.erase_probability).nonzero()[:, 0]
    if len(chosen) == 0:
        return images
    draw = draw[chosen]
    low, high = config.erase_area
    area = low + (high - low) * draw[:, 1]
    ratio = 4 ** (draw[:, 2] - 0.5)
    tall = ((area * ratio).sqrt() * height).clamp(1, height)
    wide = ((area / ratio).sqrt() * width).clamp(1, width)
    inside_y = _inside(height, draw[:, 3] * (height - tall), tall)
    inside_x = _inside(width, draw[:, 4] * (width - wide), wide)
    box = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    gray = (2 * draw[:, 5] - 1).to(images.dtype)[:, None, None, None]
    return images.index_copy(0, chosen, torch.where(box, gray, images[chosen]))


def _inside(size: int, start: Tensor, length: Tensor) -> Tensor:
    places = torch.arange(size, device=start.device) + 0.5
    return (places >= start[:, None]) & (places < (start + length)[:, None])


def _noisy(images: Tensor, random: StepRandom, config: AugmentationConfig, name: str) -> Tensor:
    if config.noise:
        images = images + config.noise * random.normal(name, *images.shape).to(images.dtype)
    return images.clamp(-1, 1)
