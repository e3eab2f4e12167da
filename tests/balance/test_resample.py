import random
import types

import numpy as np
import pytest
import torch
from sklearn.base import clone

from synthmtl.balance import ExpressionBalancer, calibrate_judge
from synthmtl.errors import InputError

NAMES = ("neutral", "happiness", "sadness", "surprise")


@pytest.fixture
def balancer(job):
    judge = job.make_judge()
    calibration = calibrate_judge(judge, job.make_faces(dict.fromkeys(job.CLASSES, 8), seed=5))

    def make(**options):
        return ExpressionBalancer(generator=job.make_generator(), judge=judge, calibration=calibration, **options)

    return make


class Painter(torch.nn.Module):
    """A generator that turns and brightens faces as it is told by class and seed; identical ones where ``lazy``."""

    classes = NAMES

    def __init__(self, *, channels=1, lazy=()):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.config = types.SimpleNamespace(image_size=8, image_channels=channels, condition="expression")
        self.lazy = lazy

    def synthesize(self, images, target, *, generator, spread):
        noise = torch.stack([torch.randn(images.shape[1:], generator=each) for each in generator])
        idle = torch.tensor([NAMES[k] in self.lazy for k in target.tolist()])[:, None, None, None]
        return torch.where(idle, images, (images.flip(-2) + 0.5 * noise).clamp(-1, 1))


class Agreeable(torch.nn.Module):
    """A judge that sees every expression everywhere."""

    classes = NAMES

    def recognize(self, images):
        return torch.full((len(images), 4), 0.25)


@pytest.fixture
def painter(job):
    judge = Agreeable()
    calibration = calibrate_judge(judge, job.make_faces(dict.fromkeys(NAMES, 5), size=8))

    def make(*, channels=1, lazy=(), **options):
        generator = Painter(channels=channels, lazy=lazy)
        return ExpressionBalancer(generator=generator, judge=judge, calibration=calibration, **options)

    return make


def test_originals_first_then_exactly_what_was_wanted(job, balancer):
    table, sampler = job.make_faces({"neutral": 9, "happiness": 4, "fear": 2}), balancer()
    balanced = sampler.fit_resample(table)
    assert set(balanced.counts().values()) == {9}
    assert torch.equal(balanced.images[:15], table.images) and balanced.files[:15] == table.files
    assert balanced.synthetic.tolist() == [False] * 15 + [True] * 12
    assert sampler.sampling_strategy_ == {"happiness": 5, "fear": 7}
    assert sampler.result_.kept["fear"] == 7


def test_strategy_state_and_options_are_used(job, balancer):
    table = job.make_faces({"neutral": 9, "happiness": 4, "fear": 2})
    first = balancer(sampling_strategy={"fear": 6}, random_state=3, sources="neutral_first", fill="leave")
    images = first.fit_resample(table).images
    assert first.sampling_strategy_ == {"fear": 4}
    assert {record["source_expression"] for record in first.result_.records} == {"neutral"}
    assert sum(first.result_.below_threshold.values()) == 0
    again = balancer(sampling_strategy={"fear": 6}, random_state=3, sources="neutral_first", fill="leave")
    other = balancer(sampling_strategy={"fear": 6}, random_state=4, sources="neutral_first", fill="leave")
    assert torch.equal(images, again.fit_resample(table).images)
    assert first.result_.plan.fingerprint() != (other.fit_resample(table), other.result_.plan.fingerprint())[1]


def test_ratio_with_three_classes_is_refused(job, balancer):
    with pytest.raises(InputError, match="two classes only"):
        balancer(sampling_strategy=0.5).fit_resample(job.make_faces({"neutral": 9, "happiness": 4, "fear": 2}))


def wanted(counts, strategy):
    """Totals by imbalanced-learn's own words."""
    present = {name: count for name, count in counts.items() if count}
    most, least = max(present.values()), min(present, key=present.get)
    largest = max(present, key=present.get)
    chosen = {
        "auto": present.keys() - {largest},
        "not majority": present.keys() - {largest},
        "not minority": present.keys() - {least},
        "minority": {least},
        "all": present.keys(),
    }[strategy]
    return {name: most if name in chosen else count for name, count in counts.items()}


@pytest.mark.parametrize("seed", range(12))
def test_counts_are_exactly_those_asked_for_or_it_says_why_not(job, painter, seed):
    draw = random.Random(seed)
    counts = {name: draw.choice((0, 1, 2, 5, 9)) for name in NAMES}
    counts |= {name: max(2, counts[name]) for name in draw.sample(NAMES, 2)}
    table = job.make_faces(counts, size=8, subjects=draw.choice((0, 3)), seed=seed)
    totals = {name: count + draw.randrange(6) for name, count in counts.items()}
    lazy = draw.sample(NAMES, 1) if seed % 3 == 0 else ()
    cases = [(name, wanted(counts, name)) for name in ("auto", "minority", "not minority", "not majority", "all")]
    for strategy, expected in [*cases, (totals, totals), (lambda found: {n: found[n] + 2 for n in found}, None)]:
        expected = expected or {name: count + 2 for name, count in counts.items()}
        sampler = painter(sampling_strategy=strategy, random_state=seed, lazy=lazy, max_uses=draw.choice((None, 2)))
        found, result = sampler.fit_resample(table).counts(), sampler.result_
        assert {name: found[name] + result.missing[name] for name in NAMES} == expected
        short = {name for name, count in result.missing.items() if count}
        assert short == set(result.shortfalls)
        # Nobody but the idle painter and the cap on uses keeps a class from its count.
        for name in short:
            assert name in lazy or result.plan.unsourced[name] == result.missing[name]
            assert f"{name}: of " in result.shortfalls[name]
            why = result.shortfalls[name]
            assert ("unchanged" in why) == (name in lazy and bool(result.missing[name] - result.plan.unsourced[name]))
            assert ("had no source left" in why) == bool(result.plan.unsourced[name])


def faces_of(shape, kind):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return images if kind == "numpy" else torch.from_numpy(images)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("shape", [(7, 8, 8), (7, 1, 8, 8), (7, 8, 8, 1), (7, 3, 8, 8), (7, 8, 8, 3)])
def test_arrays_come_back_as_they_went_in(painter, shape, kind):
    images = faces_of(shape, kind)
    codes = np.array([0, 0, 0, 0, 3, 3, 1], np.int32)
    labels = codes if kind == "numpy" else torch.from_numpy(codes)
    sampler = painter(channels=3 if 3 in shape else 1)
    faces, classes = sampler.fit_resample(images, labels)
    assert type(faces) is type(images) and faces.dtype == images.dtype and faces.shape == (12, *shape[1:])
    assert (faces[:7] == images).all() and type(classes) is type(labels) and classes.dtype == labels.dtype
    assert classes.tolist() == codes.tolist() + [1, 1, 1, 3, 3]
    assert sampler.sampling_strategy_ == {"happiness": 3, "surprise": 2}
    # A source turned upside down, whatever the layout: channels and sides were not mixed up.
    record = sampler.result_.records[0]
    first = torch.as_tensor(faces).reshape(12, *shape[1:]).float()
    axis = 1 if shape[1] not in (1, 3) else 2
    source = first[record["source_row"]].flip(axis - 1)
    assert torch.corrcoef(torch.stack([first[7].flatten(), source.flatten()]))[0, 1] > 0.7


def test_names_and_codes_of_the_data_set(painter):
    images = faces_of((6, 8, 8), "numpy")
    names = ["Happy", "neutral", "sad", "neutral", "neutral", "Joy"]
    _, labels = painter().fit_resample(images, names)
    assert labels == [*names, "Happy", "sad", "sad"]
    _, labels = painter().fit_resample(images, np.array(names))
    assert labels.tolist() == [*names, "Happy", "sad", "sad"]
    codes = ("surprise", "sadness", "neutral", "happiness")
    sampler = painter(classes=codes, sampling_strategy={0: 2, 3: 3})
    _, labels = sampler.fit_resample(images, [3, 2, 1, 2, 2, 3])
    assert labels == [3, 2, 1, 2, 2, 3, 3, 0, 0] and sampler.sampling_strategy_ == {"happiness": 1, "surprise": 2}


def test_a_class_without_a_number_is_named(painter):
    with pytest.raises(InputError, match="no whole number stands for sadness"):
        painter(classes=NAMES[:2], sampling_strategy={"sadness": 1}).fit_resample(
            faces_of((3, 8, 8), "numpy"), [0, 1, 1]
        )


def test_without_filter_the_first_candidates_are_taken(painter):
    images, labels = faces_of((6, 8, 8), "torch"), [0, 0, 0, 0, 1, 2]
    sampler = ExpressionBalancer(generator=Painter(lazy=NAMES), filter=False)
    faces, _ = sampler.fit_resample(images, labels)
    assert len(faces) == 12 and sampler.result_.rejected["sadness"]["unchanged"] == 0
    assert {(r["attempt"], r["filtered"], r["agreement"]) for r in sampler.result_.records} == {(0, False, None)}
    assert sampler.result_.identity["judge"] is None and sampler.result_.shortfalls == {}
    filtered = painter(lazy=NAMES)
    assert len(filtered.fit_resample(images, labels)[0]) == 6 and set(filtered.result_.shortfalls) == set(NAMES[1:3])
    with pytest.raises(InputError, match="needs a judge"):
        ExpressionBalancer(generator=Painter()).fit_resample(images, labels)


def test_random_states_are_numbers_or_generators(painter):
    images, labels = faces_of((6, 8, 8), "torch"), [0, 0, 0, 0, 1, 2]

    def plan(state, resamplings=1):
        sampler = painter(random_state=state)
        for _ in range(resamplings):
            sampler.fit_resample(images, labels)
        return sampler.result_.plan.fingerprint()

    for make in (np.random.RandomState, np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)):
        assert plan(make(1)) == plan(make(1)) != plan(make(2))
        assert plan(make(1), 2) == plan(make(1), 2) != plan(make(1))  # drawn from anew
    assert plan(3) == plan(np.int64(3)) == plan(3, 2) and plan(None) != plan(None)
    for state in ("1", 1.0, True):
        with pytest.raises(InputError, match="random_state is .*: give a whole number, None, or a generator"):
            painter(random_state=state)


def test_unknown_options_are_refused_at_once(painter):
    with pytest.raises(InputError, match=r"no option 'max_atempts': use some of batch_size, .*max_attempts"):
        painter(max_atempts=2)
    with pytest.raises(InputError, match="give that instead of seed"):
        painter(seed=2)


def test_parameters_by_the_manners_of_scikit_learn(painter):
    sampler = painter(sampling_strategy={"sadness": 3}, random_state=5, spread=0.5)
    sampler.fit_resample(faces_of((6, 8, 8), "torch"), [0, 0, 0, 0, 1, 2])
    again = clone(sampler)
    assert again.get_params() == sampler.get_params() and again.generator is sampler.generator
    assert again.result_ is None and again.get_params()["spread"] == 0.5
    assert again.set_params(random_state=6, spread=1.0) is again
    assert (again.random_state, again.options, sampler.options) == (6, {"spread": 1.0}, {"spread": 0.5})
    with pytest.raises(InputError, match="no option 'spred'"):
        again.set_params(spred=1.0)


def test_series_of_labels_come_back_as_series(painter):
    pandas = pytest.importorskip("pandas")
    labels = pandas.Series(["neutral"] * 4 + ["sad", "sad"], index=range(9, 3, -1), name="mood", dtype="category")
    _, found = painter().fit_resample(faces_of((6, 8, 8), "numpy"), labels)
    assert isinstance(found, pandas.Series) and (found.name, found.dtype) == ("mood", labels.dtype)
    assert found.tolist() == [*labels, "sad", "sad"] and found.index.tolist() == list(range(8))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 8, 8)), [0, 1], "uint8, not ndarray of float64"),
        ([[1]], [0], "not list"),
        (np.zeros((2, 9, 9), np.uint8), [0, 1], r"\(2, 9, 9\) do not suit the generator: give \(N, 1, 8, 8\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, 1], "do not suit"),
        (np.zeros((0, 8, 8), np.uint8), np.zeros(0, np.int64), "nothing to balance"),
        (np.zeros((2, 8, 8), np.uint8), [0], "2 faces need as many labels, not 1"),
        (np.zeros((2, 8, 8), np.uint8), None, "as many labels, not 0"),
        (np.zeros((2, 8, 8), np.uint8), [0, 4], "label 4 is no class: use 0 to 3"),
        (np.zeros((2, 8, 8), np.uint8), [0, -1], "label -1"),
        (np.zeros((2, 8, 8), np.uint8), ["neutral", "grumpy"], "unknown label 'grumpy'"),
        (np.zeros((2, 8, 8), np.uint8), ["neutral", "fear"], "the generator does not know fear"),
    ],
)
def test_bad_arrays_are_named(painter, images, labels, message):
    with pytest.raises(InputError, match=message):
        painter().fit_resample(images, labels)
