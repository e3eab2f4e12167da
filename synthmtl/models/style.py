"""How an expression is shown: a small code that the class alone does not fix."""

from torch import Tensor, nn

from synthmtl.models.blocks import in_precision_of
from synthmtl.models.conditions import code_width, target_code


class ExpressionStyle(nn.Module):
    """Style s of an expression: read from a face, or drawn for a class.

    Faces of one class differ in intensity, symmetry and further actions. A decoder that sees the class alone can only
    show their average, which is mild and blurred. Here the posterior q(s | target) = N(m, v) is read from the target's
    features in training, the prior p(s | class) = N(m_c, v_c) is learned per class, and the divergence
    KL(q || p) keeps q as small as the pixels allow, as in a conditional variational autoencoder (Sohn et al., 2015).
    Where action units or valence and arousal are the target, a small network of these makes the prior's moments.

    The posterior is read by a small network of its own: the branches' encoder is much wider than this code needs, and
    recognition should not see the targets.

    Args:
        image_channels: C of the faces.
        classes: number of expressions K.
        dim: size S of the style.
        condition: what targets are, one of ``conditions.CONDITIONS``.
    """

    def __init__(self, image_channels: int, classes: int, dim: int, condition: str = "expression"):
        super().__init__()
        self.dim, self.classes, self.condition = dim, classes, condition
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16 * image_channels, 32, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.posterior_moments = nn.Linear(64 * 16, 2 * dim)
        if condition == "expression":
            self.prior_moments: nn.Module = nn.Embedding(classes, 2 * dim)
            nn.init.normal_(self.prior_moments.weight, std=0.01)
        else:
            last = nn.Linear(64, 2 * dim)
            self.prior_moments = nn.Sequential(nn.Linear(code_width(condition, classes), 64), nn.SiLU(), last)
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    @staticmethod
    def _moments(raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = raw.float().chunk(2, 1)
        return mean, log_variance.clamp(-8, 4)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, S) of the style that faces (B, C, H, W) in [-1, 1] show."""
        return self._moments(self.posterior_moments(self.encoder(in_precision_of(self.encoder, images))))

    def prior(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, S) of the styles of targets: classes (B,), or vectors (B, 22) or (B, 2)."""
        if self.condition != "expression":
            target = in_precision_of(self.prior_moments, target_code(self.condition, self.classes, target))
        return self._moments(self.prior_moments(target))

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
