import dataclasses
import json

import pytest
import torch

from synthmtl.balance.calibration import calibrate_judge, judge_probabilities, kept_calibration
from synthmtl.errors import InputError
from tests.balance.meter import Meter, bright_faces, flat


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
    with pytest.raises(InputError, match="no real validation face shows any of neutral, fear"):
        calibrate_judge(Meter(), job.make_faces({"happiness": 2, "anger": 2}))
    with pytest.raises(InputError, match="quantile"):
        calibrate_judge(Meter(), faces, quantile=1.0)


def test_only_wanted_classes_have_to_be_known(job):
    faces = job.make_faces({"neutral": 6, "happiness": 4, "fear": 5}, size=8)
    brightness = [0, 51, 102, 153, 204, 255, 76, 128, 179, 230, 51, 102, 153, 204, 255]
    faces = faces.replace(images=flat(*brightness))
    for wanted in ((), ("fear",), ("neutral", "fear")):
        calibration = calibrate_judge(Meter(), faces, quantile=0.25, wanted=wanted)
        alone = calibrate_judge(Meter(), faces.select(faces.expression != 1), quantile=0.25)
        assert torch.equal(calibration.thresholds, alone.thresholds)  # happy faces have no threshold to set
        assert (calibration.faces, calibration.borrowed) == (alone.faces, alone.borrowed)
        for k, name in enumerate(Meter.classes):  # but they are faces of another class than either
            others = faces.select(faces.expression != faces.classes.index(name))
            passing = judge_probabilities(Meter(), others.images)[:, k] >= calibration.thresholds[k]
            assert float(calibration.mistaken[k]) == pytest.approx(float(passing.float().mean()))
    with pytest.raises(InputError, match="does not know happiness: train it on fear, happiness"):
        calibrate_judge(Meter(), faces, wanted=("fear", "happiness"))
    pooled = calibrate_judge(Meter(), faces, quantile=0.25, min_faces=20)
    alone = calibrate_judge(Meter(), faces.select(faces.expression != 1), quantile=0.25, min_faces=20)
    assert torch.equal(pooled.thresholds, alone.thresholds) and pooled.borrowed == Meter.classes


class Dimmer(Meter):
    """Another judge by its weights."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))


def elsewhere(calibration):
    """The same judge's calibration on a processor that rounds otherwise."""
    return dataclasses.replace(calibration, thresholds=calibration.thresholds.nextafter(torch.tensor(1.0)))


def test_a_folder_keeps_the_thresholds_it_began_with(job, tmp_path):
    first = calibrate_judge(Meter(), bright_faces(job, [10, 51, 102, 153, 204], [1]), quantile=0.3)
    assert kept_calibration(tmp_path / "new", first, Meter()) is first
    kept = kept_calibration(tmp_path / "new", elsewhere(first), Meter())
    assert torch.equal(kept.thresholds, first.thresholds) and torch.equal(kept.mistaken, first.mistaken)
    assert kept.as_dict() == first.as_dict() and kept.borrowed == ("fear",)


@pytest.mark.parametrize("what", ["judge", "options", "faces", "damaged", "no list"])
def test_a_folder_keeps_no_calibration_of_something_else(job, tmp_path, what):
    faces, judge = bright_faces(job, [10, 51, 102, 153, 204], [1] * 5), Meter()
    kept_calibration(tmp_path, calibrate_judge(judge, faces, quantile=0.3), judge)
    file = tmp_path / "calibration.json"
    quantile = 0.3
    if what == "judge":
        judge = Dimmer()
    elif what == "options":
        quantile = 0.4
    elif what == "faces":
        faces = bright_faces(job, [10, 51, 102, 153, 204], [1] * 6)
    elif what == "damaged":
        file.write_text(file.read_text()[:-40])
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"thresholds": "high"}))
    now = elsewhere(calibrate_judge(judge, faces, quantile=quantile))
    assert kept_calibration(tmp_path, now, judge) is now
    again = kept_calibration(tmp_path, calibrate_judge(judge, faces, quantile=quantile), judge)
    assert torch.equal(again.thresholds, now.thresholds)


def test_one_process_writes_the_calibration(job, tmp_path):
    calibration = calibrate_judge(Meter(), bright_faces(job, [10] * 5, [1] * 5))
    assert kept_calibration(tmp_path, calibration, Meter(), rank=1) is calibration
    assert not list(tmp_path.iterdir())
