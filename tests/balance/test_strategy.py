import numpy as np
import pytest

from synthmtl.balance.strategy import resolve_strategy, strategy_for_report
from synthmtl.errors import InputError

COUNTS = {"neutral": 10, "happiness": 7, "fear": 2}


@pytest.mark.parametrize(
    ("strategy", "added"),
    [
        ("auto", (0, 3, 8)),
        ("not majority", (0, 3, 8)),
        ("minority", (0, 0, 8)),
        ("not minority", (0, 3, 0)),
        ("all", (0, 3, 8)),
        ("cover", (5, 8, 13)),
        ({"fear": 5}, (0, 0, 3)),
        ({"Scared": 5, "happy": 7}, (0, 0, 3)),
        (lambda counts: {name: 12 for name in counts}, (2, 5, 10)),
    ],
)
def test_known_answers(strategy, added):
    assert resolve_strategy(COUNTS, strategy) == dict(zip(COUNTS, added, strict=True))


def test_ratio_is_for_two_classes():
    assert resolve_strategy({"neutral": 100, "fear": 3}, 0.29) == {"neutral": 0, "fear": 26}
    with pytest.raises(InputError, match="two classes only"):
        resolve_strategy(COUNTS, 0.5)
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        resolve_strategy({"neutral": 100, "fear": 3}, 1.5)
    with pytest.raises(InputError, match="only adds"):
        resolve_strategy({"neutral": 100, "fear": 30}, 0.1)


@pytest.mark.parametrize("ratio", [1, 1.0, np.float32(1), np.int64(1)])
def test_any_number_is_a_ratio(ratio):
    counts = {"neutral": 10, "fear": 3}
    assert resolve_strategy(counts, ratio) == {"neutral": 0, "fear": 7}
    assert strategy_for_report(counts, ratio) == "ratio 1"
    assert resolve_strategy(counts, np.float32(0.8)) == {"neutral": 0, "fear": 5}
    assert strategy_for_report(counts, np.float32(0.8)) == "ratio 0.8"


def test_equal_classes_need_nothing():
    for strategy in ("auto", "all", "minority", "not minority"):
        assert sum(resolve_strategy({"neutral": 4, "fear": 4}, strategy).values()) == 0


def test_absent_classes_only_on_request():
    counts = {"neutral": 4, "disgust": 0, "anger": 1}
    assert resolve_strategy(counts, "all") == {"neutral": 0, "disgust": 0, "anger": 3}
    assert resolve_strategy(counts, "minority") == {"neutral": 0, "disgust": 0, "anger": 3}
    assert resolve_strategy(counts, {"disgust": 2}) == {"neutral": 0, "disgust": 2, "anger": 0}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("most", "unknown strategy 'most'"),
        ("{fear:5}", "with a space after each colon"),
        ({"anger": 5}, "'anger'"),
        ({"joyous": 5}, "'joyous'"),
        ({"fear": 1}, "only adds"),
        ({"fear": 5, "scared": 6}, "twice"),
        ({"fear": 5.5}, "whole number"),
        (lambda counts: 3, "must return"),
        (7, "two classes only"),
        (True, "True is none of"),
        (None, "is none of"),
    ],
)
def test_bad_strategies_are_named(strategy, message):
    with pytest.raises(InputError, match=message):
        resolve_strategy(COUNTS, strategy)


def test_no_faces():
    with pytest.raises(InputError, match="nothing to balance"):
        resolve_strategy({"neutral": 0, "fear": 0}, "auto")


def test_report_states_name_or_totals():
    assert strategy_for_report(COUNTS, "minority") == "minority"
    assert strategy_for_report({"neutral": 4, "fear": 1}, 0.5) == "ratio 0.5"
    assert strategy_for_report(COUNTS, {"fear": 5}) == {"neutral": 10, "happiness": 7, "fear": 5}
