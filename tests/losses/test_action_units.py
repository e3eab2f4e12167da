import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional as F

from synthmtl.losses import ActionUnitLoss, unit_prevalence


def example(count=10, units=4):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(count, units, generator=random).requires_grad_()
    return logits, torch.rand(count, units, generator=random), torch.rand(count, generator=random) + 0.1


def test_is_binary_cross_entropy():
    logits, intensities, _ = example()
    loss = ActionUnitLoss()
    torch.testing.assert_close(loss(logits, intensities), F.binary_cross_entropy(logits.sigmoid(), intensities))
    active = (intensities > 0.5).float()
    expected = log_loss(active.flatten(), logits.detach().double().sigmoid().flatten())
    assert loss(logits, active).item() == pytest.approx(expected, rel=1e-5)


def test_every_label_counts_the_same():
    logits, intensities, weight = example()
    intensities[0, 1:] = torch.nan
    intensities[1] = torch.nan
    known = ~intensities.isnan()
    each = F.binary_cross_entropy_with_logits(logits, intensities.nan_to_num(), reduction="none")
    share = known * weight[:, None]
    loss = ActionUnitLoss()
    torch.testing.assert_close(loss(logits, intensities, weight), (each * share).sum() / share.sum())
    torch.testing.assert_close(loss(logits, intensities), each[known].mean())


def test_the_least_loss_is_the_entropy_of_the_intensities():
    _, intensities, _ = example()
    logits = intensities.logit().requires_grad_()
    loss = ActionUnitLoss()(logits, intensities)
    torch.testing.assert_close(loss, torch.distributions.Bernoulli(intensities).entropy().mean())
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-6


def test_positive_weights_balance_a_unit():
    prevalence = torch.tensor([0.5, 0.2, 0.01, torch.nan])
    loss = ActionUnitLoss(prevalence, largest=20.0)
    torch.testing.assert_close(loss.positive_weights, torch.tensor([1.0, 4.0, 20.0, 1.0]))
    # One active face in five: with balanced labels the best constant probability is one half.
    logits, active = torch.zeros(5, 1, requires_grad=True), torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.0]])
    balanced = ActionUnitLoss(unit_prevalence(active))(logits, active)
    assert float(torch.autograd.grad(balanced, logits)[0].sum()) == pytest.approx(0, abs=1e-7)


def test_prevalence_is_over_the_labelled_faces():
    column = torch.tensor([[1.0, 0.2], [0.5, torch.nan], [0.4, torch.nan], [torch.nan, torch.nan]])
    torch.testing.assert_close(unit_prevalence(column), torch.tensor([2 / 3, 0.0]))
    for grade in range(1, 6):  # of 5, of which each stands in the column once
        assert unit_prevalence(torch.arange(6.0)[:, None] / 5, grade / 5) == pytest.approx((6 - grade) / 6)
    assert unit_prevalence(torch.full((3, 2), torch.nan)).isnan().all()
    assert unit_prevalence(torch.zeros(3, 1)) == 0 and ActionUnitLoss([0.0]).positive_weights == 10


def test_all_missing_is_zero():
    logits, intensities, weight = example()
    loss = ActionUnitLoss([0.1] * 4)(logits, torch.full_like(intensities, torch.nan), weight)
    assert loss == 0 and torch.autograd.grad(loss, logits)[0].count_nonzero() == 0
