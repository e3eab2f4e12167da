import numpy as np
import pytest

from synthmtl.errors import InputError
from synthmtl.metrics.bootstrap import interval, mean_of_defined, mean_over_seeds, resampled_sums


def test_interval_of_a_mean_is_the_one_that_theory_gives():
    values = np.random.default_rng(0).normal(2.0, 1.0, size=(1, 1, 1000, 1))
    statistics = np.concatenate([values, np.ones_like(values)], -1)
    sums, seeds = resampled_sums(statistics, samples=2000, seed=0)
    low, high = interval(mean_over_seeds(sums[..., 0] / sums[..., 1], seeds)[0], 0.95)
    half_width = 1.96 * values.std() / np.sqrt(1000)
    assert low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)
    assert (sums[..., 1] == 1000).all()


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
