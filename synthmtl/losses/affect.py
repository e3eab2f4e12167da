"""The loss of valence and arousal."""

import torch
from torch import Tensor, nn

from synthmtl.losses.weighting import per_row, ratio, summed


def concordance(x: Tensor, y: Tensor, weights: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Lin's concordance correlation coefficient (Biometrics 1989) of each column: (B, D) three times → (D,).

        CCC = 2 s_xy / (s_x² + s_y² + (m_x - m_y)² + ε)

    with weighted population moments. In training on several processes they are those of the joined batch, with
    gradients through them. Rows of weight 0 have no influence, whatever they hold. The small ε makes it 0, with a
    finite gradient, where nothing varies; one row alone has CCC 0 and no gradient.
    """
    counted = weights > 0
    x, y = torch.where(counted, x.float(), 0.0), torch.where(counted, y.float(), 0.0)
    weights = torch.where(counted, weights.float(), 0.0)
    total = summed(weights.sum(0))
    mean_x, mean_y = ratio(summed(torch.stack([(weights * x).sum(0), (weights * y).sum(0)])), total)
    # From centered values: the mean of squares less the squared mean cancels where the mean is large.
    x, y = x - mean_x, y - mean_y
    products = torch.stack([(weights * product).sum(0) for product in (x * x, y * y, x * y)])
    variance_x, variance_y, covariance = ratio(summed(products), total)
    return 2 * covariance / (variance_x + variance_y + (mean_x - mean_y).square() + epsilon)


class ConcordanceLoss(nn.Module):
    """1 - mean of the CCC of valence and of arousal over the labelled faces of the global batch.

    It is a function of the whole batch, not a mean over faces: two half batches do not accumulate to the whole. A
    dimension takes part if at least two faces of positive weight carry it; without one the loss is zero. Where all
    labels of a dimension agree its CCC is 0 whatever is predicted, and there is no gradient.
    """

    def forward(self, output: Tensor, valence_arousal: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of ``output`` (B, 2) against labels (B, 2), NaN = missing, of faces with ``weight`` (B,)."""
        weights = (~valence_arousal.isnan()).float()
        if weight is not None:
            weights = weights * per_row(weight, weights)
        apart = 1 - concordance(output, valence_arousal, weights)
        taking_part = summed((weights > 0).sum(0)) >= 2
        return ratio(torch.where(taking_part, apart, 0.0).sum(), taking_part.sum())
