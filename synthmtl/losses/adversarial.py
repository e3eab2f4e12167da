"""Least-squares GAN losses and differentiable augmentation for critics with little data."""

from torch import Tensor
from torch.nn import functional as F

from synthmtl.data.randomness import StepRandom


def least_squares(scores: Tensor, goal: float) -> Tensor:
    """Least-squares GAN (Mao et al., 2017): mean (D - goal)² over the patches of each face, (B, 1, h, w) → (B,).

    The critic's goal is 1 for real faces and 0 for others; the generator's is 1 for its own.
    """
    return (scores - goal).square().mean((1, 2, 3))


def differentiable_augment(
    images: Tensor, random: StepRandom, name: str, *, shift: float = 0.1, noise: float = 0.05
) -> Tensor:
    """Random brightness, contrast, shift and noise that let gradients through (DiffAugment, Zhao et al., 2020).

    In front of a critic it keeps a small data set from being learned by heart; in front of a frozen recognizer it
    keeps an editor from fooling it with pixel patterns. (B, C, H, W) → the same shape.

    Args:
        images: faces in [-1, 1].
        random, name: of the draws.
        shift: largest shift, as a share of the side.
        noise: deviation, in units of [-1, 1] pixels.
    """
    count, _, height, width = images.shape
    gain, offset = (
        random.uniform(f"{name}-gain", count, 1, 1, 1, low=0.8, high=1.2),
        random.uniform(f"{name}-offset", count, 1, 1, 1, low=-0.15, high=0.15),
    )
    images = images * gain + offset
    # One shift for the whole batch: slicing is much cheaper than resampling every image.
    reach = max(1, round(shift * height))
    down, right = random.shared_integers(f"{name}-shift", 2 * reach + 1, 2).tolist()
    images = F.pad(images, (reach,) * 4, mode="replicate")[..., down : down + height, right : right + width]
    return images + noise * random.normal(f"{name}-noise", *images.shape)
