"""Gradient conflict. Run as a script, this file is the second process of two that share a batch."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference import (
    ConflictRecorder,
    gradient_conflict,
    look_ahead_affinity,
    parameter_groups,
    task_losses,
)
from synthmtl.models import FERSNet
from synthmtl.sharing import build_sharing

PAIR = ("a", "b")


class TwoHeads(nn.Module):
    """A trunk of two layers that two heads share."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})

    def forward(self, x):
        features = self.trunk(x)
        return {name: head(features).square().mean() for name, head in self.heads.items()}


def inputs(rows=8):
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("factor", [1.0, 3.0, -2.0])
def test_a_task_against_itself_scaled(factor):
    model = TwoHeads()
    loss = model(inputs())["a"]
    for pairs in gradient_conflict({"a": loss, "b": factor * loss}, {"trunk": list(model.trunk.parameters())}).values():
        value = pairs[PAIR]
        assert value.shared == 1
        assert value.cosine == pytest.approx(1 if factor > 0 else -1, abs=1e-6)
        assert value.magnitude_similarity == pytest.approx(2 * abs(factor) / (1 + factor**2), abs=1e-6)


def test_hand_computed_angle():
    theta = nn.Parameter(torch.zeros(2))
    losses = {"a": theta @ torch.tensor([1.0, 2.0]), "b": theta @ torch.tensor([1.0, -1.0])}
    value = gradient_conflict(losses, {"theta": [theta]})["theta"][PAIR]
    assert value.cosine == pytest.approx(-1 / 10**0.5)
    assert value.magnitude_similarity == pytest.approx(2 * 10**0.5 / 7)


def test_independent_parameters_are_not_shared():
    model = TwoHeads()
    found = gradient_conflict(model(inputs()), parameter_groups(model))
    for layer in ("trunk.0", "trunk.2"):
        assert found[layer][PAIR].shared == 1 and found[layer][PAIR].cosine is not None
    for layer in ("heads.a", "heads.b"):
        assert (found[layer][PAIR].shared, found[layer][PAIR].cosine) == (0, None)
        assert found[layer][PAIR].magnitude_similarity is None
    recorder = ConflictRecorder(parameter_groups(model), every=1)
    recorder(0, model(inputs()))
    assert recorder.conflict_rate("heads.a", PAIR) is None


def test_what_one_task_alone_trains_does_not_dilute_a_group():
    model = TwoHeads()
    whole = gradient_conflict(model(inputs()), {"all": list(model.parameters())})["all"][PAIR]
    trunk = gradient_conflict(model(inputs()), {"all": list(model.trunk.parameters())})["all"][PAIR]
    assert whole.cosine == pytest.approx(trunk.cosine)
    assert whole.shared == pytest.approx(59 / 69)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_rows_of_one_task_within_a_tensor_do_not_dilute_it(rows):
    torch.manual_seed(0)
    common, own = torch.randn(2, 5, 4), torch.randn(2, rows, 4)
    one, fused = nn.Parameter(torch.zeros(5, 4)), nn.Parameter(torch.zeros(5 + 2 * rows, 4))
    nothing = torch.zeros(rows, 4)
    parts = [torch.cat([common[0], own[0], nothing]), torch.cat([common[1], nothing, own[1]])]
    plain = gradient_conflict({"a": (one * common[0]).sum(), "b": (one * common[1]).sum()}, {"t": [one]})["t"][PAIR]
    value = gradient_conflict({"a": (fused * parts[0]).sum(), "b": (fused * parts[1]).sum()}, {"t": [fused]})["t"][PAIR]
    assert value.cosine == pytest.approx(plain.cosine, abs=1e-6)
    assert value.magnitude_similarity == pytest.approx(plain.magnitude_similarity, abs=1e-6)
    assert value.shared == pytest.approx(5 / (5 + 2 * rows))


@pytest.mark.parametrize("per", ["channel", "unit"])
def test_a_cross_stitch_after_the_last_stage_is_shared_by_nobody(per):
    unit = build_sharing("cross_stitch", 4, options={"per": per})
    one, other = unit([torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)])
    losses = {"a": one.square().mean(), "b": (other - 1).square().mean()}
    assert vars(gradient_conflict(losses, parameter_groups(unit))["alpha"][PAIR]) == {
        "shared": 0.0, "cosine": None, "magnitude_similarity": None,
    }  # fmt: skip


def test_a_sparse_embedding_is_as_a_dense_one():
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        words = nn.Embedding(10, 3, sparse=sparse)
        losses = {"a": words(torch.arange(4)).square().sum(), "b": (words(torch.arange(2, 6)) - 1).square().sum()}
        found.append(gradient_conflict(losses, {"words": list(words.parameters())})["words"][PAIR])
    assert found[0] == found[1] and found[0].shared == pytest.approx(2 / 10)


def test_looking_changes_nothing_in_the_step():
    looked, plain = TwoHeads(), TwoHeads()
    losses = looked(inputs())
    gradient_conflict(losses, parameter_groups(looked))
    assert all(p.grad is None for p in looked.parameters())
    sum(losses.values()).backward()
    sum(plain(inputs()).values()).backward()
    for a, b in zip(looked.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64])
def test_a_task_that_has_no_label_in_the_batch_is_one_whose_gradient_is_zero(kind):
    model = TwoHeads()
    losses = model(inputs())
    constant, zero = (
        gradient_conflict(losses | {"b": absent}, parameter_groups(model))
        for absent in (torch.zeros((), dtype=kind), 0 * losses["b"])
    )
    assert constant == zero
    assert all(
        vars(pairs[PAIR]) == {"shared": 0, "cosine": None, "magnitude_similarity": None} for pairs in zero.values()
    )


@pytest.mark.parametrize("absent", [("a",), ("b",), ("a", "b")])
def test_tasks_without_a_label_leave_the_others_and_their_graph_alone(absent):
    model = TwoHeads()
    losses = model(inputs())
    losses["c"] = (losses["a"] - losses["b"]) ** 2
    whole = gradient_conflict(losses, parameter_groups(model))
    part = gradient_conflict(losses | dict.fromkeys(absent, torch.zeros(())), parameter_groups(model))
    for layer, pairs in part.items():
        for pair, value in pairs.items():
            assert value == whole[layer][pair] if not set(pair) & set(absent) else value.shared == 0
    losses["c"].backward()


def test_three_tasks_and_a_frozen_parameter():
    model = TwoHeads()
    model.trunk[0].requires_grad_(False)
    losses = model(inputs())
    found = gradient_conflict(losses | {"c": -losses["b"]}, parameter_groups(model, depth=1))
    assert set(found) == {"trunk", "heads"}
    assert set(found["trunk"]) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert found["trunk"]["b", "c"].cosine == pytest.approx(-1)
    assert found["trunk"]["a", "b"].cosine == pytest.approx(-found["trunk"]["a", "c"].cosine)
    assert found["trunk"]["a", "b"].shared == pytest.approx(24 / 59)


def test_gradients_that_overflow_have_no_cosine():
    theta = nn.Parameter(torch.ones(2))
    value = gradient_conflict({"a": theta.sum() * float("inf"), "b": theta.sum()}, {"t": [theta]})["t"][PAIR]
    assert (value.shared, value.cosine, value.magnitude_similarity) == (1, None, None)


@pytest.mark.parametrize(("sharing", "shared"), [("none", {"stem"}), ("hard", {"stem", "branches", "joint"})])
def test_what_the_branches_of_fersnet_share(sharing, shared):
    torch.manual_seed(0)
    encoder = FERSNet.sized("tiny", classes=("neutral", "happiness"), sharing=sharing).encoder
    out = encoder(torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    losses = {"recognition": out.recognition.square().mean(), "synthesis": (out.synthesis - 1).square().mean()}
    found = gradient_conflict(losses, parameter_groups(encoder, depth=1))
    values = {part: pairs["recognition", "synthesis"] for part, pairs in found.items()}
    assert {part for part, value in values.items() if value.cosine is not None} == shared
    # The joint block is split between the tasks at its end, and few rectified features of late stages are always zero.
    assert all(values[part].shared > (0.2 if part == "joint" else 0.8) for part in shared)


def test_groups_by_depth_and_by_mapping():
    model = FERSNet.sized("tiny", classes=("neutral", "happiness"))
    by_depth = parameter_groups(model, depth=2)
    assert {"encoder.stem", "encoder.branches", "encoder.units", "encoder.joint"} <= set(by_depth)
    assert sum(len(group) for group in by_depth.values()) == len(list(model.parameters()))
    stages = parameter_groups(model, stages={"one": ["encoder.branches.0.0", "encoder.branches.1.0"], "head": "head"})
    own = [*model.encoder.branches[0][0].parameters(), *model.encoder.branches[1][0].parameters()]
    assert [id(p) for p in stages["one"]] == [id(p) for p in own]
    assert len(parameter_groups(nn.ParameterDict({"x": torch.ones(1)}))["x"]) == 1


def test_a_layer_under_two_names_lies_under_both():
    model = TwoHeads()
    model.again, own = model.trunk[2], [id(p) for p in model.trunk[2].parameters()]
    stages = {"first": "trunk.2", "second": "again", "both": ["trunk.2", "again", "again.weight"]}
    for group, parameters in parameter_groups(model, stages=stages).items():
        assert [id(p) for p in parameters] == own, group
    by_depth = [id(p) for group in parameter_groups(model).values() for p in group]
    assert sorted(by_depth) == sorted({id(p) for p in model.parameters()})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: parameter_groups(m, depth=0), "depth"),
        (lambda m: parameter_groups(m, depth=1, stages={"x": "trunk"}), "not both"),
        (lambda m: parameter_groups(m, stages={"x": "trunc"}), "'trunc'.*trunk, heads"),
        (lambda m: gradient_conflict({"a": m(inputs())["a"]}, {}), "two losses"),
        (lambda m: gradient_conflict(m(inputs()) | {"a": torch.ones(())}, parameter_groups(m)), "'a' has no graph"),
        (
            lambda m: gradient_conflict(m(inputs()) | {"b": None}, parameter_groups(m)),
            "'b' is None: give a scalar tens",
        ),
        (
            lambda m: gradient_conflict(m(inputs()) | {"b": 0.0}, parameter_groups(m)),
            "'b' is 0.0: give a scalar tensor",
        ),
        (lambda m: gradient_conflict(m(inputs()) | {"b": torch.zeros(2)}, parameter_groups(m)), "'b' has shape"),
        (lambda m: gradient_conflict({"a": m.trunk(inputs()), "b": m(inputs())["b"]}, {}), "'a' has shape"),
        (lambda m: ConflictRecorder({}, every=0), "every"),
        (lambda m: task_losses(m(inputs())), "no task's loss.*a, b"),
    ],
)
def test_bad_usage_is_told(call, message):
    with pytest.raises(InputError, match=message):
        call(TwoHeads())


def test_recorder_keeps_every_nth_step_and_its_state_is_plain():
    theta = nn.Parameter(torch.ones(3))
    recorder = ConflictRecorder({"theta": [theta]}, every=2)
    for step in range(6):
        recorder(step, {"a": theta.sum(), "b": theta.sum() if step < 3 else -theta.sum()})
    assert {step: value.cosine for step, value in recorder.series("theta", ("b", "a")).items()} == pytest.approx(
        {0: 1.0, 2: 1.0, 4: -1.0}
    )
    assert recorder.conflict_rate("theta", PAIR) == pytest.approx(1 / 3)
    assert recorder.conflict_rate("theta", PAIR, since=3) == 1
    state = json.loads(json.dumps(recorder.state(), allow_nan=False))
    resumed = ConflictRecorder({"theta": [theta]}, every=2)
    resumed.load_state(state, before=4)
    assert [record["step"] for record in resumed.records] == [0, 2]
    resumed(4, {"a": theta.sum(), "b": -theta.sum()})
    assert resumed.records == recorder.records


class Objective(nn.Module):
    """Our objectives' protocol: the tasks' losses beside their sum."""

    def __init__(self):
        super().__init__()
        self.model = TwoHeads()

    def forward(self, batch):
        tasks = {f"task/{name}": loss for name, loss in self.model(batch["x"]).items()}
        return {"loss": sum(tasks.values()), **tasks, "norm": batch["x"].norm()}


def test_watching_an_objective():
    objective = Objective()
    recorder, by_hand = (ConflictRecorder(parameter_groups(objective), every=2) for _ in range(2))
    with recorder.watching(objective, step=lambda batch: batch["step"]):
        for step in (0, 1, 2, 2, 3):
            objective({"x": inputs() + step, "step": step})["loss"].backward()
        with torch.no_grad():
            objective({"x": inputs(), "step": 4})
    objective({"x": inputs(), "step": 6})
    for step in (0, 2):
        by_hand(step, objective.model(inputs() + step))
    assert recorder.records == by_hand.records and len(recorder.records) == 8


def test_watching_under_autocast_gives_nearly_the_same():
    objective = Objective()
    plain, cast = (ConflictRecorder(parameter_groups(objective.model.trunk)) for _ in range(2))
    with plain.watching(objective, step=lambda batch: 0):
        objective({"x": inputs()})
    with cast.watching(objective, step=lambda batch: 0), torch.autocast("cpu", torch.bfloat16):
        objective({"x": inputs()})
    assert plain.series("0", PAIR)[0].cosine == pytest.approx(cast.series("0", PAIR)[0].cosine, abs=0.05)


def share(rank=0, world=1):
    """Conflict and affinity of one process's share of a batch, in which only the first has rows for tasks c and d.

    The others' loss of c is zero with a graph, that of d a constant.
    """
    model = TwoHeads()
    rows = inputs()[rank::world]

    def losses():
        found = model(rows)
        found["c"] = (model.trunk(rows).square().mean() if rank == 0 else 0 * found["a"]) * world
        return found | {"d": found["c"] if rank == 0 else torch.zeros(())}

    found = gradient_conflict(losses(), parameter_groups(model))
    conflict = {group: {pair: vars(value) for pair, value in pairs.items()} for group, pairs in found.items()}
    return conflict, look_ahead_affinity(model, losses, model.trunk.parameters(), step_size=0.1).as_dict()


def share_as(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    try:
        return share(rank, 2)
    finally:
        dist.destroy_process_group()


def test_two_processes_see_the_conflict_and_the_affinity_of_the_global_batch(tmp_path):
    other = subprocess.Popen([sys.executable, __file__, str(tmp_path)])
    mine, affinity = share_as(0, tmp_path)
    assert other.wait(300) == 0
    assert torch.load(tmp_path / "other.pt") == (mine, affinity)
    (alone, alone_affinity), half = share(), share_of_first_half()
    assert torch.tensor(affinity["matrix"])[:2, :2].allclose(torch.tensor(alone_affinity["matrix"])[:2, :2], atol=1e-5)
    assert affinity["matrix"][2] == affinity["matrix"][3] and affinity["matrix"][2][2] > 0
    for layer in ("trunk.0", "trunk.2"):
        assert mine[layer]["a", "d"] == pytest.approx(mine[layer]["a", "c"], abs=1e-6)
        assert mine[layer]["a", "b"] == pytest.approx(alone[layer]["a", "b"], abs=1e-5)
        assert mine[layer]["a", "c"]["cosine"] == pytest.approx(half[layer], abs=1e-5)
    assert mine["heads.b"]["a", "b"]["cosine"] is None


def share_of_first_half():
    """Cosine of task a on all rows with task c on the first process's rows, by layer."""
    model = TwoHeads()
    losses = {"a": model(inputs())["a"], "c": model.trunk(inputs()[0::2]).square().mean()}
    found = gradient_conflict(losses, parameter_groups(model))
    return {layer: found[layer]["a", "c"].cosine for layer in ("trunk.0", "trunk.2")}


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    torch.save(share_as(1, directory), directory / "other.pt")


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_half_precision_changes_little(scale):
    net, groups = TwoHeads(), None
    groups = parameter_groups(net)
    exact = gradient_conflict({name: scale * loss for name, loss in net(inputs()).items()}, groups)
    with torch.autocast("cpu", torch.float16):
        losses = {name: scale * loss for name, loss in net(inputs()).items()}
        rough = gradient_conflict(losses, groups)
    for group, pairs in exact.items():
        for pair, conflict in pairs.items():
            assert rough[group][pair].shared == conflict.shared
            if conflict.cosine is not None:
                assert rough[group][pair].cosine == pytest.approx(conflict.cosine, abs=0.03)
