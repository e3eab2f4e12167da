"""Means over seeds of what was recorded, and their intervals."""

import pytest

from synthmtl.study.series import mean_gates, over_time, seed_interval, series


def looks(*values):
    return [{"step": 20 * i, "gate": "pass", "mean": value} for i, value in enumerate(values)]


def test_records_become_series():
    records = looks(0.1, 0.2) + [{"step": 0, "gate": "take", "mean": 0.5}]
    assert series(records, ("gate",), "mean") == [
        {"gate": "pass", "steps": [0, 20], "values": [0.1, 0.2]},
        {"gate": "take", "steps": [0], "values": [0.5]},
    ]


def test_means_and_intervals_are_over_seeds():
    each = [series(looks(*values), ("gate",), "mean") for values in ((0.1, 0.4), (0.2, None), (0.3, 0.8))]
    (found,) = over_time(each, ("gate",))
    assert found["gate"] == "pass" and found["steps"] == [0, 20]
    assert found["mean"] == [pytest.approx(0.2), pytest.approx(0.6)]
    low, high = found["ci95"][0]
    assert 0.1 <= low < 0.2 < high <= 0.3
    assert found["ci95"][1] is None  # a seed has no number there


def test_few_seeds_have_no_interval():
    assert seed_interval([0.1, 0.2], 2) is None and seed_interval([0.1, 0.2, 0.3], 4) is None
    assert seed_interval([0.5] * 3, 3) == [0.5, 0.5]
    assert over_time([[], []], ("gate",)) == []


def test_channels_of_seeds_are_put_in_order_before_they_are_averaged():
    def gate(channels, mean):
        place = {"stage": 0, "direction": "1_to_0", "gate": "pass", "mean": mean, "spread": 0.1}
        return [place | {"channels": channels, "expressions": {"fear": mean}}]

    (found,) = mean_gates([gate([0.9, 0.1], 0.5), gate([0.2, 0.6], 0.4)])
    assert found["channels"] == pytest.approx([0.15, 0.75])
    assert found["mean"] == pytest.approx(0.45) and found["expressions"] == {"fear": pytest.approx(0.45)}
    assert found["ci95"] is None
