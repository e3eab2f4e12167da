import numpy as np
import pytest

from synthmtl.errors import InputError
from synthmtl.metrics.bootstrap import (
    PEOPLE,
    drawn_unit,
    interval,
    mean_of_defined,
    mean_over_seeds,
    people,
    resampled_sums,
)


def test_interval_of_a_mean_is_the_one_that_theory_gives():
    values = np.random.default_rng(0).normal(2.0, 1.0, size=(1, 1, 1000, 1))
    statistics = np.concatenate([values, np.ones_like(values)], -1)
    sums, seeds = resampled_sums(statistics, samples=2000, seed=0)
    low, high = interval(mean_over_seeds(sums[..., 0] / sums[..., 1], seeds)[0], 0.95)
    half_width = 1.96 * values.std() / np.sqrt(1000)
    assert low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)
    assert (sums[..., 1] == 1000).all()


def test_people_are_drawn_with_all_of_their_faces():
    # Faces that say the same as their person does: as many numbers as people, whatever the faces.
    rng = np.random.default_rng(0)
    subject, value = np.arange(400) % 40, rng.normal(size=40)
    statistics = np.stack([value[subject], np.ones(400)], -1)[None, None]
    widths = {}
    for whose in (None, subject, subject - 1):  # -1: nobody knows who
        sums, seeds = resampled_sums(statistics, samples=2000, seed=0, subject=whose)
        low, high = interval(mean_over_seeds(sums[..., 0] / sums[..., 1], seeds)[0], 0.95)
        widths[None if whose is None else whose.min()] = high - low
    assert widths[0] == pytest.approx(2 * 1.96 * value.std() / np.sqrt(40), rel=0.1)
    assert widths[0] / widths[None] == pytest.approx(np.sqrt(10), rel=0.1)
    assert widths[None] < widths[-1] < widths[0] * 1.1


def test_sums_are_those_of_whole_people():
    subject = np.repeat(np.arange(12), 3)[np.random.default_rng(0).permutation(36)]
    statistics = np.eye(12)[subject][None, None]  # who it is
    sums, _ = resampled_sums(statistics, samples=50, seed=0, subject=subject)
    assert (sums % 3 == 0).all() and (sums.sum(-1) == 36).all()


def test_people_who_are_unknown_or_too_few():
    numbers = people(np.array([*range(PEOPLE - 1), 3, -1, -1]))
    assert len(set(numbers)) == PEOPLE + 1 and numbers[3] == numbers[PEOPLE - 1] and numbers[-1] != numbers[-2]
    np.testing.assert_array_equal(people(np.array([0, 0, 1, 1, 2])), np.arange(5))
    assert not len(people(np.array([], dtype=int)))


@pytest.mark.parametrize(
    ("subject", "unit"),
    [
        (np.arange(160) % (PEOPLE - 1), "faces"),
        (np.arange(160) % PEOPLE, "people"),
        (np.array([*range(PEOPLE - 1), 3, -1]), "people"),  # who is unknown is somebody else
        (np.array([0, 0, -1, -1]), "faces"),
        (np.full(160, -1), "faces"),
        (np.array([], dtype=int), "faces"),
    ],
)
def test_what_was_drawn_is_told(subject, unit):
    assert drawn_unit(subject) == unit and drawn_unit(None) == "faces"
    together = len(set(people(subject))) < len(subject)
    assert together == (unit == "people")


def test_methods_see_the_same_faces_and_seeds():
    statistics = np.random.default_rng(0).random((1, 3, 50, 2))
    sums, seeds = resampled_sums(np.concatenate([statistics, 2 * statistics]), samples=100, seed=4)
    np.testing.assert_allclose(sums[1], 2 * sums[0])
    assert seeds.shape == (100, 3) and set(np.unique(seeds)) == {0, 1, 2}
    scores = np.broadcast_to(np.array([1.0, 10.0, 100.0]), (2, 100, 3))
    np.testing.assert_allclose(mean_over_seeds(scores, seeds)[1], 10.0 ** seeds.astype(float) @ np.ones(3) / 3)


def test_undefined_values_are_left_out():
    values = np.array([[1.0, np.nan, 3.0], [np.nan] * 3])
    np.testing.assert_array_equal(mean_of_defined(values), [2.0, np.nan])
    assert interval(np.array([1.0, np.nan, 1.0]), 0.9) == [1.0, 1.0]
    with pytest.raises(InputError, match="between 0 and 1"):
        interval(np.ones(3), 95)
