import json
import os
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.models import Recognizer
from synthmtl.models.inference import (
    CONFIG,
    agreed_landmarks,
    load_network,
    predict_table,
    predict_tasks,
    save_network,
)

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


@pytest.mark.parametrize("here", [".", "", "../model"])
def test_saved_where_one_stands(here, tmp_path, network, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    save_network(network, here)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["model", CONFIG, WEIGHTS])
    assert load_network(here).classes == network.classes


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


class Told(nn.Module):
    """Predicts what it is asked for, and keeps the modes its modules are in."""

    def __init__(self):
        super().__init__()
        self.tasks = ("landmarks",)
        self.parts = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1).eval())
        self.modes = set()

    def recognize(self, images):
        return self.predict(images)["landmarks"][:, :1, 0]

    def predict(self, images):
        self.modes |= {module.training for module in self.modules()}
        return {"landmarks": torch.arange(136.0).view(1, 68, 2).expand(len(images), -1, -1)}


@pytest.mark.parametrize("predict", [predict_table, predict_tasks, agreed_landmarks])
@pytest.mark.parametrize("fails", [False, True])
def test_what_was_frozen_stays_frozen(predict, fails, monkeypatch):
    model = Told()
    before = [module.training for module in model.modules()]
    if fails:
        monkeypatch.setattr(model, "predict", lambda images: images.no_such_thing)
    faces = FaceTable(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), ("neutral",))
    with pytest.raises(AttributeError) if fails else nullcontext():
        predict(model, faces)
    assert model.modes == (set() if fails else {False})
    assert [module.training for module in model.modules()] == before and len(set(before)) == 2


class Centroid(nn.Module):
    """Says that every landmark lies where the picture is brightest on the mean, which moves as the picture does."""

    def __init__(self, stubborn: bool = False):
        super().__init__()
        self.tasks, self.stubborn = ("landmarks",), stubborn
        self.weight = nn.Parameter(torch.zeros(1))

    def predict(self, images):
        size = images.shape[-1]
        light = (images + 1).mean(1)
        at = (torch.arange(size) + 0.5) / size
        total = light.sum((1, 2))
        x, y = (light.sum(1) * at).sum(1) / total, (light.sum(2) * at).sum(1) / total
        # Two eyes a fifth of the picture apart, so that spreads have a unit.
        places = torch.stack([x, y], 1)[:, None].repeat(1, 68, 1)
        places[:, 36:42, 0] -= 0.1
        places[:, 42:48, 0] += 0.1
        return {"landmarks": torch.full_like(places, 0.3) if self.stubborn else places}


def spots(*middles):
    """Bright spots on black, 48 px."""
    at = torch.arange(48) + 0.5
    images = [torch.exp(-((at - y)[:, None] ** 2 + (at - x)[None] ** 2) / 8) for x, y in middles]
    return FaceTable((torch.stack(images)[:, None] * 255).to(torch.uint8), ("neutral",))


def test_views_agree_on_landmarks_that_move_with_the_face():
    places, spread = agreed_landmarks(Centroid(), spots((20, 26), (28, 22)))
    assert torch.allclose(places[:, 33], torch.tensor([[20.0, 26.0], [28.0, 22.0]]) / 48, atol=2e-3)
    # Only the eyes' distance, which the centroid does not know in a window of another size, disagrees.
    assert spread.max() < 0.02


def test_views_disagree_on_landmarks_that_do_not_move():
    _, spread = agreed_landmarks(Centroid(stubborn=True), spots((20, 26)))
    assert spread.min() > 1  # in distances between the eyes, which coincide here


def test_agreement_needs_faces():
    with pytest.raises(InputError, match="no faces to predict"):
        agreed_landmarks(Centroid(), spots((20, 26)).select(torch.zeros(1, dtype=torch.bool)))
