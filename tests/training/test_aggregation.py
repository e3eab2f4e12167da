"""Aggregators: what each rule promises, and that steps with it are exact, repeatable, and the same in two processes."""

import importlib.util
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from synthmtl.errors import InputError
from synthmtl.training import AGGREGATORS, TrainingConfig, build_accelerator, read_history, turns
from synthmtl.training.aggregation import build_weighting
from synthmtl.training.task_gradients import TaskGradients

SCRIPT = Path(__file__).with_name("two_tasks.py")
RANDOM = {"pcgrad", "rlw"}
CONVEX = {"mgda", "imtl_g", "rlw", "famo"}
STATEFUL = ("uncertainty", "dwa", "famo", "nash_mtl")


@pytest.fixture(scope="module")
def two_tasks():
    """The module ``two_tasks.py`` beside this file."""
    spec = importlib.util.spec_from_file_location("two_tasks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def jacobian(tasks, seed=0, conflict=0.0):
    """Gradients (T, 30) of different lengths, nearly orthogonal; with a ``conflict`` of 1 they add up to nothing."""
    rows = torch.randn(tasks, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows = rows * torch.linspace(0.5, 2, tasks, dtype=torch.float64)[:, None]
    return rows - conflict * rows.mean(0)


def weigh(name, rows, losses=None, seed=0, rule=None, **options):
    losses = torch.ones(len(rows), dtype=torch.float64) if losses is None else losses
    rule = rule or build_weighting(name, [str(i) for i in range(len(rows))], options)
    return rule.weights(rows @ rows.T, losses, seed)


def optimum(rows):
    """The smallest vector in the convex hull of two gradients, in closed form."""
    difference = rows[1] - rows[0]
    share = (difference @ rows[1] / difference.square().sum()).clamp(0, 1)
    return share * rows[0] + (1 - share) * rows[1]


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("tasks", [2, 3])
def test_equal_tasks_give_a_multiple_of_their_gradient(name, tasks):
    weights = weigh(name, jacobian(1).expand(tasks, -1))
    assert weights.shape == (tasks,) and weights.dtype == torch.float64
    assert weights.isfinite().all() and weights.sum() > 0
    if name in CONVEX:
        assert float(weights.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS) - RANDOM))
@pytest.mark.parametrize("conflict", [0.0, 0.7])
def test_the_order_of_tasks_plays_no_role(name, conflict):
    rows, losses, order = jacobian(3, conflict=conflict), torch.tensor([1.0, 2.0, 0.5]).double(), [2, 0, 1]
    weights = weigh(name, rows, losses)
    torch.testing.assert_close(weigh(name, rows[order], losses[order]), weights[order], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS) - {"nash_mtl", "famo"}))
def test_the_common_scale_of_gradients_plays_no_role(name):
    rows = jacobian(3, conflict=0.7)
    torch.testing.assert_close(weigh(name, rows), weigh(name, 1e-5 * rows), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["mgda", "upgrad", "nash_mtl", "imtl_g"])
def test_no_task_is_harmed(name):
    for seed in range(10):
        rows = jacobian(2, seed, conflict=0.7)
        step = weigh(name, rows) @ rows
        assert (rows @ step).min() > -1e-3 * rows.norm() * step.norm()


def test_rules_with_a_closed_form():
    for seed in range(5):
        rows = jacobian(2, seed, conflict=0.7)
        torch.testing.assert_close(weigh("mgda", rows) @ rows, optimum(rows), atol=1e-2, rtol=0)
        equal = rows @ (weigh("imtl_g", rows) @ rows) / rows.norm(dim=1)
        assert float(equal[0]) == pytest.approx(float(equal[1]), rel=1e-6)
        bargain = weigh("nash_mtl", rows, max_norm=1e6)
        product = bargain * (rows @ rows.T @ bargain)
        assert float(product[0]) == pytest.approx(float(product[1]), rel=1e-2)


def test_pcgrad_leaves_gradients_without_conflict_alone_and_projects_the_others():
    straight = torch.eye(3, 5, dtype=torch.float64) * torch.tensor([[1.0], [2.0], [3.0]])
    assert torch.equal(weigh("pcgrad", straight), torch.ones(3).double())
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    projected = torch.tensor([1.0, 0.0]) + 0.5 * torch.tensor([-1.0, 1.0]) + torch.tensor([0.0, 1.0])
    torch.testing.assert_close(weigh("pcgrad", rows) @ rows, projected.double())


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_rules_draw_from_their_seed_only(name):
    rows = jacobian(4, conflict=1.0)
    state = torch.get_rng_state()
    first = [weigh(name, rows, seed=seed) for seed in range(8)]
    torch.manual_seed(1)
    assert all(torch.equal(a, weigh(name, rows, seed=seed)) for seed, a in enumerate(first))
    assert len({tuple(a.tolist()) for a in first}) > 1
    torch.set_rng_state(state)
    weigh(name, rows)
    assert torch.equal(torch.get_rng_state(), state)


def losses_over_time(steps=12):
    """The first task's loss halves within a few steps, the second's hardly falls."""
    time = torch.arange(steps, dtype=torch.float64)
    return torch.stack([0.8**time, 0.99**time], 1)


def test_dwa_favors_the_slower_task():
    rule = build_weighting("dwa", "ab", {"period": 3})
    weights = torch.stack([weigh("dwa", jacobian(2), loss, rule=rule) for loss in losses_over_time()])
    torch.testing.assert_close(weights.sum(1), torch.full((12,), 2.0).double())
    assert torch.equal(weights[:6], torch.ones(6, 2).double())
    assert (weights[6:, 1] > 1).all()


def test_the_library_agrees_on_the_rules_written_here():
    from torchjd import scalarization

    def library(rule, loss):
        values = loss.clone().requires_grad_()
        return torch.autograd.grad(rule(values), values)[0]

    track, rows = losses_over_time(), jacobian(2)
    ours, theirs = build_weighting("dwa", "ab", {"period": 2}), scalarization.DWA()
    for step, loss in enumerate(track):
        torch.testing.assert_close(weigh("dwa", rows, loss, rule=ours), library(theirs, loss))
        if step % 2:
            theirs.step()
    ours, theirs = build_weighting("famo", "ab"), scalarization.FAMO(2).double()
    for loss, after in zip(track, track[1:], strict=False):
        torch.testing.assert_close(weigh("famo", rows, loss, rule=ours), library(theirs, loss), atol=1e-5, rtol=0)
        ours.look_back(after)
        theirs.update(after)
    ours, theirs = build_weighting("uncertainty", "ab", {"learning_rate": 0.1}), scalarization.UW(2).double()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1, eps=5e-9)
    for loss in track:
        torch.testing.assert_close(weigh("uncertainty", rows, loss, rule=ours), 2 * library(theirs, loss))
        optimizer.zero_grad()
        theirs(loss).backward()
        optimizer.step()


def test_uncertainty_weights_settle_at_one_over_the_loss():
    rule, losses = build_weighting("uncertainty", "ab", {"learning_rate": 0.05}), torch.tensor([4.0, 0.5]).double()
    for _ in range(600):
        weights = weigh("uncertainty", jacobian(2), losses, rule=rule)
    torch.testing.assert_close(weights * losses, torch.ones(2).double(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_rule_goes_on_from_its_state(name):
    track = losses_over_time()
    options = {"period": 2} if name == "dwa" else {}

    def advance(rule, steps):
        weights = []
        for step in steps:
            weights.append(weigh(name, jacobian(2, step, conflict=0.5), track[step], rule=rule))
            rule.look_back(track[step] * 0.9)
        return weights

    whole = build_weighting(name, "ab", options)
    expected = advance(whole, range(12))
    file = io.BytesIO()
    part = build_weighting(name, "ab", options)
    advance(part, range(7))
    torch.save(part.state_dict(), file)
    advance(part, range(7, 9))
    file.seek(0)
    resumed = build_weighting(name, "ab", options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(advance(resumed, range(7, 12)), expected[7:], strict=True))
    assert not torch.equal(
        expected[-1], build_weighting(name, "ab", options).weights(torch.eye(2).double(), track[0], 0)
    )


def test_what_cannot_be_built_is_said(monkeypatch):
    with pytest.raises(InputError, match="unknown aggregator 'pcgard': use one of sum, .*pcgrad.*nash_mtl"):
        TrainingConfig(aggregator="pcgard")
    with pytest.raises(InputError, match="cagrad has no option 'b': it takes c"):
        TrainingConfig(aggregator="cagrad", aggregator_options={"b": 1})
    with pytest.raises(InputError, match="mgda has no option 'c': it takes none"):
        TrainingConfig(aggregator="mgda", aggregator_options={"c": 1})
    with pytest.raises(InputError, match="dwa: period must be above 0, not 0"):
        TrainingConfig(aggregator="dwa", aggregator_options={"period": 0})
    find = importlib.util.find_spec
    absent = {"torchjd", "cvxpy", "ecos"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))
    with pytest.raises(InputError, match=r"needs torchjd: pip install 'synthmtl\[interference\]'$"):
        TrainingConfig(aggregator="mgda")
    with pytest.raises(InputError, match="nash_mtl needs torchjd, cvxpy, ecos: pip"):
        TrainingConfig(aggregator="nash_mtl")
    for own in ("sum", "uncertainty", "dwa", "famo"):
        TrainingConfig(aggregator=own)


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("settings", [{}, {"accumulation": 2, "optimizer": "sgd", "clip_norm": 0.5}])
def test_the_sum_of_task_gradients_is_the_plain_gradient(two_tasks, monkeypatch, settings):
    plain, apart, named = two_tasks.TwoTasks(), two_tasks.TwoTasks(), two_tasks.TwoTasks()
    expected = two_tasks.train(plain, None, **settings)
    two_tasks.train(named, "sum", **settings)
    assert same_weights(plain, named)
    monkeypatch.setattr(turns, "PLAIN", (None,))
    found = two_tasks.train(apart, "sum", **settings)
    for a, b in zip(plain.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    for a, b in zip(expected.history, found.history, strict=True):
        logged = a["losses"] | {"net/weight/classes": 1.0, "net/weight/angle": 1.0}
        assert b["losses"] == pytest.approx(logged, abs=1e-5)


def test_one_task_is_the_plain_gradient_and_none_is_refused(two_tasks):
    plain, single = two_tasks.TwoTasks(("angle",)), two_tasks.TwoTasks(("angle",))
    two_tasks.train(plain, None)
    result = two_tasks.train(single, "mgda")
    assert same_weights(plain, single)
    assert not any("weight" in name for name in result.history[0]["losses"])
    with pytest.raises(InputError, match="mgda needs the losses of several tasks, .* player net returns none"):
        two_tasks.train(two_tasks.TwoTasks(()), "mgda")


def test_players_without_tasks_take_their_turns_as_ever(two_tasks):
    alone, beside = two_tasks.TwoTasks(()), two_tasks.TwoTasks(())
    two_tasks.train(two_tasks.TwoTasks(), None, others=[alone])
    two_tasks.train(two_tasks.TwoTasks(), "mgda", others=[beside])
    assert same_weights(alone, beside)


def test_half_precision(two_tasks):
    losses = {}
    for precision in ("no", "bf16"):
        accelerator = build_accelerator(precision=precision)
        losses[precision] = two_tasks.train(two_tasks.TwoTasks(), "pcgrad", accelerator=accelerator).history[-1][
            "losses"
        ]
    for task in ("classes", "angle"):
        full, half = (losses[precision][f"net/task/{task}"] for precision in ("no", "bf16"))
        assert full != half and full == pytest.approx(half, rel=0.1)
    parameters = list(two_tasks.TwoTasks().parameters())
    with pytest.raises(InputError, match="pcgrad does not work in precision fp16: choose bf16 or no"):
        TaskGradients(parameters, "pcgrad", None, SimpleNamespace(scaler=object()))


def test_tasks_that_do_not_add_up_are_an_error(two_tasks):
    objective = two_tasks.TwoTasks()
    forward = objective.forward

    def heavier(batch):
        losses = forward(batch)
        return losses | {"loss": 2 * losses["loss"]}

    objective.forward = heavier
    with pytest.raises(ValueError, match="add up to"):
        two_tasks.train(objective, "mgda")


def test_shared_parameters_alone_are_aggregated(two_tasks):
    """One step of plain gradient descent shows the gradients."""
    batch, start = two_tasks.make_stream()(0), two_tasks.TwoTasks()
    losses = start(batch)
    rates = {"optimizer": "sgd", "betas": (0.0, 0.9), "schedule": "constant", "warmup": 0.0, "learning_rate": 0.1}
    settings = rates | {"steps": 1, "weight_decay": 0.0, "clip_norm": None}
    parameters = list(start.trunk.parameters())
    rows = [torch.autograd.grad(losses[f"task/{name}"], parameters, retain_graph=True) for name in start.tasks]
    rows = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).double()
    heads = [*start.classes.parameters(), *start.angle.parameters()]
    alone = torch.autograd.grad(losses["loss"], heads)

    for name in ("mgda", "famo"):
        moved = two_tasks.TwoTasks()
        result = two_tasks.train(moved, name, **settings)
        weights = torch.tensor([result.history[0]["losses"][f"net/weight/{task}"] for task in start.tasks])
        values = torch.stack([losses[f"task/{task}"].detach() for task in start.tasks]).double()
        torch.testing.assert_close(weights, weigh(name, rows, values).float(), atol=1e-3, rtol=0)
        step = torch.cat([(a - b).flatten() for a, b in zip(parameters, moved.trunk.parameters(), strict=True)]) / 0.1
        torch.testing.assert_close(step, weights @ rows.float(), atol=1e-4, rtol=1e-3)
        scale = weights if name == "famo" else torch.ones(2)
        for i, (p, g) in enumerate(zip(heads, alone, strict=True)):
            now = [*moved.classes.parameters(), *moved.angle.parameters()][i]
            torch.testing.assert_close((p - now) / 0.1, g * scale[0 if i < 2 else 1], atol=1e-4, rtol=1e-3)
        assert all(torch.equal(a, b) for a, b in zip(start.idle.parameters(), moved.idle.parameters(), strict=True))


@pytest.mark.parametrize("name", ["famo", "pcgrad"])
def test_losses_fall_and_halves_accumulate_to_the_whole(two_tasks, name):
    whole, halves = two_tasks.TwoTasks(), two_tasks.TwoTasks()
    history = two_tasks.train(whole, name, steps=40, learning_rate=3e-2).history
    for task in whole.tasks:
        assert history[-1]["losses"][f"net/task/{task}"] < 0.5 * history[0]["losses"][f"net/task/{task}"]
    whole = two_tasks.TwoTasks()
    two_tasks.train(whole, name)
    two_tasks.train(halves, name, size=10, accumulation=2)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", [*STATEFUL, *sorted(RANDOM)])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(two_tasks, tmp_path, name):
    settings = {"checkpoint_every_steps": 4, "ema_decay": 0.8}
    settings |= {"aggregator_options": {"period": 2}} if name == "dwa" else {}
    whole = two_tasks.TwoTasks(dropout=0.3)
    expected = two_tasks.train(whole, name, directory=tmp_path / "whole", **settings).history
    stream = two_tasks.make_stream()

    def interrupted(step):
        if step == 7:
            raise KeyboardInterrupt
        return stream(step)

    with pytest.raises(KeyboardInterrupt):
        two_tasks.train(
            two_tasks.TwoTasks(dropout=0.3), name, directory=tmp_path / "part", stream=interrupted, **settings
        )
    part = two_tasks.TwoTasks(dropout=0.3)
    found = two_tasks.train(part, name, directory=tmp_path / "part", **settings).history
    assert same_weights(whole, part)
    assert [record["losses"] for record in found] == [record["losses"] for record in expected]


def test_two_processes_combine_what_one_would(two_tasks, tmp_path):
    names = ["pcgrad", "famo"]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "WORLD_SIZE"))}
    command = [sys.executable, *launch, str(SCRIPT), str(tmp_path / "two"), *names]
    done = subprocess.run(command, env=clean | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    two_tasks.main(tmp_path / "one", names)
    for name in names:
        one, two = (read_history(tmp_path / part / name / "losses.jsonl") for part in ("one", "two"))
        for a, b in zip(one, two, strict=True):
            assert a["losses"] == pytest.approx(b["losses"], abs=2e-3), name
        first = load_file(tmp_path / "one" / name / "1.safetensors")
        second = load_file(tmp_path / "two" / name / "2.safetensors")
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, atol=2e-3, rtol=0, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_task_without_a_label_in_the_batch_holds_nobody_back(name):
    rows = jacobian(3)
    absent = rows * torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)[:, None]
    losses = torch.tensor([0.7, 0.0, 1.3], dtype=torch.float64)
    names = [str(i) for i in range(3)]
    rule = build_weighting(name, names)
    weights = weigh(name, absent, losses, rule=rule)
    assert weights.isfinite().all() and weights[[0, 2]].sum() > 0
    if name not in STATEFUL and name != "rlw":  # as if there were two tasks
        assert torch.allclose(weights[[0, 2]], weigh(name, rows[[0, 2]], losses[[0, 2]]), rtol=1e-6)
    if rule.looks_back:
        rule.look_back(losses * 0.9)
    state = build_weighting(name, names).state_dict()
    for key in ("log_variance", "logits"):
        if key in state:  # what it has learned of the absent task is nothing
            assert rule.state_dict()[key][1] == state[key][1]
    later = [weigh(name, rows, torch.ones(3, dtype=torch.float64), rule=rule) for _ in range(50)]
    assert all(each.isfinite().all() for each in later)


@pytest.mark.parametrize("length", [0.01, 1.0, 100.0])
def test_the_step_of_a_bargain_is_clipped_with_a_task_absent_too(length):
    rows, rule = length * jacobian(2), build_weighting("nash_mtl", "ab", {"max_norm": 0.5})
    alpha = torch.as_tensor(rule.state_dict()["alpha"]).double()
    weights = weigh("nash_mtl", rows * torch.tensor([[1.0], [0.0]], dtype=torch.float64), rule=rule)
    expected = min(0.5, float((alpha[0] * rows[0]).norm()))
    assert weights[1] == 0 and float((weights @ rows).norm()) == pytest.approx(expected)
    assert not weigh("nash_mtl", 0 * rows, rule=rule).any()


def test_a_period_without_a_task_is_not_taken_for_progress():
    rule = build_weighting("dwa", "ab", {"period": 1})
    for losses in ([1.0, 0.0], [1.0, 0.0], [1.0, 2.0], [1.0, 2.0]):
        weights = weigh("dwa", jacobian(2), torch.tensor(losses, dtype=torch.float64), rule=rule)
    assert torch.allclose(weights, torch.ones(2, dtype=torch.float64))
