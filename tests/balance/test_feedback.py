import pytest
import torch

from synthmtl.balance.feedback import FeedbackConfig, dilution, feed_back
from synthmtl.errors import InputError

FACES = {"neutral": 60, "happiness": 20, "sadness": 10, "fear": 4}


@pytest.fixture
def real(job):
    return job.make_faces(FACES, size=8)


@pytest.fixture
def extra(job):
    """Synthesized faces of all classes but the most frequent one."""
    faces = job.make_faces({"neutral": 0, "happiness": 40, "sadness": 50, "fear": 56}, size=8, seed=1)
    return faces.replace(synthetic=torch.ones(len(faces), dtype=torch.bool))


def shares(feedback, steps=40):
    """Faces per (extra, class) of all batches."""
    rows = torch.cat([feedback.sampler.indices(step) for step in range(steps)])
    table = feedback.table
    return torch.stack(
        [torch.bincount(table.expression[rows[table.synthetic[rows] == flag]], minlength=4) for flag in (False, True)]
    )


def test_real_faces_come_first_and_untouched(real, extra):
    table = feed_back(real, extra, config=FeedbackConfig(weight=0.25)).table
    assert torch.equal(table.images[:94], real.images) and (table.weight[:94] == 1).all()
    assert (table.weight[94:] == 0.25).all() and (extra.weight == 1).all()


def test_balanced_batches_hold_the_share_within_each_class(real, extra):
    feedback = feed_back(real, extra, config=FeedbackConfig(share=0.5), batch_size=32)
    assert feedback.extra_count == 12 and feedback.sampler.batch_size == 32
    assert shares(feedback).tolist() == [[320, 160, 160, 160], [0, 160, 160, 160]]
    one = feedback.table.synthetic[feedback.sampler.indices(7)]
    assert int(one.sum()) == 12 and len(one) == 32


def test_one_rare_class_does_not_flood_the_batch(real, extra):
    feedback = feed_back(real, extra.select(extra.expression == 3), batch_size=32)
    assert shares(feedback).tolist() == [[320, 320, 320, 160], [0, 0, 0, 160]]


def test_natural_batches_hold_the_share_of_the_batch(real, extra):
    feedback = feed_back(real, extra, config=FeedbackConfig(share=0.25, real="natural"), batch_size=48)
    found = shares(feedback, steps=94)  # 36 real faces a step: 36 epochs
    assert found[0].tolist() == [36 * count for count in FACES.values()]
    assert found[1].tolist() == [0, 376, 376, 376]


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize("way", ["balanced", "natural"])
def test_class_shares_are_those_of_the_batches_weights(real, extra, way, weight):
    feedback = feed_back(real, extra, config=FeedbackConfig(share=0.25, real=way, weight=weight), batch_size=48)
    found = shares(feedback, steps=94) * torch.tensor([[1.0], [weight]])
    assert feedback.class_shares.tolist() == pytest.approx((found.sum(0) / found.sum()).tolist())
    if way == "balanced" and weight == 1:
        assert feedback.class_shares.tolist() == pytest.approx([0.25] * 4)


def test_parts_divide_among_processes(real, extra):
    feedback = feed_back(real, extra, batch_size=36, multiple_of=4)
    assert all(count % 4 == 0 for count in feedback.sampler.counts) and sum(feedback.sampler.counts) == 36
    with pytest.raises(InputError, match="not a multiple of 8"):
        feed_back(real, extra, batch_size=36, multiple_of=8)
    with pytest.raises(InputError, match="too small"):
        feed_back(real, extra, batch_size=2)


def test_faces_without_expression_are_not_drawn(real, extra):
    real.expression[:30] = -1
    for way in ("balanced", "natural"):
        feedback = feed_back(real, extra, config=FeedbackConfig(real=way), batch_size=32)
        rows = torch.cat([feedback.sampler.indices(step) for step in range(30)])
        assert (feedback.table.expression[rows] >= 0).all()


def test_class_known_by_extra_faces_only(real, extra):
    feedback = feed_back(real.select(real.expression != 3), extra, batch_size=32)
    found = shares(feedback)
    assert found[0, 3] == 0 and found[1, 3] > 0 and found[0, 0] == 320


def test_control_has_the_same_shares_and_real_faces_only(real, extra):
    fill = dilution(real, extra.counts())
    assert fill.counts() == extra.counts() and not fill.synthetic.any()
    synthesis, control = feed_back(real, extra, batch_size=32), feed_back(real, fill, batch_size=32)
    assert synthesis.sampler.counts == control.sampler.counts
    for step in range(5):
        a, b = (f.table.expression[f.sampler.indices(step)] for f in (synthesis, control))
        assert torch.equal(a.sort().values, b.sort().values)


def test_dilution_draws_each_face_equally_often(real):
    fill = dilution(real, {"fear": 11, "happiness": 3})
    afraid = [fill.files.count(name) for name in real.files[-4:]]
    assert sorted(afraid) == [2, 3, 3, 3]
    happy = [file for file, k in zip(fill.files, fill.expression.tolist(), strict=True) if k == 1]
    assert len(set(happy)) == 3 and set(happy) <= set(real.files[60:80])
    assert dilution(real, {"fear": 11, "happiness": 3}).files == fill.files
    assert len(dilution(real, {"fear": 0})) == 0


def test_bad_options(real, extra):
    with pytest.raises(InputError, match="between 0 and 1"):
        FeedbackConfig(share=1.0)
    with pytest.raises(InputError, match="weight"):
        FeedbackConfig(weight=-1.0)
    with pytest.raises(InputError, match="unknown way"):
        FeedbackConfig(real="all")
    with pytest.raises(InputError, match="no extra face"):
        feed_back(real, extra.select([]))
    with pytest.raises(InputError, match="no real face"):
        feed_back(real.select([]), extra)
    with pytest.raises(InputError, match="no real face of anger"):
        dilution(real, {"anger": 3})
