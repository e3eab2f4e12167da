import math

import pytest
import torch
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.losses import AssociationLoss, ExpressionLoss, LandmarkLoss, warm_up

HEADS = ("expression", "landmarks")


@pytest.fixture
def example(mixed):
    """Faces of all kinds (both labels, either, none) and the outputs of heads and predictors."""
    batch = mixed.faces(complete=True)
    batch.expression[4:8] = -1
    batch.landmarks[8:12] = torch.nan
    batch.expression[12:], batch.landmarks[12:] = -1, torch.nan
    batch.landmarks[5, 10:] = torch.nan
    own, other = mixed.heads(), mixed.heads(seed=7)
    outputs = {name: own[name] for name in HEADS} | {f"associated_{name}": other[name] for name in HEADS}
    return batch, outputs


def association(**options):
    return AssociationLoss(ExpressionLoss(), LandmarkLoss("l1"), **options)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["supervision", "consistency"])
def test_weights_out_of_range(name, weight):
    with pytest.raises(InputError, match=f"weight {name} must be a finite number from 0 up, not {weight}"):
        association(**{name: weight})


def gradients(loss, outputs):
    found = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    return {n: torch.zeros_like(outputs[n]) if g is None else g for n, g in zip(outputs, found, strict=True)}


def reached(gradient):
    """Rows that a gradient reaches."""
    return gradient.flatten(1).any(1).nonzero().flatten().tolist()


def test_is_the_formula(example):
    batch, outputs = example
    terms = association(supervision=2.0, consistency=0.5)(outputs, batch, warmth=0.4)
    w = batch.weight
    with_e, with_l, only_e, only_l = slice(0, 4), slice(0, 8), slice(8, 12), slice(4, 8)
    supervised = [*range(4), *range(8, 12)]
    each = F.cross_entropy(outputs["associated_expression"], batch.expression.clamp(min=0), reduction="none")
    expected = {"associated_expression": (w * each)[supervised].sum() / w[supervised].sum()}
    distance = 64 * (outputs["associated_landmarks"] - batch.landmarks).abs().mean(-1).nanmean(1)
    expected["associated_landmarks"] = (w * distance)[with_l].sum() / w[with_l].sum()
    teacher, student = outputs["associated_expression"].softmax(1), outputs["expression"].log_softmax(1)
    each = F.kl_div(student, teacher, reduction="none").sum(1)
    expected["consistent_expression"] = (w * each)[only_l].sum() / w[only_l].sum()
    each = 64 * (outputs["landmarks"] - outputs["associated_landmarks"]).abs().mean((1, 2))
    expected["consistent_landmarks"] = (w * each)[only_e].sum() / w[only_e].sum()
    assert with_e.stop == 4
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value.detach(), msg=name)
    for task in HEADS:
        both = 2.0 * expected[f"associated_{task}"] + 0.4 * 0.5 * expected[f"consistent_{task}"]
        torch.testing.assert_close(terms[f"task/{task}"], both, msg=task)


def test_consistency_moves_the_unlabelled_tasks_own_head_and_not_its_teacher(example):
    batch, outputs = example
    terms = association(supervision=0.0)(outputs, batch)
    found = gradients(terms["task/expression"] + terms["task/landmarks"], outputs)
    assert reached(found["expression"]) == [4, 5, 6, 7]
    assert reached(found["landmarks"]) == [8, 9, 10, 11]
    assert not reached(found["associated_expression"]) and not reached(found["associated_landmarks"])


def test_supervision_moves_the_predictors_where_their_target_is_labelled(example):
    batch, outputs = example
    terms = association()(outputs, batch, warmth=0.0)
    found = gradients(terms["task/expression"] + terms["task/landmarks"], outputs)
    assert not reached(found["expression"]) and not reached(found["landmarks"])
    assert reached(found["associated_expression"]) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert reached(found["associated_landmarks"]) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_annotators_votes_are_a_label(example):
    batch, outputs = example
    rows, shares = batch.expression >= 0, batch.expression_distribution
    shares[rows] = torch.nn.functional.one_hot(batch.expression[rows], shares.shape[1]).to(shares.dtype)
    labelled = association()(outputs, batch)
    batch.expression[:] = -1
    for name, value in association()(outputs, batch).items():
        torch.testing.assert_close(value, labelled[name])


def test_heads_that_agree_with_their_teacher_have_nothing_to_learn(example):
    batch, outputs = example
    for name in HEADS:
        outputs[name] = outputs[f"associated_{name}"].detach().clone().requires_grad_()
    terms = association()(outputs, batch)
    assert float(terms["consistent_expression"]) == pytest.approx(0, abs=1e-6)
    assert terms["consistent_landmarks"] == 0


def test_outputs_that_no_term_is_about_change_no_gradient_by_a_bit(example):
    batch, outputs = example
    loss = association()

    def run(given):
        terms = loss(given, batch)
        return gradients(terms["task/expression"] + terms["task/landmarks"], given)

    first, others = run(outputs), {}
    used = {
        "expression": [4, 8],
        "landmarks": [8, 12],
        "associated_expression": [0, 12],
        "associated_landmarks": [0, 12],
    }
    for name, (start, stop) in used.items():
        rows = torch.arange(16)
        outside = ((rows < start) | (rows >= stop)).view(-1, *[1] * (outputs[name].ndim - 1))
        others[name] = torch.where(outside, torch.nan, outputs[name].detach()).requires_grad_()
    second = run(others)
    assert all(torch.equal(second[name], first[name]) for name in first)


def test_without_labels_there_is_nothing(example):
    batch, outputs = example
    batch.expression[:], batch.landmarks[:] = -1, torch.nan
    terms = association()(outputs, batch)
    assert all(value == 0 for value in terms.values())
    found = gradients(terms["task/expression"] + terms["task/landmarks"], outputs)
    assert all(gradient.count_nonzero() == 0 for gradient in found.values())


def test_warm_up_rises_to_one_and_stays():
    values = [warm_up(t) for t in (-1.0, 0.0, 0.3, 0.7, 1.0, 5.0)]
    assert values == sorted(values) and values[0] == values[1] == pytest.approx(0.0067, abs=1e-4)
    assert values[-2:] == [1.0, 1.0]
