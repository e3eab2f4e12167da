"""How an expression is shown: a small code that the class alone does not fix."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ExpressionStyle(nn.Module):
    """Style s of an expression: read from a face, or drawn for a class.

    Faces of one class differ in intensity, symmetry and further actions. A decoder that sees the class alone can only
    show their average, which is mild and blurred. Here the posterior q(s | target) = N(m, v) is read from the target's
    features in training, the prior p(s | class) = N(m_c, v_c) is learned per class, and the divergence
    KL(q || p) keeps q as small as the pixels allow, as in a conditional variational autoencoder (Sohn et al., 2015).

    Args:
        in_channels: channels of the features (B, C, h, w), pooled to ``grid`` × ``grid``.
        classes: number of expressions K.
        dim: size S of the style.
    """

    def __init__(self, in_channels: int, classes: int, dim: int, grid: int = 3):
        super().__init__()
        self.dim = dim
        self.grid = grid
        self.posterior_moments = nn.Linear(in_channels * grid * grid, 2 * dim)
        self.prior_moments = nn.Embedding(classes, 2 * dim)
        nn.init.normal_(self.prior_moments.weight, std=0.01)

    @staticmethod
    def _moments(raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = raw.float().chunk(2, 1)
        return mean, log_variance.clamp(-8, 4)

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, S) of the style that features (B, C, h, w) show."""
        pooled = F.adaptive_avg_pool2d(features, self.grid).flatten(1)
        return self._moments(self.posterior_moments(pooled))

    def prior(self, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, S) of the styles of a class, expression (B,)."""
        return self._moments(self.prior_moments(expression))

    @staticmethod
    def draw(moments: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        """A sample (B, S) of a Gaussian from standard normal ``noise`` (B, S)."""
        mean, log_variance = moments
        return mean + (log_variance / 2).exp() * noise

    @staticmethod
    def divergence(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
        """KL(q || p) in nats of each row, (B,), for diagonal Gaussians given as mean and log variance."""
        (mean_q, log_q), (mean_p, log_p) = q, p
        return 0.5 * (log_p - log_q + (log_q.exp() + (mean_q - mean_p).square()) / log_p.exp() - 1).sum(1)


def standard_normal(count: int, dim: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Noise (count, dim), drawn on the generator's own device so that a seed gives the same on every device."""
    source = generator.device if generator is not None else device
    return torch.randn(count, dim, generator=generator, device=source).to(device)
