import math
import time

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS_7
from synthmtl.metrics import bootstrap_intervals, recognition_metrics

CLASSES = ("neutral", "happiness", "sadness", "surprise")


def make(count=400, size=4, seed=0, skill=0.5, seeds=None):
    """Probabilities that lean towards the truth, and the truth."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(size, (count,), generator=generator)
    noise = torch.rand((*(() if seeds is None else (seeds,)), count, size), generator=generator)
    return (noise + skill * torch.nn.functional.one_hot(truth, size)).softmax(-1), truth


def test_agrees_with_scikit_learn():
    probabilities, truth = make()
    predicted = probabilities.argmax(1)
    result = recognition_metrics(probabilities, truth, CLASSES)
    assert result.accuracy == pytest.approx((predicted == truth).double().mean().item())
    assert result.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert result.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert list(result.per_class_recall.values()) == pytest.approx(
        recall_score(truth, predicted, average=None).tolist()
    )
    assert list(result.per_class_f1.values()) == pytest.approx(f1_score(truth, predicted, average=None).tolist())
    assert result.confusion == confusion_matrix(truth, predicted).tolist()
    assert (result.count, result.missing, result.absent) == (400, 0, [])


def test_known_answer_by_hand():
    # truth 0 0 0 1, recognized 0 0 1 1: recalls 2/3 and 1, F1 4/5 and 2/3
    probabilities = torch.eye(2)[torch.tensor([0, 0, 1, 1])]
    result = recognition_metrics(probabilities, torch.tensor([0, 0, 0, 1]), ("neutral", "happiness"))
    assert result.accuracy == 0.75
    assert result.balanced_accuracy == pytest.approx(5 / 6)
    assert result.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert result.confusion == [[2, 1], [0, 1]]


def test_classes_absent_from_the_split_are_named_and_left_out_of_macro_averages():
    truth = torch.tensor([0, 0, 1, 1])
    recognized = torch.tensor([0, 2, 1, 1])  # class 2 is recognized once but never true, class 3 neither
    result = recognition_metrics(torch.eye(4)[recognized], truth, CLASSES)
    assert result.absent == ["sadness", "surprise"]
    assert result.per_class_recall["sadness"] is None and result.per_class_f1["surprise"] is None
    assert result.balanced_accuracy == pytest.approx((1 / 2 + 1) / 2)
    assert result.macro_f1 == pytest.approx(f1_score(truth, recognized, average="macro", labels=[0, 1]))


def test_faces_without_a_label_are_counted_and_change_nothing_else():
    probabilities, truth = make()
    with_missing = torch.cat([truth, torch.full((7,), -1)])
    more, _ = make(407, seed=1)
    more[:400] = probabilities
    assert recognition_metrics(more, with_missing, CLASSES).missing == 7
    some, all_ = recognition_metrics(more, with_missing, CLASSES), recognition_metrics(probabilities, truth, CLASSES)
    assert {**some.as_dict(), "missing": 0} == all_.as_dict()


def test_order_of_faces_does_not_matter_and_order_of_classes_only_permutes():
    probabilities, truth = make()
    reference = recognition_metrics(probabilities, truth, CLASSES)
    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(3))
    assert recognition_metrics(probabilities[shuffled], truth[shuffled], CLASSES) == reference
    turned = recognition_metrics(probabilities.flip(1), 3 - truth, CLASSES[::-1])
    assert turned.macro_f1 == pytest.approx(reference.macro_f1)
    assert turned.per_class_recall == reference.per_class_recall


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        (torch.rand(5, 3), torch.zeros(5, dtype=torch.long), "4"),
        (torch.rand(5, 4), torch.zeros(6, dtype=torch.long), "labels"),
        (torch.rand(5, 4), torch.full((5,), -1), "no face"),
        (torch.rand(5, 4), torch.full((5,), 4), "index"),
        (torch.full((5, 4), math.nan), torch.zeros(5, dtype=torch.long), "NaN"),
        (torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long), "faces, classes"),
    ],
)
def test_bad_input_is_named(probabilities, truth, message):
    with pytest.raises(InputError, match=message):
        recognition_metrics(probabilities, truth, CLASSES)


def test_intervals_hold_the_point_and_follow_the_seed():
    probabilities, truth = make()
    point = recognition_metrics(probabilities, truth, CLASSES)
    intervals = bootstrap_intervals(probabilities, truth, CLASSES, minority=["surprise"], seed=1)
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        low, high = intervals[name]
        assert low < getattr(point, name) < high
    low, high = intervals["minority_recall"]
    assert low < point.per_class_recall["surprise"] < high
    again = bootstrap_intervals(probabilities.argmax(1), truth, CLASSES, minority=["surprise"], seed=1)
    assert again == intervals
    assert bootstrap_intervals(probabilities, truth, CLASSES, seed=2)["macro_f1"] != intervals["macro_f1"]


def test_interval_of_accuracy_is_that_of_a_binomial_share():
    probabilities, truth = make(2000)
    share = recognition_metrics(probabilities, truth, CLASSES).accuracy
    low, high = bootstrap_intervals(probabilities, truth, CLASSES, samples=4000)["accuracy"]
    half_width = 1.96 * math.sqrt(share * (1 - share) / 2000)
    assert low == pytest.approx(share - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(share + half_width, abs=0.1 * half_width)


def test_interval_covers_the_true_accuracy_about_as_often_as_it_says():
    covered = []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        truth = rng.integers(4, size=150)
        predicted = np.where(rng.random(150) < 0.7, truth, (truth + 1) % 4)
        low, high = bootstrap_intervals(predicted, truth, CLASSES, samples=300, seed=trial)["accuracy"]
        covered.append(low <= 0.7 <= high)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_seeds_that_disagree_widen_the_interval_and_equal_seeds_do_not():
    probabilities, truth = make()
    one = bootstrap_intervals(probabilities, truth, CLASSES)["accuracy"]
    equal = bootstrap_intervals(torch.stack([probabilities] * 3), truth, CLASSES)["accuracy"]
    assert equal[1] - equal[0] == pytest.approx(one[1] - one[0], rel=0.15)
    good = torch.eye(4)[truth]
    uneven = bootstrap_intervals(torch.stack([probabilities, good, good]), truth, CLASSES)["accuracy"]
    assert uneven[1] - uneven[0] > 3 * (one[1] - one[0])


def test_a_perfect_recognizer_has_no_width():
    _, truth = make()
    assert set(map(tuple, bootstrap_intervals(truth, truth, CLASSES).values())) == {(1.0, 1.0)}


def test_thousand_replicates_of_a_full_test_split_are_quick():
    probabilities, truth = make(3500, 7)
    start = time.perf_counter()
    bootstrap_intervals(probabilities, truth, EXPRESSIONS_7, samples=1000)
    assert time.perf_counter() - start < 2


def test_minority_class_must_be_known_and_in_the_split():
    probabilities, truth = make()
    with pytest.raises(InputError, match="joy"):
        bootstrap_intervals(probabilities, truth, CLASSES, minority=["joy"])
    with pytest.raises(InputError, match="no face"):
        bootstrap_intervals(probabilities[truth != 3], truth[truth != 3], CLASSES, minority=["surprise"])
