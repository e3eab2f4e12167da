"""The loop: it learns, it turns every setting into what it says, and interruptions leave no trace."""

import math
import shutil

import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.training import DivergedError, Player, build_accelerator, latest, read_history


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def without_clock(records):
    return [{name: value for name, value in record.items() if name != "images_per_second"} for record in records]


def test_it_learns_and_logs(problem, tmp_path):
    result = problem.fit(tmp_path, config={"steps": 60, "learning_rate": 3e-2}, evaluate=problem.accuracy)
    assert result.steps == 60 and result.stopped_because == "steps" and result.best is None
    assert result.history == read_history(tmp_path / "losses.jsonl")
    losses = [record["losses"]["net/loss"] for record in result.history if "losses" in record]
    assert len(losses) == 15 and losses[-1] < losses[0] / 4
    assert set(result.history[0]) == {"step", "losses", "learning_rate", "images_per_second"}
    assert result.history[-1] == {"step": 60, "evaluation": problem.accuracy()}
    assert problem.accuracy()["accuracy"] > 0.95
    assert not problem.net.training and all(value.is_contiguous() for value in problem.weights().values())


def test_logged_losses_are_means_since_the_line_before(make_problem):
    every = make_problem().fit(config={"log_every": 1}).history
    fourth = make_problem().fit(config={"log_every": 4}).history
    mean = sum(record["losses"]["net/loss"] for record in every[4:8]) / 4
    assert fourth[1]["step"] == 8 and fourth[1]["losses"]["net/loss"] == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_equals_an_uninterrupted_one(make_problem, tmp_path, optimizer):
    config = {"ema_decay": 0.8, "checkpoint_every_steps": 5, "evaluate_every": 3, "optimizer": optimizer}
    whole = make_problem(dropout=0.5)
    expected = whole.fit(tmp_path / "whole", config=config, evaluate=whole.accuracy, select_by="accuracy")
    part = make_problem(dropout=0.5)
    stream = part.stream()

    def interrupted(step):
        if step == 8:
            raise KeyboardInterrupt
        return stream(step)

    options = {"config": config, "evaluate": part.accuracy, "select_by": "accuracy"}
    with pytest.raises(KeyboardInterrupt):
        part.fit(tmp_path / "part", stream=interrupted, **options)
    assert latest(tmp_path / "part" / "checkpoints").name == "step-000005"
    part = make_problem(dropout=0.5)
    resumed = part.fit(tmp_path / "part", config=config, evaluate=part.accuracy, select_by="accuracy")
    assert_same(whole.weights(), part.weights())
    assert without_clock(resumed.history) == without_clock(expected.history)
    assert resumed.best == expected.best
    # A finished run is only loaded.
    again = make_problem(dropout=0.5)

    def never(step):
        raise AssertionError("a finished run asked for a batch")

    result = again.fit(tmp_path / "part", stream=never, config=config, evaluate=again.accuracy, select_by="accuracy")
    assert_same(whole.weights(), again.weights())
    assert result.steps == 12 and result.stopped_because == "steps" and result.best == expected.best


def test_the_callers_random_state_is_left_alone_and_not_used(make_problem):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = make_problem(dropout=0.5), make_problem(dropout=0.5)
    first.fit()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second.fit()
    assert_same(first.weights(), second.weights())


def test_another_configuration_does_not_resume(make_problem, tmp_path):
    make_problem().fit(tmp_path, identity={"data": "a"})
    with pytest.raises(InputError, match=r"training.learning_rate: 0.002 there, 0.001 here"):
        make_problem().fit(tmp_path, config={"learning_rate": 1e-3}, identity={"data": "a"})
    with pytest.raises(InputError, match="identity.data: a there, b here"):
        make_problem().fit(tmp_path, identity={"data": "b"})
    with pytest.raises(InputError, match="earlier run"):
        make_problem().fit(tmp_path, identity={"data": "a"}, resume=False)
    # How often a run is saved changes nothing in it.
    make_problem().fit(tmp_path, config={"checkpoint_every_steps": 3}, identity={"data": "a"})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_run_stops_with_its_last_good_checkpoint(make_problem, tmp_path, bad):
    problem = make_problem()
    stream = problem.stream()

    def poisoned(step):
        batch = stream(step)
        if step == 7:
            batch.point = batch.point * bad
        return batch

    with pytest.raises(DivergedError, match=r"net diverged at step 8 .*step-000006"):
        problem.fit(tmp_path, stream=poisoned, config={"checkpoint_every_steps": 3})
    assert latest(tmp_path / "checkpoints").name == "step-000006"
    assert all(value.isfinite().all() for value in problem.net.parameters())
    problem.fit(tmp_path, config={"checkpoint_every_steps": 3})
    healthy = make_problem()
    healthy.fit()
    assert_same(healthy.weights(), problem.weights())


def test_checkpoints_come_by_steps_and_by_minutes_and_old_ones_go(make_problem, tmp_path):
    make_problem().fit(tmp_path / "steps", config={"checkpoint_every_steps": 2, "keep_checkpoints": 3})
    names = sorted(path.name for path in (tmp_path / "steps" / "checkpoints").iterdir())
    assert names == ["step-000008", "step-000010", "step-000012"]
    make_problem().fit(tmp_path / "time", config={"checkpoint_every_minutes": 0.0, "keep_checkpoints": 100})
    assert len(list((tmp_path / "time" / "checkpoints").iterdir())) == 12


def test_the_average_follows_the_weights_and_is_what_remains(make_problem):
    plain, averaged = make_problem(), make_problem()
    path, seen = [], []

    def watch(problem, into):
        stream = problem.stream()

        def batch(step):
            into.append(problem.net[0].weight.detach().clone())
            return stream(step)

        return batch

    plain.fit(stream=watch(plain, path))
    config = {"ema_decay": 0.7, "evaluate_every": 12}

    def evaluate():
        seen.append(averaged.net[0].weight.detach().clone())
        return averaged.accuracy()

    averaged.fit(stream=watch(averaged, again := []), config=config, evaluate=evaluate)
    assert all(torch.equal(a, b) for a, b in zip(path, again, strict=True))
    expected = None
    for step, weight in enumerate([*path[1:], plain.net[0].weight.detach()]):
        decay = min(0.7, (1 + step) / (10 + step)) if step else 0.0
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averaged.net[0].weight.detach(), expected)
    assert torch.equal(seen[0], averaged.net[0].weight)


def test_the_average_follows_the_first_player_while_others_train(make_problem):
    problem = make_problem()
    other = make_problem()
    players = [Player("net", problem.objective), Player("other", other.objective)]
    before = problem.weights()
    problem.fit(players=players, config={"ema_decay": 0.999, "steps": 5, "learning_rate": 1e-2})
    alone = make_problem()
    alone.fit(config={"ema_decay": 0.999, "steps": 5, "learning_rate": 1e-2})
    for name, value in alone.weights().items():
        torch.testing.assert_close(problem.weights()[name], value)
    assert not torch.equal(before["0.weight"], problem.weights()["0.weight"])


def test_the_best_weights_are_chosen_and_patience_ends_the_run(make_problem, tmp_path):
    scores = [0.1, 0.5, 0.4, math.nan, 0.9, 1.0]
    weights = []

    def run(problem):
        taken = iter(scores)

        def evaluate():
            weights.append(problem.weights())
            return {"score": next(taken), "other": 0.0}

        config = {"evaluate_every": 2, "patience": 2}
        return problem.fit(tmp_path, config=config, evaluate=evaluate, select_by="score")

    problem = make_problem()
    result = run(problem)
    assert result.stopped_because == "patience" and result.steps == 8
    assert result.best == {"step": 4, "score": 0.5, "other": 0.0}
    assert_same(problem.weights(), weights[1])
    again = make_problem()
    result = run(again)
    assert len(weights) == 4 and result.stopped_because == "patience"
    assert_same(again.weights(), weights[1])


def test_two_halves_accumulated_equal_one_batch(make_problem):
    whole, halves = make_problem(), make_problem()
    expected = whole.fit(size=16)
    found = halves.fit(size=8, config={"accumulation": 2})
    for name, value in whole.weights().items():
        torch.testing.assert_close(halves.weights()[name], value, atol=2e-5, rtol=0)
    for a, b in zip(expected.history, found.history, strict=True):
        assert a["losses"]["net/loss"] == pytest.approx(b["losses"]["net/loss"], abs=1e-5)


class Duel(nn.Module):
    """Needs both nets; remembers who was asked to learn."""

    def __init__(self, mine, other, log):
        super().__init__()
        self.mine, self.other, self.log = mine, other, log

    def forward(self, batch):
        self.log.append([all(p.requires_grad for p in net.parameters()) for net in (self.mine, self.other)])
        both = self.mine(batch.point) + self.other(batch.point)
        return {"loss": nn.functional.cross_entropy(both, batch.label), "size": both.square().mean()}


def test_players_take_turns_and_train_their_own_parameters_only(make_problem):
    problem = make_problem()
    first, second, log = nn.Linear(5, 3), nn.Linear(5, 3), []
    start = second.weight.detach().clone()
    players = [
        Player("first", Duel(first, second, log), parameters=list(first.parameters())),
        Player("second", Duel(second, first, log), 3, learning_rate=0.0, parameters=list(second.parameters())),
    ]
    result = problem.fit(players=players, config={"steps": 2, "log_every": 1, "weight_decay": 0.0})
    assert log == [[True, False]] * 8
    assert torch.equal(second.weight, start)
    assert set(result.history[0]["losses"]) == {
        f"{name}/{key}" for name in ("first", "second") for key in ("loss", "size", "gradient_norm")
    }
    assert all(p.requires_grad and p.grad is None for net in (first, second) for p in net.parameters())


def test_frozen_parts_stay_in_eval_mode_and_as_they_are(make_problem):
    problem = make_problem()
    guide = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).requires_grad_(False)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    modes = []

    class Guided(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.guide = problem.net, guide

        def forward(self, batch):
            modes.append((self.net.training, self.guide.training))
            return {"loss": (self.net(batch.point) - self.guide(batch.point)).square().mean()}

    problem.net.eval()
    options = {"config": {"evaluate_every": 2}, "evaluate": problem.accuracy}
    problem.fit(players=[Player("guided", Guided())], **options)
    assert modes == [(True, False)] * 12
    assert_same(before, guide.state_dict())
    assert not any(p.requires_grad for p in guide.parameters())


def test_bf16_computes_in_autocast_again_and_again(make_problem):
    accelerator, kinds = build_accelerator(precision="bf16"), []

    class Watched(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, batch):
            logits = self.net(batch.point)
            kinds.append(logits.dtype)
            return {"loss": nn.functional.cross_entropy(logits.float(), batch.label)}

    problem = make_problem()
    objective = Watched(problem.net)
    for _ in range(2):
        problem.fit(players=[Player("net", objective)], accelerator=accelerator, config={"precision": "bf16"})
    assert kinds == [torch.bfloat16] * 24
    assert objective(problem.stream()(0))["loss"].dtype == torch.float32 and kinds[-1] == torch.float32


def test_a_gradient_scaler_begins_anew(make_problem, tmp_path):
    """A training gives the same whatever was trained before it in the same process, and goes on at its own scale."""
    accelerator, found = build_accelerator(), []
    accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=4)  # fp16's, which computes on a CPU as well
    for steps in (12, 6, 12):
        problem = make_problem()
        problem.fit(tmp_path / str(len(found)), accelerator=accelerator, config={"steps": steps})
        found.append((accelerator.scaler.get_scale(), problem.weights()))
    assert [scale for scale, _ in found] == [2.0**19, 2.0**17, 2.0**19]  # doubled every four steps
    assert_same(found[0][1], found[2][1])
    make_problem().fit(tmp_path / "1", accelerator=accelerator, config={"steps": 6})
    assert accelerator.scaler.get_scale() == 2.0**17


def test_gradients_are_clipped_player_by_player(make_problem):
    clipped, free = make_problem(), make_problem()
    config = {"steps": 1, "optimizer": "sgd", "betas": (0.0, 0.9), "weight_decay": 0.0, "learning_rate": 1.0}
    before = clipped.weights()
    result = clipped.fit(config=config | {"clip_norm": 1e-3, "schedule": "constant", "warmup": 0.0})
    moved = sum(float((value - before[name]).square().sum()) for name, value in clipped.weights().items()) ** 0.5
    assert moved == pytest.approx(1e-3, rel=1e-2)
    assert result.history[0]["losses"]["net/gradient_norm"] > 1e-2
    free.fit(config=config | {"clip_norm": None})


def test_contradicting_settings_are_refused(make_problem):
    problem = make_problem()
    with pytest.raises(InputError, match="needs both evaluate and select_by"):
        problem.fit(select_by="accuracy")
    with pytest.raises(InputError, match="needs both evaluate and select_by"):
        problem.fit(config={"patience": 2}, evaluate=problem.accuracy)
    with pytest.raises(InputError, match="'f1', but the evaluation has accuracy"):
        problem.fit(evaluate=problem.accuracy, select_by="f1")
    with pytest.raises(InputError, match="not precision bf16"):
        problem.fit(config={"precision": "bf16"})
    with pytest.raises(InputError, match="train the same parameter"):
        problem.fit(players=[Player("a", problem.objective), Player("b", problem.objective)])
    problem.net.requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        problem.fit()


def test_trackers_get_the_curves(make_problem, tmp_path):
    make_problem().fit(accelerator=build_accelerator(log_dir=tmp_path), description="a run")
    assert list((tmp_path / "a run").glob("events.*"))


def test_a_run_killed_after_its_last_checkpoint_leaves_no_rest(make_problem, tmp_path):
    config = {"checkpoint_every_steps": 6, "keep_checkpoints": 1}
    make_problem().fit(tmp_path, config=config)
    folder = tmp_path / "checkpoints"
    (last,) = folder.iterdir()
    for rest in ("step-000006", ".step-000003-old"):  # killed before the older one went, and while one did
        shutil.copytree(last, folder / rest)
    make_problem().fit(tmp_path, config=config)
    assert list(folder.iterdir()) == [last]
