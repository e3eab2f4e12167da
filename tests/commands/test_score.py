import json

import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.balance.quality import NUMBERS
from synthmtl.cli import main
from synthmtl.models import Recognizer

CLASSES = ("happiness", "fear")


def write_faces(root, counts, size=32, mode="L", seed=0):
    random = np.random.default_rng(seed)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            coarse = Image.fromarray(random.integers(0, 256, (5, 5), dtype=np.uint8))
            coarse.resize((size, size), Image.Resampling.BICUBIC).convert(mode).save(root / folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network")
    Recognizer(CLASSES, image_size=32, stem_channels=8, stage_channels=(8, 8), joint_channels=8).save_pretrained(folder)
    return folder


@pytest.fixture
def sets(tmp_path):
    return [
        *("--real", write_faces(tmp_path / "real", {"train/happiness": 8, "train/fear": 8, "test/fear": 3})),
        *("--synthetic", write_faces(tmp_path / "made", {"happiness": 7, "fear": 6}, seed=1)),
    ]


def call(*arguments):
    return main(["score", *map(str, arguments)])


def test_card_picture_and_table(sets, network, tmp_path, capsys):
    out, picture = tmp_path / "new" / "card.json", tmp_path / "pairs.png"
    Image.open(tmp_path / "real/train/fear/5.png").save(tmp_path / "made" / "fear" / "0.png")
    options = [*sets, "--features", network, "--judge", network, "--out", out, "--pairs", picture]
    assert call(*options) == 0
    card = json.loads(out.read_text())
    assert tuple(card["overall"]) == NUMBERS and list(card["per_expression"]) == list(CLASSES)
    assert card["overall"]["copies"]["kinds"]["exact"] == 1 and card["closest_pairs"][0]["by_pixels"]["copy"] == "exact"
    assert card["overall"]["fid"]["extractor"].startswith("Recognizer ")
    assert card["overall"]["label_agreement"]["reference"]["on"] == "test"
    assert "steps" in card["classification_accuracy_score"]["absent"]
    assert Image.open(picture).size[0] > 4 * 128
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[0] == "fid" and [line.split()[0] for line in said[1:4]] == ["overall", *CLASSES]
    assert said[-1] == f"card: {out}"
    assert call(*options, "--overwrite") == 0
    assert json.loads(out.read_text()) == card


def test_training_is_asked_for_by_its_steps(sets, network, tmp_path, capsys):
    assert call(*sets, "--features", network, "--train-steps", 1, "--out", tmp_path / "card.json") == 0
    score = json.loads((tmp_path / "card.json").read_text())["classification_accuracy_score"]
    assert score["steps"] == 1 and score["test_faces"] == 3 and score["held_out"] == "given"
    assert 0 <= score["real_and_synthetic"]["macro_f1"] <= 1
    assert "trained on synthetic" in capsys.readouterr().out


def test_unlike_sets_and_missing_weights_are_told_in_the_card(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    real = write_faces(tmp_path / "real", {"happiness": 4, "fear": 1}, size=40, mode="RGB")
    made = write_faces(tmp_path / "made", {"happiness": 3, "anger": 1}, seed=1)
    out = tmp_path / "card.json"
    assert call("--real", real, "--synthetic", made, "--features", "inception", "--out", out) == 0
    card = json.loads(out.read_text())
    assert card["image_size"] == 32 and card["channels"] == 1
    told = " ".join(card["notes"])
    assert "all are read at 32 px" in told and "all are read in gray" in told
    assert "weights-inception" in card["overall"]["fid"]["absent"]
    assert card["per_expression"]["fear"]["copies"] == {"absent": "no synthesized face of fear"}
    assert card["per_expression"]["anger"]["copies"]["value"] == 0
    said = capsys.readouterr().out
    assert "absent: fid, kid" in said and "note: " in said


def test_wrong_calls_leave_everything_as_it_is(sets, network, tmp_path, capsys):
    out, taken = tmp_path / "card.json", tmp_path / "taken.json"
    taken.write_text("{}")
    good = [*sets, "--features", network, "--out"]
    wrong = {
        "taken.json: exists; --overwrite replaces it": [*good, taken],
        "is a folder; give the name of a JSON file": [*good, tmp_path, "--overwrite"],
        "pairs.jpg: give the name of a PNG file": [*good, out, "--pairs", "pairs.jpg"],
        "--train-steps is -1": [*good, out, "--train-steps", -1],
        "unknown features 'vgg': use one of efficientnet-lite0, inception": [*good, out, "--features", "vgg"],
        "no model here": [*good, out, "--judge", tmp_path / "made"],
        "no such folder or file": [*good, out, "--synthetic", tmp_path / "missing"],
        "required: out": sets,
    }
    for message, options in wrong.items():
        assert call(*options) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("synthmtl: ") and message in said[-1], said
    assert not out.exists() and taken.read_text() == "{}"
    (tmp_path / "made" / "fear" / "1.png").write_bytes(b"")
    assert call(*good, out) == 2
    assert "fear/1.png: the image file is empty" in capsys.readouterr().err and not out.exists()
