import json
import os

import pytest
import torch
from safetensors.torch import load_file

from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.models import Recognizer
from synthmtl.models.inference import CONFIG, load_network, predict_table, save_network

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def network():
    torch.manual_seed(0)
    classes = ("neutral", "happiness", "fear")
    return Recognizer(classes=classes, image_size=32, stem_channels=4, stage_channels=(4, 8), joint_channels=8)


def test_a_saved_network_comes_back(tmp_path, network):
    save_network(network, tmp_path / "run" / "model")
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == sorted(["model", CONFIG, WEIGHTS])
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        found = load_network(folder)
        assert not found.training and found.classes == network.classes
        assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.state_dict().items())


def test_saving_that_is_killed_leaves_a_network(tmp_path, network, monkeypatch):
    save_network(network, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def killed(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_network(network, tmp_path / "model")
        with pytest.raises(KeyboardInterrupt):
            save_network(network, tmp_path / "new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert not list((tmp_path / "new").iterdir())
    with pytest.raises(InputError, match="no model here"):
        load_network(tmp_path / "new")


def test_a_full_disk_is_named_and_leaves_the_old_weights(tmp_path, network, files_of_at_most):
    save_network(network, tmp_path / "model")
    with files_of_at_most(3000), pytest.raises(OSError, match="File too large") as caught:
        save_network(network, tmp_path / "model")
    assert caught.value.filename == str(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert len(load_file(tmp_path / "model" / WEIGHTS)) == len(network.state_dict())


def test_classes_must_be_expressions_in_their_order(tmp_path, network):
    save_network(network, tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"classes": ["happiness", "neutral", "fear"]}))
    with pytest.raises(InputError, match="classes are .*'happiness', 'neutral'.*: use some of neutral,"):
        load_network(tmp_path)


def test_a_network_is_in_the_mode_it_was_in_whatever_happens(network):
    model = network.train()
    faces = FaceTable(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), network.classes)
    with pytest.raises(RuntimeError):
        predict_table(model, faces)  # faces of another size
    assert model.training
