"""Mixtures: what the joined table keeps of each data set, and the shares that every batch, process and run holds."""

import dataclasses
from fractions import Fraction

import pytest
import torch

from synthmtl.data import FaceTable
from synthmtl.data.mixture import MixtureSampler, describe, join, usable_labels
from synthmtl.data.sampling import shard
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, TASKS

SIZES = (57, 13, 5)
DOMAIN = torch.cat([torch.full((size,), position) for position, size in enumerate(SIZES)])
SAMPLINGS = ["size", "equal", "temperature", {"b": 0.3, "a": 0.65, "c": 0.05}, {0: 1, 1: 3, "2": 0}]


def sampler(sampling="size", batch_size=8, seed=0, **options):
    return MixtureSampler(DOMAIN, batch_size, seed, sampling=sampling, names=("a", "b", "c"), **options)


def by_domain(rows):
    return torch.bincount(DOMAIN[rows], minlength=3)


@pytest.fixture
def tables(faces):
    """Expressions of two persons, landmarks of one, and faces with everything."""
    landmarks = torch.full((2, 68, 2), float("nan"))
    landmarks[0, 30] = 0.5
    return {
        "photos": FaceTable(
            images=faces(3),
            classes=("happiness", "anger"),
            expression=torch.tensor([0, 1, -1]),
            subject=torch.tensor([900, 4, -1]),
            session=torch.tensor([1, 1, -1]),
        ),
        "points": FaceTable(
            images=faces(2, seed=1), classes=("neutral",), landmarks=landmarks, subject=torch.tensor([0, 0])
        ),
        "all": FaceTable(
            images=faces(2, seed=2),
            classes=("neutral", "anger"),
            expression=torch.tensor([1, -1]),
            compound=torch.tensor([-1, 3]),
            action_units=torch.rand(2, len(ACTION_UNITS)),
            landmarks=torch.rand(2, 68, 2),
            valence_arousal=torch.rand(2, 2),
            subject=torch.tensor([4, 5]),
            session=torch.tensor([0, 1]),
            domain=torch.tensor([7, 7]),
        ),
    }


def test_usable_labels_count_rows(tables):
    assert usable_labels(tables["photos"]) == dict.fromkeys(TASKS, 0) | {"expression": 2}
    assert usable_labels(tables["points"]) == dict.fromkeys(TASKS, 0) | {"landmarks": 1}
    assert usable_labels(tables["all"]) == dict.fromkeys(TASKS, 2) | {"expression": 1, "compound": 1}
    half = tables["points"].landmarks.clone()
    half[..., 1] = float("nan")
    assert not any(usable_labels(tables["points"].replace(landmarks=half)).values())


def test_describe_names_what_each_data_set_carries(tables):
    text = describe(tables)
    assert text.startswith("photos: 3 faces: expression 2; points: 2 faces: landmarks 1; all: 2 faces: expression 1, ")
    assert describe({"none": tables["points"].select([1])}) == "none: 1 faces: no label"


def test_join_keeps_every_label_and_where_it_is_from(tables):
    joined = join(tables)
    assert joined.classes == ("neutral", "happiness", "anger")
    assert joined.domain.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert joined.expression.tolist() == [1, 2, -1, -1, -1, 2, -1]
    assert joined.compound.tolist() == [-1] * 6 + [3]
    for name in ("landmarks", "action_units", "valence_arousal"):
        parts = torch.cat([getattr(table, name) for table in tables.values()])
        assert torch.equal(getattr(joined, name).nan_to_num(-9), parts.nan_to_num(-9))
    batch = joined.batch(torch.tensor([6, 3]))
    assert batch.domain.tolist() == [2, 1] and batch.compound.tolist() == [3, -1]


def test_people_of_different_data_sets_are_different(tables):
    joined = join(tables)
    people = joined.subject.tolist()
    assert people[2] == -1 and people[3] == people[4]
    assert len({*people} - {-1}) == 5  # 900 and 4, then 0, then another 4 and 5
    assert len({*joined.session.tolist()} - {-1}) == 3 and joined.session.tolist()[:2] == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {}, "at least one"),
        (lambda t: t | {"photos": t["photos"].select([])}, "photos: has no faces"),
        (lambda t: t | {"all": t["all"].replace(images=t["all"].images[..., :8, :8])}, "all: .* 1x8x8.*photos 1x16x16"),
        (lambda t: t | {"all": t["all"].replace(images=t["all"].images.expand(-1, 3, -1, -1))}, "3x16x16"),
        (lambda t: t | {"points": t["points"].select([1])}, "points: has no usable label"),
    ],
)
def test_data_that_cannot_be_mixed_are_named(tables, change, message):
    with pytest.raises(InputError, match=message) as error:
        join(change(tables))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("batch_size", [7, 64])
def test_every_batch_holds_each_share_up_to_rounding_and_a_run_without_drift(sampling, batch_size):
    mixed = sampler(sampling, batch_size)
    shares = torch.tensor(list(mixed.shares.values()), dtype=torch.float64)
    assert shares.sum() == pytest.approx(1)
    total = torch.zeros(3, dtype=torch.float64)
    for step in range(200):
        counts = by_domain(mixed.indices(step))
        assert counts.sum() == batch_size
        assert ((counts - batch_size * shares).abs() < 1).all()
        total += counts
        assert ((total - (step + 1) * batch_size * shares).abs() < 3.5).all()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("size", [Fraction(size, 75) for size in SIZES]),
        ("equal", [Fraction(1, 3)] * 3),
        ({"a": 0.65, "b": 0.3, "c": 0.05}, [Fraction(13, 20), Fraction(3, 10), Fraction(1, 20)]),
        ({0: 1, 1: 3, 2: 0}, [Fraction(1, 4), Fraction(3, 4), Fraction(0)]),
    ],
)
def test_shares_are_exact_over_a_period(sampling, expected):
    mixed = sampler(sampling)
    steps = 2 * 75 * 20 // 5
    total = sum(by_domain(mixed.indices(step)) for step in range(steps))
    assert total.tolist() == [8 * steps * share for share in expected]


def test_temperature_lies_between_size_and_equal():
    shares = sampler("temperature", temperature=2.0).shares
    roots = torch.tensor(SIZES).double().sqrt()
    assert list(shares.values()) == pytest.approx((roots / roots.sum()).tolist())
    assert sampler("temperature", temperature=1.0).shares == pytest.approx(sampler("size").shares)
    assert sampler("temperature", temperature=1e9).shares == pytest.approx(sampler("equal").shares)


def test_by_size_an_epoch_holds_each_face_once():
    mixed = sampler("size", batch_size=15)
    assert torch.equal(torch.cat([mixed.indices(step) for step in range(5)]).sort().values, torch.arange(75))


def test_within_a_data_set_rows_come_in_cycles():
    mixed = sampler("equal", batch_size=9)
    drawn = torch.cat([mixed.indices(step) for step in range(38)])
    for position, size in enumerate(SIZES):
        own = drawn[DOMAIN[drawn] == position]
        cycles = own[: len(own) // size * size].view(-1, size).sort(1).values
        assert len(cycles) and (cycles == torch.where(DOMAIN.eq(position))[0]).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_batch_depends_on_seed_and_step_only(sampling):
    straight = sampler(sampling)
    run = [straight.indices(step) for step in range(12)]
    resumed = sampler(sampling)
    for step in (7, 8, 9, 10, 11, 0, 3):
        assert torch.equal(resumed.indices(step), run[step])
    other = sampler(sampling, seed=1)
    assert not torch.equal(torch.cat([other.indices(step) for step in range(12)]), torch.cat(run))


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_process_gets_a_fair_part_and_together_they_get_the_batch(sampling, world):
    mixed = sampler(sampling, batch_size=16)
    for step in range(20):
        batch = mixed.indices(step)
        parts = [shard(batch, rank, world) for rank in range(world)]
        assert torch.equal(torch.stack(parts, 1).flatten(), batch)
        counts = torch.stack([by_domain(part) for part in parts])
        assert ((counts - by_domain(batch) / world).abs() < 1).all()


def test_a_weight_of_zero_leaves_a_data_set_out_and_rows_restrict_it():
    rows = torch.tensor([0, 3, 60, 61])
    mixed = MixtureSampler(DOMAIN, 6, 0, sampling="equal", rows=rows)
    assert list(mixed.shares) == ["0", "1"]
    assert set(mixed.indices(0).tolist()) == {0, 3, 60, 61}
    alone = sampler({"a": 1, "b": 0, "c": 0})
    assert (DOMAIN[alone.indices(3)] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "sizes"}, "unknown sampling 'sizes': use size, equal, temperature"),
        ({"sampling": "temperature", "temperature": 0.0}, "temperature is 0.0"),
        ({"sampling": {"a": 1, "b": 1, "c": 1, "d": 1}}, "'d', which is none of a, b, c"),
        ({"sampling": {"a": 1, 0: 1, "b": 1, "c": 1}}, "two weights for a"),
        ({"sampling": {"a": 1, "b": 1}}, "no weight for c"),
        ({"sampling": {"a": 0, "b": 0.0, "c": 0}}, "all weights are 0"),
        ({"sampling": {"a": 1, "b": -0.5, "c": 0}}, "weight of b is -0.5"),
        ({"sampling": {"a": 1, "b": float("nan"), "c": 0}}, "weight of b is nan"),
        ({"sampling": {"a": 1, "b": "0.5", "c": 0}}, "weight of b is '0.5': it must be a number"),
        ({"sampling": {"a": 1, "b": None, "c": 0}}, "weight of b is None: it must be a number"),
        ({"sampling": {"a": 1, "b": True, "c": 0}}, "weight of b is True: it must be a number"),
        ({"sampling": {"a": 1, "b": 1e-310, "c": 0}}, "b would never come up by a weight of 1e-310"),
        ({"sampling": "temperature", "temperature": None}, "temperature is None"),
        ({"sampling": "temperature", "temperature": 1e-4}, "temperature is 0.0001: b would never come up: raise it"),
        ({"sampling": "temperature", "temperature": 2e-3}, "temperature is 0.002: b would never come up"),
        ({"sampling": "equal", "rows": torch.arange(60)}, "c: has no faces to sample"),
        ({"sampling": "equal", "rows": torch.arange(0)}, "needs rows"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_impossible_mixtures_are_refused(options, message):
    with pytest.raises(InputError, match=message) as error:
        sampler(**options)
    assert "\n" not in str(error.value)


def test_every_column_of_a_batch_survives_the_mixture(tables):
    joined = join(tables)
    alone = tables["all"].batch([1, 0])
    mixed = joined.batch([6, 5])
    for field in dataclasses.fields(alone):
        if field.name in ("expression", "expression_distribution", "subject", "domain"):
            continue
        assert torch.equal(getattr(mixed, field.name).nan_to_num(-9), getattr(alone, field.name).nan_to_num(-9))
