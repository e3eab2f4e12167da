import pytest
import torch

from synthmtl.balance.accuracy_score import TRAINED_ON, classification_accuracy_score
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

CLASSES = ("neutral", "happiness")


def gratings(count, seed, *, turned=False, size=32):
    """Two classes that any network can tell apart: stripes across and stripes down, with noise."""
    generator = torch.Generator().manual_seed(seed)
    expression = torch.arange(count) % 2
    wave = 128 + 80 * torch.sin(torch.arange(size) * 0.8 + 6 * torch.rand(count, 1, generator=generator))
    lines = wave[:, None, None, :].expand(-1, 1, size, -1)
    across = expression.bool() ^ turned
    images = torch.where(across[:, None, None, None], lines, lines.transpose(2, 3))
    # Blotches of each face's own: stripes that are merely shifted would be one picture, which splits keep together.
    blotches = torch.nn.functional.interpolate(torch.randn(count, 1, 6, 6, generator=generator), (size, size))
    images = images + 30 * blotches + 10 * torch.randn(images.shape, generator=generator)
    return FaceTable(images=images.clamp(0, 255).to(torch.uint8), classes=CLASSES, expression=expression)


def test_good_faces_teach_and_wrong_labels_mislead():
    real, wrong, test = gratings(40, 0), gratings(40, 2, turned=True), gratings(40, 1)
    found = classification_accuracy_score(real, wrong, test=test, steps=20, batch_size=12)
    assert (found["steps"], found["test_faces"], found["held_out"]) == (20, 40, "given")
    assert found["real"]["accuracy"] > 0.9 > 0.1 > found["synthetic"]["accuracy"]
    assert found["synthetic"]["accuracy"] < found["real_and_synthetic"]["accuracy"] < found["real"]["accuracy"]
    for name in TRAINED_ON:
        low, high = found[name]["ci95"]["accuracy"]
        assert low <= found[name]["accuracy"] <= high


def test_without_test_faces_some_real_ones_are_held_out():
    found = classification_accuracy_score(gratings(40, 0, size=24), gratings(10, 2, size=24), steps=1, batch_size=4)
    assert found["test_faces"] == 12 and found["held_out"] == "30 % of the real faces, by image"
    below = classification_accuracy_score(gratings(40, 0), gratings(10, 2), steps=1, batch_size=4, seed=-1)
    assert below["test_faces"] == 12 and below["seed"] == -1


def test_a_class_without_real_faces_is_left_out_of_the_scores():
    wider = (*CLASSES, "fear")
    real, made = gratings(40, 0).with_classes(wider), gratings(12, 2).with_classes(wider)
    made = made.replace(expression=torch.arange(12) % 3)
    found = classification_accuracy_score(real, made, steps=1, batch_size=6)
    assert found["test_faces"] == 12
    narrow = classification_accuracy_score(real.with_classes(CLASSES), gratings(12, 2), steps=1, batch_size=6)
    assert found["held_out"] == narrow["held_out"] and narrow["test_faces"] == 12  # the same split
    for name in TRAINED_ON:
        low, high = found[name]["ci95"]["macro_f1"]
        assert 0 <= low <= found[name]["macro_f1"] <= high <= 1


def test_both_parts_of_the_real_faces_need_two_expressions():
    real = gratings(12, 0).select([0, 2, 4, 6, 8, 1])
    assert list(real.counts().values()) == [5, 1]
    with pytest.raises(InputError, match="two expressions on both sides: add real faces, or give a test set"):
        classification_accuracy_score(real, gratings(12, 2), steps=1)


def test_one_class_teaches_nothing():
    table = gratings(12, 0)
    with pytest.raises(InputError, match="synthesized faces show 1 expressions"):
        classification_accuracy_score(table, table.select(table.expression == 0), steps=1)
