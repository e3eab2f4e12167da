import pytest
import torch
from torch import nn

from synthmtl.balance.filter import REASONS, FaceFilter, calibrate_judge, judge_probabilities
from synthmtl.errors import InputError


class Meter(nn.Module):
    """A judge whose probability of its second class is the face's mean brightness."""

    classes = ("neutral", "fear")

    def recognize(self, images):
        bright = (images.mean((1, 2, 3)) + 1) / 2
        return torch.stack([1 - bright, bright], 1)


def flat(*values):
    """Faces of one gray value each."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()


def bright_faces(job, neutral, fear):
    table = job.make_faces({"neutral": len(neutral), "fear": len(fear)}, size=8)
    return table.replace(images=flat(*neutral, *fear))


def test_probabilities_leave_the_judge_as_it_was(job):
    judge = job.make_judge().train()
    images = job.make_faces({"neutral": 5}).images
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    whole, parts = judge_probabilities(judge, images), judge_probabilities(judge, images, batch_size=2)
    torch.testing.assert_close(whole, parts)
    assert whole.shape == (5, 3) and judge.training
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())


def test_threshold_is_the_quantile_of_real_faces_of_the_class(job):
    validation = bright_faces(job, [0, 51, 102, 153, 204, 255], [51, 102, 153, 204, 255])
    calibration = calibrate_judge(Meter(), validation, quantile=0.25)
    torch.testing.assert_close(calibration.thresholds, torch.tensor([0.25, 0.4]))
    assert calibration.faces == {"neutral": 6, "fear": 5} and calibration.borrowed == ()
    lowest = calibrate_judge(Meter(), validation, quantile=0.0)
    torch.testing.assert_close(lowest.thresholds, torch.tensor([0.0, 0.2]))


def test_keeps_the_wanted_share_of_real_faces(job):
    judge, real = job.make_judge(), job.make_faces(dict.fromkeys(job.CLASSES, 40), seed=9)
    calibration = calibrate_judge(judge, real, quantile=0.2)
    own = judge_probabilities(judge, real.images)[torch.arange(120), real.expression]
    kept = own >= calibration.thresholds[real.expression]
    assert [kept[real.expression == k].float().mean().item() for k in range(3)] == pytest.approx([0.8] * 3)


def test_how_many_other_faces_would_pass_is_said_and_held_to(job):
    validation = bright_faces(job, [0, 51, 102, 153, 204, 255], [51, 102, 153, 204, 255])
    loose = calibrate_judge(Meter(), validation, quantile=0.25)
    assert loose.mistaken_at_most is None
    # What the judge says of faces of the other class, and that the thresholds are 0.25 and 0.4.
    others = [torch.tensor([0.8, 0.6, 0.4, 0.2, 0.0]), torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])]
    torch.testing.assert_close(loose.mistaken, torch.tensor([3 / 5, 4 / 6]))
    for share in (0.0, 0.2, 0.35, 0.5, 1.0):
        held = calibrate_judge(Meter(), validation, quantile=0.25, mistaken_at_most=share)
        for k, seen in enumerate(others):
            allowed = int(share * len(seen))
            lowest = float(loose.thresholds[k])
            wanted = lowest if allowed == len(seen) else max(lowest, float(seen[allowed]))
            assert float(held.thresholds[k]) == pytest.approx(wanted, abs=1e-6)  # no higher than is needed
            assert float(held.mistaken[k]) == pytest.approx(min(allowed / len(seen), float(loose.mistaken[k])))
    told = held.as_dict()
    assert told["mistaken"] == {"neutral": 0.6, "fear": 0.666667} and told["mistaken_at_most"] == 1.0
    for wrong in (-0.1, 1.5):
        with pytest.raises(InputError, match="mistaken_at_most must lie in"):
            calibrate_judge(Meter(), validation, mistaken_at_most=wrong)


def test_rare_class_borrows_the_lowest_threshold(job):
    calibration = calibrate_judge(Meter(), bright_faces(job, [0, 51, 102, 153, 204], [255]), quantile=0.5)
    torch.testing.assert_close(calibration.thresholds, torch.tensor([0.6, 0.6]))
    assert calibration.borrowed == ("fear",)
    pooled = calibrate_judge(Meter(), bright_faces(job, [51], [51, 204]), quantile=0.5)
    torch.testing.assert_close(pooled.thresholds, torch.tensor([0.8, 0.8]))
    assert pooled.borrowed == ("neutral", "fear")


def test_calibration_needs_real_faces_and_known_classes(job):
    faces = bright_faces(job, [1], [2])
    with pytest.raises(InputError, match="no real labelled face"):
        calibrate_judge(Meter(), faces.replace(synthetic=torch.ones(2, dtype=torch.bool)))
    with pytest.raises(InputError, match="does not know happiness"):
        calibrate_judge(Meter(), job.make_faces({"neutral": 2, "happiness": 2}))
    with pytest.raises(InputError, match="quantile"):
        calibrate_judge(Meter(), faces, quantile=1.0)


@pytest.fixture
def judged(job):
    """Verdicts on faces edited to fear, with references of gray 10 and 240 and a threshold of .5."""
    calibration = calibrate_judge(Meter(), bright_faces(job, [0] * 5, [128] * 5))
    judging = FaceFilter(Meter(), calibration, flat(10, 240), Meter.classes)
    images, sources = flat(200, 60, 240, 10, 100, 200), flat(10, 10, 10, 10, 100, 10)
    finite = torch.tensor([True] * 5 + [False])
    return judging(images, sources, torch.ones(6, dtype=torch.int64), finite=finite)


def test_reasons(judged):
    names = [None if r < 0 else REASONS[r] for r in judged.reason.tolist()]
    assert names == [None, "disagreement", "copy", "unchanged", "unchanged", "broken"]
    torch.testing.assert_close(judged.agreement[:2], torch.tensor([200 / 255, 60 / 255]))
    torch.testing.assert_close(judged.margin[:2], torch.tensor([200 / 128, 60 / 128]))


def test_filter_wants_the_calibration_of_its_judge(job):
    calibration = calibrate_judge(Meter(), bright_faces(job, [0], [255]))
    with pytest.raises(InputError, match="other classes"):
        FaceFilter(job.make_judge(), calibration, flat(1), Meter.classes)


def test_a_noisy_copy_is_found_among_many(job):
    references = job.make_faces({"neutral": 300}, size=16).images
    noise = torch.randint(-1, 2, references[:1].shape, generator=torch.Generator().manual_seed(1))
    copy = (references[123:124].int() + noise).clamp(0, 255).to(torch.uint8)
    calibration = calibrate_judge(Meter(), bright_faces(job, [0], [0]))
    judging = FaceFilter(Meter(), calibration, references, Meter.classes)
    verdict = judging(copy, references[:1], torch.tensor([1]), finite=torch.tensor([True]))
    assert REASONS[verdict.reason[0]] == "copy"


def smooth_faces(count, seed=0):
    """Faces of 24 px with large features."""
    coarse = torch.randint(20, 236, (count, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).float()
    return nn.functional.interpolate(coarse, 24, mode="bicubic").clamp(0, 255).to(torch.uint8)


def test_faces_of_others_are_refused_in_any_brightness_and_mirrored(job):
    references, calibration = smooth_faces(200), calibrate_judge(Meter(), bright_faces(job, [0], [0]))
    subject = torch.arange(200) // 2
    judging = FaceFilter(Meter(), calibration, references, Meter.classes, subject=subject)
    noise = torch.randint(-3, 4, (4, 1, 24, 24), generator=torch.Generator().manual_seed(1))
    brighter = (0.8 * references[60:64].float() + 30 + noise).clamp(0, 255).to(torch.uint8)
    fear, finite = torch.ones(4, dtype=torch.int64), torch.ones(4, dtype=torch.bool)

    def reasons(images, rows):
        verdict = judging(images, references[rows], fear, finite=finite, rows=torch.tensor(rows))
        return [None if r < 0 else REASONS[r] for r in verdict.reason.tolist()]

    elsewhere = [0, 20, 100, 150]
    assert reasons(brighter, elsewhere) == reasons(brighter.flip(-1), elsewhere) == ["copy"] * 4
    # An edit may resemble its source and other faces of the source's subject, as long as it is not the very same.
    assert reasons(brighter, [60, 61, 62, 63]) == reasons(brighter, [61, 60, 63, 62]) == [None] * 4
    assert reasons(references[60:64], [61, 60, 63, 62]) == ["copy"] * 4
    assert reasons(smooth_faces(4, seed=9), elsewhere) == [None] * 4
    alone = FaceFilter(Meter(), calibration, references, Meter.classes)
    verdict = alone(brighter, references[60:64], fear, finite=finite, rows=torch.tensor([61, 60, 63, 62]))
    assert set(verdict.reason.tolist()) == {REASONS.index("copy")}
