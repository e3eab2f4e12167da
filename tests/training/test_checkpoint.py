"""Checkpoints: whole or not there, read as they were written, bound to one configuration."""

import json
import os
import shutil

import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.training import fingerprint, latest, load_checkpoint, save_checkpoint

CONFIGURATION = {"training": {"seed": 1, "betas": (0.9, 0.99)}, "players": {}}


def networks():
    """Two objectives that share a network whose weights are channels_last."""
    shared = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    return nn.ModuleDict(
        {"a": nn.Sequential(shared, nn.BatchNorm2d(4)), "b": nn.Sequential(shared, nn.Conv2d(4, 1, 1))}
    )


def save(directory, step, modules, **options):
    arguments = {"training": {}, "progress": {}, "configuration": CONFIGURATION} | options
    return save_checkpoint(directory, step, modules=modules, **arguments)


def test_what_was_saved_is_loaded(tmp_path):
    modules = networks()
    optimizer = torch.optim.Adam(modules.parameters())
    modules["a"](torch.ones(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()
    best = {"x": torch.arange(3.0)}
    path = save(
        tmp_path,
        7,
        modules,
        training={"optimizer": optimizer.state_dict()},
        progress={"step": 7, "sums": {}},
        best=best,
    )
    assert path.name == "step-000007" and latest(tmp_path) == path
    fresh = networks()
    training, progress, loaded = load_checkpoint(path, modules=fresh, configuration=CONFIGURATION)
    for name, value in modules.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)
    assert fresh["a"][0] is fresh["b"][0] and fresh["a"][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert progress == {"step": 7, "sums": {}} and torch.equal(loaded["x"], best["x"])
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            found = training["optimizer"]["state"][number][name]
            assert torch.equal(found, value) and found.stride() == value.stride()


def test_a_killed_writer_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    modules = networks()
    first = save(tmp_path, 1, modules)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, modules)
    assert latest(tmp_path) == first
    second = save(tmp_path, 2, modules)
    assert latest(tmp_path) == second and sorted(path.name for path in tmp_path.iterdir()) == [first.name, second.name]


def test_the_oldest_go_and_the_order_is_that_of_the_numbers(tmp_path):
    modules = networks()
    for step in (5, 999_999, 1_000_000):
        save(tmp_path, step, modules, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"step-999999", "step-1000000"}
    assert latest(tmp_path).name == "step-1000000"
    assert latest(tmp_path / "missing") is None


def test_another_configuration_is_named(tmp_path):
    path = save(tmp_path, 1, networks())
    other = {"training": {"seed": 2, "betas": (0.9, 0.99)}, "players": {"new": 1}}
    with pytest.raises(InputError, match=r"players.new: None there, 1 here; training.seed: 1 there, 2 here"):
        load_checkpoint(path, modules=networks(), configuration=other)
    state = json.loads((path / "state.json").read_text())
    assert state["fingerprint"] == fingerprint(CONFIGURATION) != fingerprint(other)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


@pytest.mark.parametrize("name", ["weights.safetensors", "training.pt", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    path = save(tmp_path, 1, networks())
    (path / name).write_bytes(b"not this")
    with pytest.raises(InputError, match="step-000001 cannot be read"):
        load_checkpoint(path, modules=networks(), configuration=CONFIGURATION)


def test_weights_of_another_network_are_refused(tmp_path):
    path = save(tmp_path, 1, networks())
    with pytest.raises(InputError, match="the weights differ in"):
        load_checkpoint(path, modules=nn.ModuleDict({"a": nn.Linear(1, 1)}), configuration=CONFIGURATION)


def test_a_full_disk_leaves_the_older_checkpoint_and_no_rest(tmp_path, files_of_at_most):
    modules = networks()
    first = save(tmp_path, 1, modules)
    for size in (10, 300, 1200):
        with files_of_at_most(size), pytest.raises(OSError, match="File too large") as caught:
            save(tmp_path, 2, modules)
        assert caught.value.filename.startswith(str(tmp_path))
        assert list(tmp_path.iterdir()) == [first]
    assert latest(save(tmp_path, 2, modules).parent).name == "step-000002"


def test_a_remover_that_is_killed_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    modules = networks()
    for step in (1, 2):
        save(tmp_path, step, modules)

    def killed(path, **options):
        next(path.glob("*.safetensors")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 3, modules)
    whole = sorted(path.name for path in tmp_path.glob("step-*"))
    assert whole == ["step-000002", "step-000003"]
    save(tmp_path, 4, modules)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]
