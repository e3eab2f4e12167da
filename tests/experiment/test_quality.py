"""The quality card of the main job's balancing set, from networks that never learned anything."""

import dataclasses
import json

import pytest
import torch

from synthmtl.data import FaceTable
from synthmtl.experiment import quality
from synthmtl.experiment.config import preset
from synthmtl.experiment.generation import Fills
from synthmtl.experiment.stages import Job, load_data, matched_network, plain_network, save
from synthmtl.training import build_accelerator


def test_rows_are_found_among_the_chosen():
    chosen = torch.tensor([1, 4, 7])
    assert quality.among(torch.tensor([4, 0, 7, 1, 9, -1]), chosen).tolist() == [1, -1, 2, 0, -1, -1]


@pytest.fixture
def job(tmp_path):
    config = preset("smoke", rendered=True)
    splits, render = load_data(config.faces)
    job = Job(config, tmp_path, splits, build_accelerator(precision="no"), render)
    torch.manual_seed(0)
    save(job, plain_network(job), tmp_path / "judge/model")
    for name in ("plain_matched", "oversampled"):
        save(job, matched_network(job), tmp_path / f"cells/{name}/seed1/model")
    return job


def fills_of(job, rows):
    """Faces of the training split, mirrored and made darker, as if they had been edited."""
    table = job.train.select(rows)
    return Fills({"synthesized": table.replace(images=table.images.flip(-1) // 2)}, {}, rows, "0123")


def test_the_card_names_who_judged_and_what_was_left_out(job, monkeypatch):
    monkeypatch.setattr(quality, "MOST_FACES", 40)
    monkeypatch.setattr(quality.importlib.util, "find_spec", lambda name: None)
    rows = torch.arange(0, len(job.train), 2)
    cells = {name: [{"seed": 1}] for name in ("gated_balanced", "plain_matched", "oversampled")}
    card = quality.balancing_quality(job, fills_of(job, rows), cells)
    assert (card["real"]["faces"], card["synthetic"]["faces"]) == (40, len(rows))
    assert f"40 of {len(job.train)} real faces, drawn evenly over expressions." in card["notes"]
    assert any("among these real faces alone" in note for note in card["notes"])
    # Every face of the rare classes, which have 4, and 6 of each common one.
    assert list(card["real"]["counts"].values()) == [6] * 4 + [4] * 4
    # Rare classes are judged by the recognizer that attends to them; the one that filtered gives features at most.
    assert card["label_judge"] == "oversampled" and card["extractor"]["name"].startswith("Recognizer")
    assert card["judge"]["weights"] != card["extractor"]["weights"]
    assert "warning" not in card["overall"]["label_agreement"]
    assert card["overall"]["label_agreement"]["reference"]["faces"] == len(job.splits.test)
    assert card["overall"]["subject_kept"]["faces"] == len(set(rows.tolist()) & set(drawn(job)))
    assert quality.closest_pairs(job).is_file() and json.dumps(card, allow_nan=False)
    # It is made once.
    monkeypatch.setattr(quality, "quality_card", None)
    assert quality.balancing_quality(job, fills_of(job, rows), cells) == json.loads(json.dumps(card))


@pytest.mark.parametrize("most", [1000, 40])
def test_synthesized_training_faces_do_not_count_as_real(job, monkeypatch, most):
    """As ``balance --originals`` wrote them: nearly what a new balancing set has, so that they pass for copied."""
    monkeypatch.setattr(quality, "MOST_FACES", most)
    monkeypatch.setattr(quality.importlib.util, "find_spec", lambda name: None)
    given, plain = {}, quality.quality_card

    def seen(real, synthetic, **options):
        given.update(options, real=real)
        return plain(real, synthetic, **options)

    monkeypatch.setattr(quality, "quality_card", seen)
    faces = job.train
    made = faces.replace(images=faces.images.flip(-1) // 2, synthetic=torch.ones(len(faces), dtype=torch.bool))
    mixed = FaceTable.concatenate([made, faces]).select(torch.arange(2 * len(faces)).view(2, -1).T.flatten())
    job.splits = dataclasses.replace(job.splits, train=mixed)
    rows = torch.where(~mixed.synthetic)[0][::2]
    card = quality.balancing_quality(job, fills_of(job, rows), {})

    assert card["real"]["faces"] == min(len(faces), most) == len(given["real"])
    assert not given["real"].synthetic.any()
    assert f"{len(faces)} synthesized training faces do not count as real ones." in card["notes"]
    assert any("among these real faces alone" in note for note in card["notes"]) == (most < len(faces))
    found = given["source_row"] >= 0
    assert found.all() if most > len(faces) else found.any()
    shown = [given["real"].files[row] for row in given["source_row"][found]]
    assert shown == mixed.select(rows[: len(found)][found]).files


def drawn(job):
    return quality.drawn_rows(job, "real", job.train, []).tolist()


def test_without_an_independent_recognizer_labels_are_not_judged(job, monkeypatch):
    monkeypatch.setattr(quality.importlib.util, "find_spec", lambda name: None)
    card = quality.balancing_quality(job, fills_of(job, torch.arange(16)), {"gated_balanced": [{"seed": 0}]})
    assert card["label_judge"] is None and "no independent recognizer" in card["overall"]["label_agreement"]["absent"]
