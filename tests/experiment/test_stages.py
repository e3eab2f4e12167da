"""The data of a run."""

import dataclasses

import pytest
import torch
from PIL import Image

from synthmtl.errors import InputError
from synthmtl.experiment import METHODS, generation, preset, stages
from synthmtl.experiment.config import FaceOptions
from synthmtl.experiment.stages import Job, load_data
from synthmtl.faces.nuisance import measured_correlation
from synthmtl.labels import EXPRESSIONS
from synthmtl.training import build_accelerator


def test_correlated_nuisances_reach_the_training_faces_only(tmp_path):
    options = FaceOptions(
        image_size=32,
        train_counts=dict.fromkeys(EXPRESSIONS, 12),
        validation_per_class=1,
        test_per_class=12,
        subjects=(24, 8, 24),
        nuisance_correlation=0.8,
    )
    splits, render = load_data(options)
    assert render.nuisance_correlation == 0.8
    assert "(correlation 0.8), in validation and test they do not." in splits.notes[-1]
    train, test = measured_correlation(splits.train), measured_correlation(splits.test)
    assert all(train[name] > 0.6 and test[name] < 0.5 for name in train)
    with pytest.raises(InputError, match="nuisance_correlation is for rendered faces"):
        load_data(FaceOptions(path=str(tmp_path), nuisance_correlation=0.5))
    with pytest.raises(InputError, match=r"nuisance_correlation is 2.0: it must be in \[0, 1\]"):
        load_data(FaceOptions(nuisance_correlation=2.0))


def test_only_expressions_with_training_faces_are_rendered():
    counts = {"fear": 2, "neutral": 4, "anger": 0, "happiness": 3}
    options = FaceOptions(
        image_size=32, train_counts=counts, validation_per_class=2, test_per_class=1, subjects=(4, 4, 4)
    )
    splits, _ = load_data(options)
    assert splits.classes == ("neutral", "happiness", "fear")
    assert [list(table.counts().values()) for table in splits.tables().values()] == [[4, 3, 2], [2, 2, 2], [1, 1, 1]]
    with pytest.raises(InputError, match="has 1 expressions with faces: give at least two"):
        load_data(FaceOptions(train_counts={"fear": 2}))
    with pytest.raises(InputError, match="has 'joy': use some of neutral"):
        load_data(FaceOptions(train_counts={"fear": 2, "joy": 3}))


def test_frames_of_videos_are_chosen(tmp_path):
    """Aff-Wild2: in each of twelve videos the odd frames are neutral and the even ones happy."""
    random = torch.Generator().manual_seed(0)
    for video in range(12):
        part = "Train_Set" if video < 9 else "Validation_Set"
        labels = tmp_path / "annotations" / "EXPR_Set" / part / f"{video}.txt"
        pictures = tmp_path / "cropped_aligned" / str(video)
        for folder in (labels.parent, pictures):
            folder.mkdir(parents=True, exist_ok=True)
        labels.write_text("Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n" + "0\n4\n" * 3)
        for frame in range(1, 7):
            pixels = torch.randint(0, 256, (8, 8), generator=random, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(pictures / f"{frame:05d}.png")
    for every in (1, 3):
        splits, _ = load_data(FaceOptions(path=str(tmp_path), every=every, image_size=8))
        files = [file for table in splits.tables().values() for file in table.files]
        assert {int(file.split("/")[-1][:5]) for file in files} == set(range(1, 7, every))
        assert len(files) == 12 * len(range(1, 7, every))
    with pytest.raises(InputError, match="peaks is 3, and affwild2 has no such option, only ckplus: leave it out"):
        load_data(FaceOptions(path=str(tmp_path), peaks=3))


def test_the_format_reaches_the_reader(tmp_path):
    """Seven folders of numbers tell nobody whose codes they are, until the format says it."""
    picture = torch.randint(0, 256, (7, 12, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for code in range(7):
        for split, rows in (("train", range(6)), ("val", range(6, 9)), ("test", range(9, 12))):
            (tmp_path / split / str(code)).mkdir(parents=True)
            for row in rows:
                Image.fromarray(picture[code, row].numpy()).save(tmp_path / split / str(code) / f"{row}.png")
    with pytest.raises(InputError, match="unknown expression folder '0'"):
        load_data(FaceOptions(path=str(tmp_path)))
    splits, render = load_data(FaceOptions(path=str(tmp_path), format="affectnet", image_size=8))
    assert render is None and splits.classes == EXPRESSIONS[:7]
    for table in splits.tables().values():
        for file, index in zip(table.files, table.expression.tolist(), strict=True):
            assert file.split("/")[-2] == str(index)


class Drawn(Exception):
    """Rows that a training would draw from."""


def rows_drawn(monkeypatch, module, train):
    def sampler(rows, *_):
        raise Drawn(rows.tolist())

    monkeypatch.setattr(module, "EpochSampler", sampler)
    with pytest.raises(Drawn) as caught:
        train()
    return caught.value.args[0]


@pytest.mark.parametrize("stage", ["recognition", "joint"])
def test_faces_that_annotators_voted_on_are_trained_on_without_a_label(monkeypatch, tmp_path, stage):
    config = preset("smoke", rendered=True, generator="diffusion")
    splits, _ = load_data(config.faces)
    labels, shares = splits.train.expression.clone(), splits.train.expression_distribution.clone()
    labels[:3] = -1  # the first three faces have no majority
    accelerator = build_accelerator(precision="no")

    def rows(**columns):
        job = Job(config, tmp_path, dataclasses.replace(splits, train=splits.train.replace(**columns)), accelerator)
        if stage == "joint":
            return rows_drawn(monkeypatch, generation, lambda: generation.train_jointly(job, "gated", 0))
        options = {"seed": 0, "method": METHODS["plain"]}
        return rows_drawn(
            monkeypatch, stages, lambda: stages.train_recognition(job, None, config.recognition, tmp_path, **options)
        )

    everyone = list(range(len(labels)))
    assert rows() == everyone and rows(expression=labels) == everyone[3:]
    shares[1:6] = 1 / shares.shape[1]
    assert rows(expression=labels, expression_distribution=shares) == everyone[1:]
