import os

import pytest
import torch

from synthmtl.labels import EXPRESSIONS
from synthmtl.models import FERSNet, Recognizer, matched_recognizer

CLASSES = ("neutral", "happiness", "anger")


def faces(count=3, channels=1, size=48):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_interface(channels, norm):
    torch.manual_seed(0)
    model = Recognizer(CLASSES, image_channels=channels, norm=norm).eval()
    probabilities = model.recognize(faces(channels=channels))
    assert probabilities.shape == (3, 3) and model.classes == CLASSES
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    maps = model.features(faces(channels=channels))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 24, 24), (32, 12, 12), (64, 6, 6), (96, 3, 3), (96, 3, 3)]
    assert model.recognition_parameters() == sum(p.numel() for p in model.parameters())


def test_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = Recognizer(CLASSES, stem_channels=4, stage_channels=(4, 8), joint_channels=8, dropout=0.2)
    model(faces(8))  # moves the running statistics
    model.eval().save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = Recognizer.from_pretrained(tmp_path, use_safetensors=True)
    assert not loaded.training and loaded.classes == CLASSES
    assert torch.equal(loaded(faces()), model(faces()))


@pytest.mark.parametrize("wanted", [30_000, 400_000, 3_000_000])
def test_matched_within_two_percent(wanted):
    model = matched_recognizer(wanted, classes=EXPRESSIONS, dropout=0.1)
    assert model.recognition_parameters() == pytest.approx(wanted, rel=0.02)
    assert model.config.dropout == 0.1 and model.classes == EXPRESSIONS
    assert model.eval()(faces(2)).shape == (2, 8)
    widths = model.config.stage_channels
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.15) and widths[2] / widths[0] == pytest.approx(3, rel=0.15)


def test_matches_the_gated_nets():
    for size in ("tiny", "cpu"):
        gated = FERSNet.sized(size, classes=CLASSES).recognition_parameters()
        assert matched_recognizer(gated, classes=CLASSES).recognition_parameters() == pytest.approx(gated, rel=0.02)


def test_no_match():
    with pytest.raises(ValueError, match="no width factor gives 20 parameters within 2%"):
        matched_recognizer(20, classes=CLASSES)
