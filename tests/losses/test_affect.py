import pytest
import torch
from torchmetrics.functional.regression import concordance_corrcoef

from synthmtl.losses import ConcordanceLoss, concordance


def example(count=40):
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(count, 2, generator=random) * 2 - 1
    output = 0.6 * truth + 0.3 * torch.randn(count, 2, generator=random) + 0.2
    return output.requires_grad_(), truth, torch.rand(count, generator=random) + 0.1


def gradient(loss, output):
    return torch.autograd.grad(loss, output)[0]


def by_hand(x, y, w):
    w = w / w.sum()
    mean_x, mean_y = (w * x).sum(), (w * y).sum()
    covariance = (w * (x - mean_x) * (y - mean_y)).sum()
    return 2 * covariance / ((w * (x - mean_x) ** 2).sum() + (w * (y - mean_y) ** 2).sum() + (mean_x - mean_y) ** 2)


def test_is_lins_coefficient():
    output, truth, weight = example()
    weights = weight[:, None].expand(-1, 2)
    expected = torch.stack([by_hand(output[:, d], truth[:, d], weight) for d in range(2)])
    torch.testing.assert_close(concordance(output, truth, weights), expected)
    # The library divides by n - 1: the same but for the difference of the means.
    library = concordance_corrcoef(output.detach(), truth)
    torch.testing.assert_close(concordance(output, truth, torch.ones(40, 2)), library, atol=0.02, rtol=0)
    centered = output - output.mean(0) + truth.mean(0)
    torch.testing.assert_close(
        concordance(centered, truth, torch.ones(40, 2)), concordance_corrcoef(centered.detach(), truth)
    )


def test_known_answers():
    _, truth, _ = example()
    ones = torch.ones_like(truth)
    torch.testing.assert_close(concordance(truth, truth, ones), torch.ones(2))
    torch.testing.assert_close(concordance(-truth + 2 * truth.mean(0), truth, ones), -torch.ones(2))
    torch.testing.assert_close(concordance(ones, truth, ones), torch.zeros(2))
    assert ConcordanceLoss()(truth, truth) == pytest.approx(0, abs=1e-6)


def test_weights_are_repetitions():
    output, truth, _ = example(10)
    times = torch.tensor([1, 2, 3, 1, 1, 4, 1, 2, 1, 1])
    again = torch.arange(10).repeat_interleave(times)
    loss = ConcordanceLoss()
    torch.testing.assert_close(loss(output, truth, times.float()), loss(output[again], truth[again]))


def test_each_dimension_has_its_own_faces():
    output, truth, weight = example()
    truth[::3, 0] = torch.nan
    truth[1::2, 1] = torch.nan
    parts = []
    for d in range(2):
        known = ~truth[:, d].isnan()
        parts.append(by_hand(output[known, d], truth[known, d], weight[known]))
    torch.testing.assert_close(ConcordanceLoss()(output, truth, weight), 1 - sum(parts) / 2)
    one = truth.clone()
    one[:, 1] = torch.nan
    torch.testing.assert_close(ConcordanceLoss()(output, one, weight), 1 - parts[0])


def test_gradient_is_that_of_the_formula():
    output, truth, weight = example()
    double = output.detach().double().requires_grad_()
    expected = 1 - sum(by_hand(double[:, d], truth[:, d].double(), weight.double()) for d in range(2)) / 2
    torch.testing.assert_close(
        gradient(ConcordanceLoss()(output, truth, weight), output), gradient(expected, double).float()
    )


@pytest.mark.parametrize("known", [0, 1])
def test_fewer_than_two_labels_are_a_zero_with_zero_gradient(known):
    output, truth, weight = example()
    truth[known:] = torch.nan
    loss = ConcordanceLoss()(output, truth, weight)
    assert loss == 0 and gradient(loss, output).count_nonzero() == 0


def test_faces_of_weight_zero_do_not_count():
    output, truth, weight = example()
    weight[1:] = 0
    assert ConcordanceLoss()(output, truth, weight) == 0


def test_numbers_that_do_not_vary_leave_everything_finite():
    output, truth, _ = example()
    constant = torch.full_like(truth, 0.3)
    for x, y in ((constant, truth), (output.detach(), constant), (constant, constant)):
        x = x.clone().requires_grad_()
        loss = ConcordanceLoss()(x, y)
        assert float(loss.detach()) == pytest.approx(1, abs=1e-5) and gradient(loss, x).isfinite().all()
    # Predictions that have collapsed are pulled apart: the gradient is not lost there.
    collapsed = constant.clone().requires_grad_()
    assert gradient(ConcordanceLoss()(collapsed, truth), collapsed).abs().max() > 1e-3
