"""The masked sum of many tasks: what it adds up, what it ignores to the bit, and that two processes equal one."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.losses import ConcordanceLoss, ExpressionLoss, HeterogeneousLoss, LandmarkLoss

MODES = ("global", "per_task")


def gradients(loss, outputs):
    return dict(zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True))


def masks(batch):
    """Entries of the outputs whose label is missing, by task, in the shape of the label (a class is one entry)."""
    return {
        "expression": batch.expression < 0,
        "compound": batch.compound < 0,
        "action_units": batch.action_units.isnan(),
        "landmarks": batch.landmarks.isnan(),
        "valence_arousal": batch.valence_arousal.isnan(),
    }


def terms_by_hand(batch, outputs):
    """(task, weight of the label, loss of the label) of every label of the per-face tasks, one by one."""
    for i in range(len(batch)):
        w = float(batch.weight[i])
        for task in ("expression", "compound"):
            label = getattr(batch, task)[i]
            if label >= 0:
                yield task, w, float(F.cross_entropy(outputs[task][i], label))
        for a in range(batch.action_units.shape[1]):
            y = batch.action_units[i, a]
            if not y.isnan():
                p = outputs["action_units"][i, a].sigmoid()
                yield "action_units", w / 22, float(-y * p.log() - (1 - y) * (1 - p).log())
        known = ~batch.landmarks[i].isnan().any(-1)
        if known.any():
            yield "landmarks", w, float(64 * (outputs["landmarks"][i] - batch.landmarks[i])[known].abs().mean())


@pytest.fixture
def plain(mixed):
    """Losses without remedies."""
    return mixed.task_losses() | {
        "expression": ExpressionLoss(),
        "action_units": type(mixed.task_losses()["action_units"])(),
        "landmarks": LandmarkLoss("l1"),
    }


@pytest.mark.parametrize("mode", MODES)
def test_is_the_formula(mixed, plain, mode):
    batch, outputs = mixed.faces(), mixed.heads()
    upper, lower = {}, {}
    for task, weight, value in terms_by_hand(batch, {task: output.detach() for task, output in outputs.items()}):
        upper[task] = upper.get(task, 0) + weight * value
        lower[task] = lower.get(task, 0) + weight
    w = mixed.WEIGHTS
    if mode == "global":
        expected = sum(w[t] * upper[t] for t in upper) / sum(w[t] * lower[t] for t in lower)
    else:
        expected = sum(w[t] * upper[t] / lower[t] for t in upper)
    concordance = ConcordanceLoss()(outputs["valence_arousal"], batch.valence_arousal, batch.weight)
    losses = HeterogeneousLoss(plain, w, normalization=mode)(outputs, batch)
    assert losses["loss"].item() == pytest.approx(expected + 0.7 * concordance.item(), rel=1e-5)
    for task in upper:
        assert float(losses[task]) == pytest.approx(upper[task] / lower[task], rel=1e-5)
        assert not losses[task].requires_grad and losses[f"task/{task}"].requires_grad
    torch.testing.assert_close(sum(losses[f"task/{task}"] for task in plain), losses["loss"])


@pytest.mark.parametrize("mode", MODES)
def test_what_stands_behind_a_missing_label_changes_no_gradient_by_a_bit(mixed, mode):
    batch, outputs = mixed.faces(), mixed.heads()
    loss = HeterogeneousLoss(mixed.task_losses(), mixed.WEIGHTS, normalization=mode)
    first = gradients(loss(outputs, batch)["loss"], outputs)
    for garbage in (1e4, -3.0, torch.inf, torch.nan):
        others = {}
        for task, missing in masks(batch).items():
            missing = missing.view(*missing.shape, *[1] * (outputs[task].ndim - missing.ndim))
            assert missing.any() and not missing.all()
            others[task] = torch.where(missing, garbage, outputs[task].detach()).requires_grad_()
            assert first[task][missing.expand_as(first[task])].count_nonzero() == 0
            assert first[task][~missing.expand_as(first[task])].count_nonzero() > 0
        changed = loss(others, batch)
        assert torch.equal(changed["loss"], loss(outputs, batch)["loss"])
        for task, gradient in gradients(changed["loss"], others).items():
            assert torch.equal(gradient, first[task]), (task, garbage)


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_label_is_as_if_its_face_were_not_there(mixed, mode):
    batch, outputs = mixed.faces(), mixed.heads()
    loss = HeterogeneousLoss(mixed.task_losses(), mixed.WEIGHTS, normalization=mode)
    nothing = mixed.rows(mixed.faces(4, seed=5), slice(None))
    nothing.expression[:], nothing.compound[:] = -1, -1
    for column in (nothing.action_units, nothing.landmarks, nothing.valence_arousal):
        column[:] = torch.nan
    more = {task: torch.cat([outputs[task], mixed.heads(4, seed=6)[task]]) for task in outputs}
    joined = loss(more, type(batch).concatenate([batch, nothing]))
    for name, value in loss(outputs, batch).items():
        torch.testing.assert_close(joined[name], value, msg=name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", ["expression", "compound", "action_units", "landmarks", "valence_arousal", "all"])
def test_a_task_without_labels_is_a_zero_with_zero_gradient(mixed, mode, task):
    batch, outputs = mixed.faces(), mixed.heads()
    tasks = list(mixed.SHAPES) if task == "all" else [task]
    for name in tasks:
        column = getattr(batch, name)
        column[:] = torch.nan if column.is_floating_point() else -1
    loss = HeterogeneousLoss(mixed.task_losses(), mixed.WEIGHTS, normalization=mode)
    losses = loss(outputs, batch)
    found = gradients(losses["loss"], outputs)
    assert all(value.isfinite() for value in losses.values())
    for name in tasks:
        assert losses[name] == losses[f"task/{name}"] == losses[f"labels/{name}"] == 0
    for name, gradient in found.items():
        assert gradient.isfinite().all() and (gradient.count_nonzero() == 0) == (name in tasks)


def test_labels_are_counted(mixed):
    batch = mixed.faces()
    batch.weight[3] = 0.0
    losses = HeterogeneousLoss(mixed.task_losses())(mixed.heads(), batch)
    taking_part = batch.weight > 0
    assert losses["labels/expression"] == ((batch.expression >= 0) & taking_part).sum()
    assert losses["labels/action_units"] == (~batch.action_units.isnan())[taking_part].sum()
    assert losses["labels/landmarks"] == ((~batch.landmarks.isnan()).flatten(1).any(1) & taking_part).sum()
    assert losses["labels/valence_arousal"] == ((~batch.valence_arousal.isnan()).any(1) & taking_part).sum()


def test_more_labels_of_one_task_reweigh_the_others_under_global_normalization_only(mixed):
    """The trap of the docstring: 16 more faces with an expression alone."""
    batch, outputs = mixed.faces(complete=True), mixed.heads()
    extra = mixed.faces(complete=True, seed=8)
    extra.landmarks[:] = torch.nan
    joined = type(batch).concatenate([batch, extra])
    more = {task: torch.cat([outputs[task], mixed.heads(seed=9)[task]]) for task in outputs}
    part = {}
    for mode in MODES:
        loss = HeterogeneousLoss({"expression": ExpressionLoss(), "landmarks": LandmarkLoss()}, normalization=mode)
        part[mode] = [loss(o, b)["task/landmarks"].item() for o, b in ((outputs, batch), (more, joined))]
    assert part["per_task"][1] == pytest.approx(part["per_task"][0])
    batch_weight, extra_weight = float(batch.weight.sum()), float(extra.weight.sum())
    assert part["global"][1] / part["global"][0] == pytest.approx(
        2 * batch_weight / (2 * batch_weight + extra_weight), rel=1e-5
    )


def test_weights_of_faces_count(mixed):
    batch, outputs = mixed.faces(), mixed.heads()
    loss = HeterogeneousLoss(mixed.task_losses(), mixed.WEIGHTS)
    chosen = torch.arange(16) % 3 > 0
    some = loss({task: output[chosen] for task, output in outputs.items()}, mixed.rows(batch, chosen))
    batch.weight = torch.where(chosen, batch.weight, 0.0)
    for name, value in loss(outputs, batch).items():
        torch.testing.assert_close(value, some[name], msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": {"age": ExpressionLoss()}}, "unknown task 'age': use some of expression"),
        ({"tasks": {}}, "needs a task"),
        ({"weights": {"landmarks": 1.0}}, "'landmarks', which is no task here"),
        ({"weights": {"expression": -1.0}}, "at least 0, not -1"),
        ({"weights": {"expression": float("nan")}}, "at least 0, not nan"),
        ({"normalization": "batch"}, "use one of global, per_task"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        HeterogeneousLoss(**{"tasks": {"expression": ExpressionLoss()}} | arguments)


def test_a_task_without_a_head_is_named(mixed):
    outputs = mixed.heads()
    del outputs["landmarks"]
    with pytest.raises(InputError, match="no head for landmarks: it has expression"):
        HeterogeneousLoss(mixed.task_losses())(outputs, mixed.faces())


def test_two_processes_equal_one_on_the_joined_batch(mixed, tmp_path):
    """Association, penalty and CCC included; the second half has no landmarks."""
    assert mixed.faces().landmarks[8:].isnan().all(-1).all(1).sum() >= 7
    other = subprocess.Popen([sys.executable, mixed.__file__, str(tmp_path)])
    mine = mixed.run_as(0, tmp_path)
    assert other.wait(300) == 0
    for mode in MODES:
        one = mixed.gradients(mixed.faces(), mode)
        assert one.keys() == mine[mode].keys()
        for name, value in one.items():
            torch.testing.assert_close(mine[mode][name], value, atol=1e-5, rtol=1e-4, msg=lambda t, n=name: f"{n}: {t}")
