import pytest

from synthmtl.errors import InputError
from synthmtl.interference import filtering_ratio

BEFORE = {"expression": 0.5, "subject": 0.8, "light": 0.4}


@pytest.mark.parametrize(
    ("behind", "filtering", "retention", "selectivity"),
    [
        (BEFORE, 0, 1, 0),  # passes everything
        (dict.fromkeys(BEFORE, 0.0), 1, 0, 0),  # passes nothing
        ({"expression": 0.25, "subject": 0.4, "light": 0.2}, 0.5, 0.5, 0),  # halves everything
        ({"expression": 0.5, "subject": 0.0, "light": 0.0}, 1, 1, 1),  # perfect
        ({"expression": 0.0, "subject": 0.8, "light": 0.4}, 0, 0, -1),  # the wrong way around
        ({"expression": 0.5, "subject": 0.8, "light": 1.0}, -0.5, 1, -0.5),  # adds a nuisance
    ],
)
def test_known_filters(behind, filtering, retention, selectivity):
    found = filtering_ratio(BEFORE, behind)
    assert (found.filtering, found.retention) == pytest.approx((filtering, retention))
    assert found.selectivity == pytest.approx(selectivity)


def test_each_target_on_its_own():
    found = filtering_ratio(BEFORE, {"expression": 0.4, "subject": 0.2, "light": 0.4})
    assert found.by_target == pytest.approx({"expression": 0.8, "subject": 0.75, "light": 0.0})
    assert found.filtering == pytest.approx(0.5)


def test_no_ratio_where_nothing_was_readable():
    found = filtering_ratio(BEFORE | {"light": 0.02}, BEFORE)
    assert found.by_target["light"] is None and found.filtering is not None
    found = filtering_ratio(BEFORE | {"expression": 0.0}, BEFORE)
    assert (found.retention, found.selectivity) == (None, None) and found.filtering == 0
    assert filtering_ratio(dict.fromkeys(BEFORE, 0.0), BEFORE, floor=0).filtering is None


def test_targets_without_a_score_are_left_out():
    found = filtering_ratio(BEFORE | {"yaw": None}, BEFORE | {"yaw": None})
    assert found == filtering_ratio(BEFORE, BEFORE)


@pytest.mark.parametrize(
    ("before", "behind", "message"),
    [
        (BEFORE, {"expression": 1.0}, "same targets"),
        (BEFORE, BEFORE | {"light": -0.1}, "'light' must be corrected"),
        ({"subject": 0.5}, {"subject": 0.5}, "is needed"),
        ({"expression": 0.5}, {"expression": 0.5}, "is not needed"),
    ],
)
def test_bad_usage_is_told(before, behind, message):
    with pytest.raises(InputError, match=message):
        filtering_ratio(before, behind)
