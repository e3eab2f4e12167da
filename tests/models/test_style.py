import torch
from torch.distributions import Normal, kl_divergence

from synthmtl.models.style import ExpressionStyle


def moments(seed, rows=9, dim=4):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, dim, generator=generator) for _ in range(2))


def normal(pair):
    return Normal(pair[0], (pair[1] / 2).exp())


def test_divergence_is_that_of_the_gaussians():
    q, p = moments(0), moments(1)
    expected = kl_divergence(normal(q), normal(p)).sum(1)
    torch.testing.assert_close(ExpressionStyle.divergence(q, p), expected)
    assert (ExpressionStyle.divergence(q, p) > 0).all()


def test_divergence_of_equal_moments_is_zero():
    q = moments(0)
    assert torch.equal(ExpressionStyle.divergence(q, q), torch.zeros(9))


def test_prior_and_posterior_have_bounded_moments():
    style = ExpressionStyle(1, 5, 4)
    with torch.no_grad():
        style.posterior_moments.weight.mul_(1e3)
    faces = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for mean, log_variance in (style.posterior(faces), style.prior(torch.tensor([0, 4, 4]))):
        assert mean.shape == log_variance.shape == (3, 4)
        assert log_variance.min() >= -8 and log_variance.max() <= 4
    mean, _ = style.prior(torch.tensor([0, 4, 4]))
    assert torch.equal(mean[1], mean[2]) and not torch.equal(mean[0], mean[1])


def test_draws_follow_the_moments():
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    drawn = ExpressionStyle.draw((mean, log_variance), noise)
    torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.06, rtol=0)
    torch.testing.assert_close(drawn.var(0).log(), log_variance[0], atol=0.06, rtol=0)
    assert torch.equal(ExpressionStyle.draw((mean, log_variance), torch.zeros(1, 2)), mean)
