import pytest
import torch
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.losses import ExpressionLoss
from synthmtl.losses.expression import carries_expression


def example(count=12, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator).requires_grad_()
    return logits, torch.randint(classes, (count,), generator=generator), torch.rand(count, generator=generator) + 0.1


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_is_cross_entropy(smoothing):
    logits, expression, _ = example()
    ours = ExpressionLoss(label_smoothing=smoothing)(logits, expression)
    theirs = F.cross_entropy(logits, expression, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(ours, logits), gradient(theirs, logits))


def test_weights_of_faces():
    logits, expression, weight = example()
    each = F.cross_entropy(logits, expression, reduction="none")
    loss = ExpressionLoss()
    torch.testing.assert_close(loss(logits, expression, weight), (each * weight).sum() / weight.sum())
    torch.testing.assert_close(loss(logits, expression, 7 * weight), loss(logits, expression, weight))
    torch.testing.assert_close(loss(logits, expression, torch.ones(12)), each.mean())


def test_class_weights_are_inverse_frequencies():
    logits, expression, _ = example()
    counts = [100, 50, 10, 1]
    loss = ExpressionLoss(counts, class_weighted=True)
    weights = 161 / (4 * torch.tensor(counts, dtype=torch.float32))
    torch.testing.assert_close(loss.class_weights, weights)
    torch.testing.assert_close(loss(logits, expression), F.cross_entropy(logits, expression, weight=weights))


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_logit_adjustment(tau):
    logits, expression, _ = example()
    counts = torch.tensor([100.0, 50.0, 10.0, 1.0])
    loss = ExpressionLoss(counts.tolist(), logit_adjustment=tau)
    adjusted = logits + tau * (counts / counts.sum()).log()
    torch.testing.assert_close(loss(logits, expression), F.cross_entropy(adjusted, expression))


def test_both_remedies_and_weights_together():
    logits, expression, weight = example()
    counts = torch.tensor([100.0, 50.0, 10.0, 1.0])
    loss = ExpressionLoss(counts.tolist(), class_weighted=True, logit_adjustment=1.0)
    share = weight * (counts.sum() / (4 * counts))[expression]
    each = F.cross_entropy(logits + (counts / counts.sum()).log(), expression, reduction="none")
    torch.testing.assert_close(loss(logits, expression, weight), (each * share).sum() / share.sum())


@pytest.mark.parametrize("options", [{}, {"counts": [9, 3, 2, 1], "class_weighted": True, "logit_adjustment": 1.0}])
def test_missing_labels_have_no_influence(options):
    logits, expression, weight = example()
    expression[::3] = -1
    missing = expression < 0
    loss = ExpressionLoss(label_smoothing=0.1, **options)
    first = gradient(loss(logits, expression, weight), logits)
    assert first[missing].count_nonzero() == 0 and first[~missing].count_nonzero() > 0

    other = logits.detach().clone()
    other[missing] = 50 * torch.randn(other[missing].shape, generator=torch.Generator().manual_seed(9))
    other.requires_grad_()
    heavier = torch.where(missing, 100.0, weight)
    assert torch.equal(gradient(loss(other, expression, heavier), other), first)
    torch.testing.assert_close(
        loss(logits, expression, weight), loss(logits[~missing], expression[~missing], weight[~missing])
    )


def test_all_missing_is_zero_with_zero_gradient():
    logits, expression, weight = example()
    for given in (None, weight):
        loss = ExpressionLoss([9, 3, 2, 1], class_weighted=True)(logits, torch.full_like(expression, -1), given)
        assert loss == 0 and torch.equal(gradient(loss, logits), torch.zeros_like(logits))


def test_faces_without_weight_are_zero_with_zero_gradient():
    logits, expression, _ = example()
    loss = ExpressionLoss()(logits, expression, torch.zeros(12))
    assert loss == 0 and gradient(loss, logits).count_nonzero() == 0


def test_classes_without_training_faces_stay_finite():
    logits, expression, _ = example()
    loss = ExpressionLoss([9, 3, 0, 1], class_weighted=True, logit_adjustment=1.0)(logits, expression)
    assert loss.isfinite() and gradient(loss, logits).isfinite().all()


def test_votes_for_a_class_without_faces_do_not_take_the_loss():
    loss = ExpressionLoss([4000, 4000, 0], class_weighted=True)
    present = ExpressionLoss([4000, 4000, 1], class_weighted=True).class_weights
    assert loss.class_weights[2] == 0 and torch.equal(loss.class_weights[:2], present[:2])
    shares = F.one_hot(torch.arange(64) % 2, 3).float()
    shares[0] = torch.tensor([0.9, 0.0, 0.1])
    _, weights = loss.each(torch.zeros(64, 3), torch.full((64,), -1), shares)
    assert 0 < weights[0] / weights.sum() < 0.1


@pytest.mark.parametrize("smoothing", [-0.5, 1.0, 1.5, float("nan")])
def test_label_smoothing_is_a_share(smoothing):
    with pytest.raises(InputError, match=rf"label_smoothing is {smoothing}: it must be in \[0, 1\)"):
        ExpressionLoss(label_smoothing=smoothing)


@pytest.mark.parametrize("options", [{"class_weighted": True}, {"logit_adjustment": 1.0}])
def test_remedies_need_counts(options):
    with pytest.raises(ValueError, match="need the class counts"):
        ExpressionLoss(**options)


def votes(seed=3):
    return torch.rand(12, 4, generator=torch.Generator().manual_seed(seed)).softmax(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_shares_of_annotators_take_the_place_of_labels(smoothing):
    logits, expression, weight = example()
    shares = votes()
    loss = ExpressionLoss(label_smoothing=smoothing)
    ours = loss(logits, expression, weight, shares)
    soft = (1 - smoothing) * shares + smoothing / 4
    each = -(soft * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(ours, (each * weight).sum() / weight.sum())
    # Where they are missing, the label stays; where the label is missing, they are enough.
    shares[::2] = float("nan")
    hard = F.cross_entropy(logits, expression, reduction="none", label_smoothing=smoothing)
    mixed = torch.where(torch.arange(12) % 2 == 0, hard, each)
    torch.testing.assert_close(loss(logits, expression, weight, shares), (mixed * weight).sum() / weight.sum())
    unlabelled = torch.where(torch.arange(12) % 2 == 0, expression, -1)
    torch.testing.assert_close(loss(logits, unlabelled, weight, shares), (mixed * weight).sum() / weight.sum())
    nothing = torch.full_like(shares, float("nan"))
    assert torch.equal(loss(logits, expression, weight, nothing), loss(logits, expression, weight))
    assert loss(logits, torch.full_like(expression, -1), weight, nothing) == 0


def test_certain_annotators_are_labels_under_both_remedies():
    logits, expression, weight = example()
    loss = ExpressionLoss([100, 50, 10, 1], class_weighted=True, logit_adjustment=1.0)
    certain = F.one_hot(expression, 4).float()
    torch.testing.assert_close(loss(logits, expression, weight, certain), loss(logits, expression, weight))
    values, shares = loss.each(logits, expression, votes())
    torch.testing.assert_close(shares, votes() @ loss.class_weights)
    assert values.isfinite().all()


def test_one_row_for_all_faces_says_what_every_row_would():
    # Tables without annotators hold the missing row once.
    logits, expression, weight = example()
    expression[3] = -1
    nobody = torch.full((1, 4), float("nan")).expand(len(logits), 4)
    loss = ExpressionLoss()
    expected = loss(logits, expression, weight)
    for distribution in (nobody, nobody.contiguous()):
        assert torch.equal(loss(logits, expression, weight, distribution), expected)
        assert torch.equal(carries_expression(expression, distribution), expression >= 0)
    same = torch.tensor([[0.2, 0.3, 0.0, 0.5]]).expand(len(logits), 4)
    shared, spelled_out = (loss(logits, expression, weight, shares) for shares in (same, same.contiguous()))
    assert torch.equal(shared, spelled_out) and shared != expected
    assert carries_expression(expression, same).all()
