import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, recall_score

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS, FER2013_CODES
from synthmtl.metrics import METRICS, bootstrap_intervals, compare_paired, minority_classes, share_of_gap

CLASSES = ("neutral", "happiness", "sadness", "surprise")


def predictions(truth, skill, seeds=3, seed=0):
    """(S, N) predictions that are right with probability ``skill`` and else any class."""
    rng = np.random.default_rng(seed)
    right = rng.random((seeds, len(truth))) < skill
    return np.where(right, truth, rng.integers(4, size=right.shape))


TRUTH = np.random.default_rng(9).integers(4, size=500)


@pytest.mark.parametrize("metric", METRICS)
def test_a_method_against_itself_differs_by_exactly_nothing(metric):
    a = predictions(TRUTH, 0.5)
    result = compare_paired(a, a, TRUTH, CLASSES, metric=metric, minority=["surprise"])
    assert (result.difference, result.ci95, result.per_seed) == (0.0, [0.0, 0.0], [0.0, 0.0, 0.0])


@pytest.mark.parametrize("metric", METRICS)
def test_all_right_against_all_wrong_differs_by_one(metric):
    right, wrong = np.tile(TRUTH, (3, 1)), np.tile((TRUTH + 1) % 4, (3, 1))
    result = compare_paired(right, wrong, TRUTH, CLASSES, metric=metric, minority=["surprise"])
    assert (result.difference, result.ci95) == (1.0, [1.0, 1.0])
    assert compare_paired(wrong, right, TRUTH, CLASSES, metric=metric, minority=["surprise"]).difference == -1.0


def test_difference_is_the_mean_of_the_differences_per_seed():
    a, b = predictions(TRUTH, 0.6), predictions(TRUTH, 0.4, seed=1)
    result = compare_paired(a, b, TRUTH, CLASSES, metric="macro_f1")
    by_hand = [
        f1_score(TRUTH, x, average="macro") - f1_score(TRUTH, y, average="macro") for x, y in zip(a, b, strict=True)
    ]
    assert result.per_seed == pytest.approx(by_hand)
    assert result.difference == pytest.approx(np.mean(by_hand))
    assert result.ci95[0] < result.difference < result.ci95[1]
    assert result.faces == 500


def test_minority_recall_is_the_mean_recall_of_the_classes_named():
    a, b = predictions(TRUTH, 0.6, seeds=1), predictions(TRUTH, 0.4, seeds=1, seed=1)
    result = compare_paired(a, b, TRUTH, CLASSES, metric="minority_recall", minority=["sadness", "surprise"])
    recalls = [recall_score(TRUTH, rows[0], average=None)[2:].mean() for rows in (a, b)]
    assert result.difference == pytest.approx(recalls[0] - recalls[1])


def test_swapping_the_methods_turns_the_interval_around():
    a, b = predictions(TRUTH, 0.6), predictions(TRUTH, 0.4, seed=1)
    forth, back = compare_paired(a, b, TRUTH, CLASSES), compare_paired(b, a, TRUTH, CLASSES)
    assert back.difference == -forth.difference
    assert back.ci95 == pytest.approx([-forth.ci95[1], -forth.ci95[0]])


def test_pairing_by_face_sees_a_small_gain_that_separate_intervals_cannot():
    b = predictions(TRUTH, 0.5, seeds=1)
    a = b.copy()
    wrong = np.flatnonzero(b[0] != TRUTH)[:15]
    a[0, wrong] = TRUTH[wrong]  # the same answers but for 15 of 500 faces put right
    result = compare_paired(a, b, TRUTH, CLASSES, metric="accuracy")
    assert result.difference == pytest.approx(15 / 500)
    assert result.ci95[0] > 0
    alone = [bootstrap_intervals(rows, TRUTH, CLASSES)["accuracy"] for rows in (a, b)]
    assert alone[0][0] < alone[1][1]


def test_two_methods_of_equal_skill_are_told_apart_about_as_seldom_as_promised():
    false_alarms = 0
    for trial in range(100):
        truth = np.random.default_rng(1000 + trial).integers(4, size=200)
        a, b = (predictions(truth, 0.5, seeds=1, seed=2 * trial + i) for i in (0, 1))
        low, high = compare_paired(a, b, truth, CLASSES, metric="accuracy", samples=300, seed=trial).ci95
        false_alarms += not low <= 0 <= high
    assert false_alarms <= 12


def test_probabilities_and_missing_labels_are_understood():
    a, b = predictions(TRUTH, 0.6), predictions(TRUTH, 0.4, seed=1)
    truth = torch.as_tensor(np.where(np.arange(500) < 50, -1, TRUTH))
    as_probabilities = torch.eye(4)[torch.as_tensor(a)]
    assert compare_paired(as_probabilities, b, truth, CLASSES) == compare_paired(
        a[:, 50:], b[:, 50:], TRUTH[50:], CLASSES
    )


def test_entry_of_the_report_names_the_methods():
    a, b = predictions(TRUTH, 0.6), predictions(TRUTH, 0.4, seed=1)
    entry = compare_paired(a, b, TRUTH, CLASSES).as_dict("gated", "plain")
    assert (entry["a"], entry["b"], entry["metric"], entry["paired_by"]) == ("gated", "plain", "macro_f1", "seed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": predictions(TRUTH, 0.5, seeds=2)}, "same seeds"),
        ({"b": predictions(TRUTH[:-1], 0.5)}, "labels"),
        ({"metric": "auc"}, "unknown metric 'auc'"),
        ({"metric": "minority_recall"}, "none given"),
        ({"confidence": 95}, "confidence"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"a": predictions(TRUTH, 0.6), "b": predictions(TRUTH, 0.4)} | change
    with pytest.raises(InputError, match=message):
        compare_paired(arguments.pop("a"), arguments.pop("b"), TRUTH, CLASSES, **arguments)


def test_share_of_gap_is_0_for_plain_1_for_the_oracle_and_half_in_between():
    right = np.tile(TRUTH, (2, 1))
    plain, half = right.copy(), right.copy()
    plain[:, :100] = (TRUTH[:100] + 1) % 4
    half[:, :50] = (TRUTH[:50] + 1) % 4
    shares = [share_of_gap(m, plain, right, TRUTH, CLASSES, metric="accuracy") for m in (plain, half, right)]
    assert [one.share for one in shares] == pytest.approx([0, 0.5, 1])
    assert shares[0].ci95 == [0, 0] and shares[2].ci95 == [1, 1]
    assert shares[1].ci95[0] < 0.5 < shares[1].ci95[1]
    assert shares[1].gap == pytest.approx(0.2)
    assert shares[1].gap_ci95[0] < 0.2 < shares[1].gap_ci95[1]


@pytest.mark.parametrize("oracle_skill", [0.5, 0.2])
def test_no_share_is_given_where_the_gap_is_not_above_zero(oracle_skill):
    plain, oracle = predictions(TRUTH, 0.5), predictions(TRUTH, oracle_skill, seed=2)
    result = share_of_gap(predictions(TRUTH, 0.6, seed=1), plain, oracle, TRUTH, CLASSES)
    assert result.share is None and result.ci95 is None
    assert result.gap_ci95[0] <= result.gap <= result.gap_ci95[1]
    assert result.as_dict("gated")["share"] is None


def test_minority_classes_of_known_counts():
    tail = dict(zip(EXPRESSIONS, (400, 400, 250, 250, 120, 20, 20, 20), strict=True))
    assert minority_classes(tail) == ("disgust", "anger", "contempt")
    fer2013 = dict(zip(("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
                       (3793, 415, 3808, 6865, 4710, 4592, 2860), strict=True))  # fmt: skip
    assert set(fer2013) == set(FER2013_CODES)
    assert minority_classes(fer2013) == ("disgust",)
    assert minority_classes(dict.fromkeys(EXPRESSIONS, 100)) == ()
    assert minority_classes({}) == ()
    assert minority_classes(tail, {"anger": 3, "disgust": 0, "neutral": 9}) == ("anger",)
