"""Samplers: what every batch and every epoch must hold, whatever the order in which they are asked for."""

import pytest
import torch

from synthmtl.data.sampling import ClassBalancedSampler, EpochSampler, MixedSampler, WeightedSampler, shard
from synthmtl.errors import InputError

LABELS = torch.tensor([0] * 40 + [1] * 7 + [2] * 1 + [-1] * 5 + [4] * 12)


def samplers():
    epoch = EpochSampler(torch.arange(23) * 2, 8, seed=1)
    balanced = ClassBalancedSampler(LABELS, 10, seed=2)
    weighted = WeightedSampler(torch.tensor([0.0, 1.0, 3.0, 0.0]), 6, seed=3)
    return [epoch, balanced, weighted, MixedSampler([(epoch, 3), (balanced, 5), (weighted, 2)])]


@pytest.mark.parametrize("which", range(4))
def test_a_batch_depends_on_the_step_only(which):
    forward = [samplers()[which].indices(step) for step in range(6)]
    sampler = samplers()[which]
    for step in (5, 2, 0, 4, 4, 1, 3):
        batch = sampler.indices(step)
        assert batch.dtype == torch.int64 and batch.shape == (sampler.batch_size,)
        assert torch.equal(batch, forward[step])
    assert not all(torch.equal(forward[0], batch) for batch in forward[1:])


def test_another_seed_gives_another_order():
    rows = torch.arange(100)
    assert not torch.equal(EpochSampler(rows, 50, 0).indices(0), EpochSampler(rows, 50, 1).indices(0))


def test_an_epoch_holds_each_row_once():
    rows = torch.arange(100, 123)
    sampler = EpochSampler(rows, 8, seed=0)
    stream = torch.cat([sampler.indices(step) for step in range(23)])
    epochs = stream.view(8, 23)
    assert all(torch.equal(epoch.sort().values, rows) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_larger_than_the_split_takes_several_epochs():
    batch = EpochSampler(torch.arange(3), 7, seed=0).indices(0)
    assert sorted(batch.bincount().tolist()) == [2, 2, 3]


@pytest.mark.parametrize("size", [8, 10, 11, 3])
def test_classes_are_equally_frequent(size):
    sampler = ClassBalancedSampler(LABELS, size, seed=0)
    batches = [LABELS[sampler.indices(step)] for step in range(4)]
    for batch in batches:
        counts = torch.bincount(batch, minlength=5)[[0, 1, 2, 4]]
        assert counts.max() - counts.min() <= 1
    # After four batches each of the four classes has had the remainder equally often.
    assert torch.bincount(torch.cat(batches), minlength=5).tolist() == [size, size, size, 0, size]


def test_within_a_class_rows_come_in_cycles():
    sampler = ClassBalancedSampler(LABELS, 4, seed=0)
    drawn = torch.cat([sampler.indices(step) for step in range(40)])
    assert torch.equal(drawn[LABELS[drawn] == 0].sort().values, torch.arange(40))
    second = drawn[LABELS[drawn] == 1]
    assert all(torch.equal(second[i : i + 7].sort().values, torch.arange(40, 47)) for i in range(0, 35, 7))


def test_balancing_keeps_to_the_rows_given():
    rows = torch.tensor([1, 2, 41, 60])
    sampler = ClassBalancedSampler(LABELS, 6, seed=0, rows=rows)
    assert set(sampler.indices(0).tolist()) == set(rows.tolist())


def test_weights_are_frequencies():
    sampler = WeightedSampler(torch.tensor([0.0, 1.0, 3.0, 0.0]), 4000, seed=0)
    counts = torch.bincount(sampler.indices(0), minlength=4)
    assert counts[0] == counts[3] == 0
    assert abs(int(counts[1]) - 1000) < 120


def test_a_mixed_batch_has_fixed_shares_and_so_have_its_shards():
    real, made = EpochSampler(torch.arange(50), 4, 0), EpochSampler(torch.arange(100, 120), 4, 0)
    sampler = MixedSampler([(real, 6), (made, 2)])
    assert sampler.batch_size == 8 and sampler.counts == [6, 2]
    for step in range(5):
        batch = sampler.indices(step)
        assert (batch[:6] < 50).all() and (batch[6:] >= 100).all()
        for rank in range(2):
            assert (shard(batch, rank, 2, sampler.counts) >= 100).tolist() == [False] * 3 + [True]


def test_shards_partition_the_batch():
    batch = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shards = [shard(batch, rank, 3) for rank in range(3)]
    assert [len(part) for part in shards] == [4, 4, 4]
    assert torch.equal(torch.stack(shards, 1).flatten(), batch)


@pytest.mark.parametrize("counts, message", [(None, "batch of 10"), ([8, 2], "part of the batch of 2")])
def test_a_batch_that_does_not_divide_is_refused(counts, message):
    with pytest.raises(InputError, match=message):
        shard(torch.arange(10), 0, 4, counts)


@pytest.mark.parametrize(
    "build",
    [
        lambda: EpochSampler(torch.empty(0, dtype=torch.int64), 4, 0),
        lambda: EpochSampler(torch.arange(3), 0, 0),
        lambda: ClassBalancedSampler(torch.tensor([-1, -1]), 4, 0),
        lambda: WeightedSampler(torch.zeros(3), 4, 0),
        lambda: WeightedSampler(torch.tensor([1.0, -1.0]), 4, 0),
        lambda: WeightedSampler(torch.tensor([1.0, float("nan")]), 4, 0),
        lambda: MixedSampler([]),
    ],
)
def test_impossible_samplers_are_refused(build):
    with pytest.raises(InputError):
        build()
