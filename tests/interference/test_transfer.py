import json

import numpy as np
import pytest

from synthmtl.errors import InputError
from synthmtl.interference import relative_gain

SINGLE = {"recognition": {0: 0.4, 1: 0.5, 2: 0.8}, "synthesis": {0: 0.2, 1: 0.1, 2: 0.4}}


def test_by_hand_with_an_error_among_the_measures():
    together = {"recognition": {0: 0.5, 1: 0.5, 2: 0.6}, "synthesis": {2: 0.3, 1: 0.2, 0: 0.1}}
    found = relative_gain(together, SINGLE, lower_is_better=["synthesis"])
    assert found.tasks["recognition"].per_seed == pytest.approx([0.25, 0, -0.25])
    assert found.tasks["synthesis"].per_seed == pytest.approx([0.5, -1, 0.25])
    assert found.overall.per_seed == pytest.approx([0.375, -0.5, 0])
    assert found.overall.delta == pytest.approx(-0.125 / 3)
    assert found.seeds == [0, 1, 2]
    low, high = found.tasks["recognition"].ci95
    assert (low, high) == pytest.approx((-0.25, 0.25))  # some of 2,000 replicates draw one seed three times
    json.dumps(found.as_dict(), allow_nan=False)


def test_the_same_runs_gain_exactly_nothing():
    found = relative_gain(SINGLE, SINGLE, lower_is_better=["synthesis"])
    for gain in (*found.tasks.values(), found.overall):
        assert (gain.delta, gain.ci95, gain.note) == (0.0, [0.0, 0.0], None)


def test_identical_tasks_have_equal_gains():
    together = {task: {0: 0.5, 1: 0.7, 2: 0.9} for task in ("one", "other")}
    found = relative_gain(together, {task: SINGLE["recognition"] for task in together})
    assert found.tasks["one"] == found.tasks["other"] == found.overall


def test_pairing_takes_the_seeds_luck_out_of_the_interval():
    luck = dict(enumerate(np.random.default_rng(0).uniform(0.2, 0.8, 8)))
    found = relative_gain({"t": {s: 1.1 * v for s, v in luck.items()}}, {"t": luck})
    assert found.overall.ci95 == pytest.approx([0.1, 0.1])


def test_two_seeds_are_too_few_for_an_interval():
    two = {"t": {3: 0.5, 4: 0.6}}
    gain = relative_gain(two, {"t": {3: 0.4, 4: 0.5}}).overall
    assert gain.delta == pytest.approx(0.225) and gain.ci95 is None and "2 of the 3 seeds" in gain.note


def test_no_ratio_to_a_measure_that_is_not_above_zero():
    found = relative_gain(SINGLE, SINGLE | {"recognition": {0: 0.0, 1: 0.5, 2: 0.8}})
    gain = found.tasks["recognition"]
    assert gain.delta is None and gain.ci95 is None and gain.per_seed == [None, 0, 0] and "not above zero" in gain.note
    assert found.tasks["synthesis"].delta == 0 and found.overall.delta is None


@pytest.mark.parametrize(
    ("together", "options", "message"),
    [
        ({"recognition": SINGLE["recognition"]}, {}, "same tasks"),
        (SINGLE | {"synthesis": {0: 1.0, 1: 1.0}}, {}, "'synthesis' is not paired by seed: 0, 1 together"),
        (SINGLE | {"synthesis": {0: 1.0, 1: 1.0, 2: float("nan")}}, {}, "'synthesis' is not finite"),
        (SINGLE, {"lower_is_better": ["sythesis"]}, "sythesis"),
    ],
)
def test_bad_usage_is_told(together, options, message):
    with pytest.raises(InputError, match=message):
        relative_gain(together, SINGLE, **options)
