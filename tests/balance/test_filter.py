import pytest
import torch

from synthmtl.balance.calibration import calibrate_judge
from synthmtl.balance.filter import REASONS, FaceFilter
from synthmtl.errors import InputError
from tests.balance.meter import Meter, bright_faces, flat


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


def test_a_judge_without_a_class_keeps_no_face_of_it_and_judges_the_others_as_ever(job):
    calibration = calibrate_judge(Meter(), bright_faces(job, [0] * 5, [128] * 5))
    names = ("neutral", "happiness", "fear")
    with pytest.raises(InputError, match="the judge does not know happiness"):
        FaceFilter(Meter(), calibration, flat(10, 240), names)
    images, sources, finite = flat(200, 60, 100), flat(10, 10, 10), torch.ones(3, dtype=torch.bool)
    told = FaceFilter(Meter(), calibration, flat(10, 240), names, wanted=("neutral", "fear"))
    for known, target in ((0, 0), (1, 2)):
        expected = FaceFilter(Meter(), calibration, flat(10, 240), Meter.classes)(
            images, sources, torch.full((3,), known), finite=finite
        )
        for one, other in zip(told(images, sources, torch.full((3,), target), finite=finite), expected, strict=True):
            assert torch.equal(one, other)
    verdict = told(images, sources, torch.full((3,), 1), finite=finite)
    assert [REASONS[reason] for reason in verdict.reason.tolist()] == ["disagreement"] * 3
    assert verdict.margin.tolist() == [0] * 3


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
    return torch.nn.functional.interpolate(coarse, 24, mode="bicubic").clamp(0, 255).to(torch.uint8)


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


def test_moved_views_of_others_are_refused_and_of_the_own_person_are_not(job):
    references, calibration = smooth_faces(200), calibrate_judge(Meter(), bright_faces(job, [0], [0]))
    subject = torch.arange(200) // 2
    fear, finite = torch.ones(4, dtype=torch.int64), torch.ones(4, dtype=torch.bool)
    moved = references[60:64].roll((1, -1), (2, 3))

    def reasons(rows, subject=subject, **options):
        judging = FaceFilter(Meter(), calibration, references, Meter.classes, subject=subject, **options)
        verdict = judging(moved, references[rows], fear, finite=finite, rows=torch.tensor(rows))
        return [None if r < 0 else REASONS[r] for r in verdict.reason.tolist()]

    elsewhere = [0, 20, 100, 150]
    assert reasons(elsewhere) == reasons(elsewhere, subject=None) == ["copy"] * 4
    assert reasons([60, 61, 62, 63]) == reasons([61, 60, 63, 62]) == [None] * 4
    assert reasons([60, 61, 62, 63], subject=None) == [None] * 4
    assert reasons(elsewhere, max_match=1.0) == [None] * 4
