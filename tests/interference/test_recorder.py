"""Recorders: when they look, what they keep, and that training does not notice."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference import AffinityRecorder, ConflictRecorder, GateRecorder, Recorder, parameter_groups
from synthmtl.sharing import LeakySharing


class Objective(nn.Module):
    """Two tasks that exchange features through a leaky unit, with dropout and running statistics."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3))
        self.unit = LeakySharing(4, gate_bias=-2.0)

    def forward(self, batch):
        features = self.stem(batch.image)
        one, other = self.unit([features, features.flip(1)])
        tasks = {"one": one.square().mean(), "other": (other - 1).square().mean()}
        return {"loss": sum(tasks.values())} | {f"task/{name}": loss for name, loss in tasks.items()}


def batch(step):
    image = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(step))
    return SimpleNamespace(image=image, random=SimpleNamespace(step=step))


def train(objective, steps):
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        objective(batch(step))["loss"].backward()
        optimizer.step()


def recorders(objective):
    return [
        GateRecorder(objective, every=2),
        ConflictRecorder(parameter_groups(objective), every=2),
        AffinityRecorder(objective.parameters(), step_size=0.1, every=2),
    ]


def test_training_does_not_notice():
    objective, alone = Objective(), Objective()
    gates, conflict, affinity = recorders(objective)
    with gates.watching(objective), conflict.watching(objective), affinity.watching(objective):
        train(objective, 4)
    train(alone, 4)
    for name, value in alone.state_dict().items():
        assert torch.equal(objective.state_dict()[name], value), name
    assert all({record["step"] for record in each.records} == {0, 2} for each in (gates, conflict, affinity))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in objective.modules())


class Unlabeled(Objective):
    """At odd steps no face carries the label of the other task, whose loss is then a constant."""

    def forward(self, batch):
        losses = super().forward(batch)
        absent = {"task/other": torch.zeros(())} if batch.random.step % 2 else {}
        return losses | absent | {"loss": losses["task/one"] + absent.get("task/other", losses["task/other"])}


def test_training_goes_on_where_a_task_has_no_label():
    objective, alone = Unlabeled(), Unlabeled()
    conflict = ConflictRecorder(parameter_groups(objective), every=1)
    affinity = AffinityRecorder(objective.stem.parameters(), step_size=0.1, every=1)
    with conflict.watching(objective), affinity.watching(objective):
        train(objective, 4)
    train(alone, 4)
    for name, value in alone.state_dict().items():
        assert torch.equal(objective.state_dict()[name], value), name
    for record in conflict.records:
        assert record["step"] % 2 == 0 or (record["shared"], record["cosine"]) == (0, None)
    for record in affinity.records:
        assert (record["affinity"] is None) == (record["step"] % 2 == 1 and record["to"] == "other")


def test_a_compiled_objective_is_watched_from_outside():
    plain, compiled = Objective(), Objective()
    wrapped = torch.compile(compiled, backend="eager")
    wrapped(batch(0))  # compiled before anybody looks
    compiled.load_state_dict(plain.state_dict())
    found = []
    for model, seen in ((plain, plain), (compiled, wrapped)):
        recorder = GateRecorder(model, every=2)
        with recorder.watching(seen):
            train(seen, 4)
        found.append(recorder.records)
    assert [(r["step"], r["direction"], r["gate"]) for r in found[0]] == [
        (r["step"], r["direction"], r["gate"]) for r in found[1]
    ]
    assert [r["mean"] for r in found[0]] == pytest.approx([r["mean"] for r in found[1]], abs=1e-5)
    inside = GateRecorder(compiled, every=1).watching(compiled)
    with pytest.raises(InputError, match="compiled code cannot look at its own gates"), inside:
        wrapped(batch(5))


def test_a_look_after_an_interrupted_one_is_as_the_first():
    objective = Objective()
    recorder, alone = GateRecorder(objective, every=1), GateRecorder(objective, every=1)
    broken = objective.register_forward_hook(lambda *given: 1 / 0, prepend=True)
    with recorder.watching(objective):
        with pytest.raises(ZeroDivisionError):
            objective(batch(0))
        broken.remove()
        torch.manual_seed(0)
        objective(batch(1))
    torch.manual_seed(0)
    with alone.watching(objective):
        objective(batch(1))
    assert recorder.records == alone.records and len(recorder.records) == 4


def test_gates_are_those_of_the_training_pass():
    objective = Objective()
    recorder = GateRecorder(objective, every=1)
    with recorder.watching(objective):
        torch.manual_seed(0)
        objective(batch(0))
        objective(batch(0))  # another player's turn on the same step
        with torch.no_grad():
            objective(batch(1))
    places = [(record["direction"], record["gate"]) for record in recorder.records]
    assert places == [(way, gate) for way in ("1_to_0", "0_to_1") for gate in ("pass", "take")]
    again = Objective()
    torch.manual_seed(0)
    features = again.stem(batch(0).image)
    passed, taken = again.unit.units["1_to_0"].gates(features, features.flip(1))
    assert [r["mean"] for r in recorder.records[:2]] == pytest.approx([passed.mean().item(), taken.mean().item()])


def test_affinity_is_that_of_the_coming_step():
    objective = Objective()
    recorder = AffinityRecorder(objective.unit.parameters(), step_size=0.05, every=1)
    with recorder.watching(objective):
        train(objective, 3)
    pairs = [(record["from"], record["to"]) for record in recorder.records[:4]]
    assert pairs == [("one", "one"), ("one", "other"), ("other", "one"), ("other", "other")]
    own = [record["affinity"] for record in recorder.records if record["from"] == record["to"]]
    assert len(own) == 6 and all(value > 0 for value in own)


def test_batches_of_a_step_that_come_again_are_not_looked_at_again():
    recorder = Recorder(2)
    for step in (0, 1, 2, 3, 0, 1, 2, 3, 4):
        if recorder.due(step):
            recorder.keep([{"step": step}])
    assert [record["step"] for record in recorder.records] == [0, 2, 4]


def test_an_interrupted_pass_leaves_nothing_behind():
    objective = Objective()
    recorder = GateRecorder(objective, every=1)
    with pytest.raises(AttributeError), recorder.watching(objective):
        objective(SimpleNamespace(random=SimpleNamespace(step=0)))
    assert not recorder.records
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in objective.modules())


def test_records_go_on_in_their_file(tmp_path):
    whole, cut = Recorder(2), Recorder(2)
    for recorder, steps in ((whole, 8), (cut, 5)):
        recorder.keep_in(tmp_path / f"{steps}.jsonl")
        for step in range(steps):
            if recorder.due(step):
                recorder.keep([{"step": step, "value": k} for k in range(2)])
    with (tmp_path / "5.jsonl").open("a") as file:
        file.write('{"step": 4, "va')  # killed while writing
    resumed = Recorder(2)
    resumed.keep_in(tmp_path / "5.jsonl", before=4)
    assert [record["step"] for record in resumed.records] == [0, 0, 2, 2]
    for step in range(4, 8):
        if resumed.due(step):
            resumed.keep([{"step": step, "value": k} for k in range(2)])
    assert resumed.state() == whole.state()
    assert (tmp_path / "5.jsonl").read_text() == (tmp_path / "8.jsonl").read_text()


def test_a_new_run_forgets_what_lies_there(tmp_path):
    (tmp_path / "looks.jsonl").write_text('{"step": 0}\n')
    recorder = Recorder(1)
    recorder.keep_in(tmp_path / "looks.jsonl")
    assert recorder.records == [] and (tmp_path / "looks.jsonl").read_text() == ""


def test_bad_usage_is_told():
    with pytest.raises(InputError, match="every must be at least 1"):
        Recorder(0)
    with pytest.raises(InputError, match="no gated units"):
        GateRecorder(nn.Linear(2, 2))


def test_one_process_of_several_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("synthmtl.interference.recorder.several_processes", lambda: True)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    for rank in (1, 0):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        recorder = Recorder(1)
        recorder.keep_in(tmp_path / "looks.jsonl")
        recorder.keep([{"step": 0}])
        assert recorder.records == [{"step": 0}]
        assert (tmp_path / "looks.jsonl").is_file() == (rank == 0)
