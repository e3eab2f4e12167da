import pytest
import torch

from synthmtl.balance import SynthesisBalancer, calibrate_judge
from synthmtl.errors import InputError


@pytest.fixture
def balancer(job):
    judge = job.make_judge()
    calibration = calibrate_judge(judge, job.make_faces(dict.fromkeys(job.CLASSES, 8), seed=5))

    def make(**options):
        return SynthesisBalancer(generator=job.make_generator(), judge=judge, calibration=calibration, **options)

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
