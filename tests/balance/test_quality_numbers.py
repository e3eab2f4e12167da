import pytest
import torch
from torch import nn

from synthmtl.balance import quality_numbers
from synthmtl.balance.chunks import weights_hash
from synthmtl.balance.quality_numbers import (
    agreement_measure,
    copies_measure,
    lpips_measure,
    share,
    subject_measure,
    unavailable,
)
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.metrics.memorisation import find_copies
from synthmtl.models.recognizer import Recognizer

CLASSES = ("neutral", "happiness", "fear")
LEVELS = torch.tensor([20, 128, 235], dtype=torch.uint8)


def gray(count=30, size=32):
    """Faces of one gray, by which their class can be told."""
    expression = torch.arange(count) % 3
    images = LEVELS[expression][:, None, None, None].repeat(1, 1, size, size)
    return FaceTable(images=images, classes=CLASSES, expression=expression, subject=torch.arange(count) // 5)


class Bright(Recognizer):
    """A judge that tells classes apart by their gray."""

    def recognize(self, images):
        assert images.shape[1:] == (1, self.config.image_size, self.config.image_size)
        level = images.mean((1, 2, 3))
        scores = torch.stack([-(level - center).abs() for center in (-0.8, 0.0, 0.8)], 1)
        return scores[:, : len(self.config.classes)].softmax(1)


def judge(classes=CLASSES):
    return Bright(classes, image_size=40, stem_channels=4, stage_channels=(4,), joint_channels=4)


def test_shares_have_wilson_intervals():
    found = share(torch.arange(50) < 10)
    assert found["value"] == 0.2 and found["faces"] == 50
    low, high = found["ci95"]
    assert (low, high) == pytest.approx((0.1124, 0.3304), abs=1e-4)
    assert share(torch.ones(9, dtype=torch.bool))["ci95"][1] == 1


def test_what_is_unavailable_says_why():
    with pytest.raises(InputError, match="no such thing"):
        unavailable("no such thing")(None)


def test_label_agreement():
    made = gray()
    made.images[0] = 128  # meant to be neutral
    made.expression[4] = -1
    sets = {"real": gray(), "synthesized": made}
    measure = agreement_measure(sets, judge(), None, "another", "cpu")
    found = measure(None)
    assert found["value"] == 28 / 29 and found["faces"] == 29 and "warning" not in found
    assert found["reference"]["value"] == 1 and found["reference"]["on"] == "real"
    assert measure(0)["value"] == 9 / 10 and measure(2)["value"] == 1
    test = gray(9)
    test = test.select(test.expression != 1)
    one = judge()
    measure = agreement_measure(sets, one, test, weights_hash(one), "cpu")
    assert measure(None)["reference"]["on"] == "test" and measure(None)["reference"]["faces"] == 6
    assert "reference" not in measure(1)
    assert "this judge chose the faces" in measure(None)["warning"]


def test_a_judge_that_lacks_a_class():
    sets = {"real": gray(), "synthesized": gray()}
    with pytest.raises(InputError, match="does not know fear"):
        agreement_measure(sets, judge(CLASSES[:2]), None, None, "cpu")(None)


def test_subject_of_the_source():
    real, made = gray(), gray(6).replace(subject=None)
    sets = {"real": real, "synthesized": made}
    source = torch.tensor([0, 6, 12, 18, 24, -1])
    features = {"real": torch.arange(30.0)[:, None], "synthesized": torch.tensor([[0.2], [6.4], [12], [2], [23], [9]])}
    measure = subject_measure(sets, features, source)
    found = measure(None)
    assert (found["value"], found["faces"], found["by"]) == (4 / 5, 5, "subject")  # the fourth looks like somebody else
    assert found["chance"] == pytest.approx(5 / 30) and found["without_source"]["faces"] == 5
    # In a row, five pictures a person: the nearest is the one before, of somebody else for five of them.
    assert (found["real"]["value"], found["real"]["faces"]) == (25 / 30, 30)
    assert measure(0)["faces"] == 2 and measure(2)["faces"] == 1
    unknown = subject_measure({"real": real.replace(subject=None), "synthesized": made}, features, source)(None)
    assert unknown["by"] == "source face" and not {"without_source", "real"} & set(unknown)
    assert unknown["value"] == 3 / 5  # the fifth is nearer to another picture
    alike = sets | {"synthesized": gray(6)}  # the same subject numbers, which need not be the same people
    for rows in (None, torch.full((6,), -1)):
        with pytest.raises(InputError, match="source_file that is in the real set"):
            subject_measure(alike, features, rows)(None)
    real.subject[6] = -1
    assert subject_measure(sets, features, source)(None)["faces"] == 4
    with pytest.raises(InputError, match="no such face"):
        subject_measure(sets, features, torch.tensor([0, -1, -1, -1, -1, -1]))(2)


def test_copies_of_the_own_source_are_told_apart():
    random = torch.randint(0, 256, (12, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    images = nn.functional.interpolate(random, size=(32, 32), mode="bicubic").clamp(0, 255).to(torch.uint8)
    real = gray(12).replace(images=images)
    made = gray(4).replace(images=images[[3, 5, 7, 9]].flip(-1))
    source = torch.tensor([3, 4, -1, 9])
    found = copies_measure(
        {"real": real, "synthesized": made}, find_copies(images, made.images), source, seed=0
    )  # fmt: skip
    assert found(None)["kinds"] == {"exact": 0, "near": 0, "mirrored": 4, "cropped": 0}
    assert found(None)["of_own_source"] == 2 and found(None)["real"]["faces"] == 4
    assert "real" not in found(1) and found(1)["value"] == 1


def test_lpips_needs_its_weights(monkeypatch, tmp_path):
    class Difference(nn.Module):
        def forward(self, a, b):
            return (a - b).abs().flatten(1).mean(1)

    weights = tmp_path / "alexnet.pth"
    monkeypatch.setattr(quality_numbers, "lpips_weights", lambda: weights)
    monkeypatch.setattr(quality_numbers, "LpipsDistance", Difference)
    random = torch.randint(0, 256, (9, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    real = gray(9, 8).replace(images=random)
    made = gray(7, 8).replace(images=random[:7].clone())
    made.images[made.expression == 0] = 7
    sets = {"real": real, "synthesized": made.select(made.expression < 2)}
    with pytest.raises(InputError, match="alexnet.pth.*not downloaded"):
        lpips_measure(sets, 0, "cpu")(None)
    weights.touch()
    measure = lpips_measure(sets, 0, "cpu")
    assert measure(0)["value"] == 0 and measure(0)["real"] > 0 and measure(1)["value"] > 0
    assert measure(None)["value"] == pytest.approx(measure(1)["value"] / 2)
    with pytest.raises(InputError, match="no synthesized face of fear"):
        measure(2)
