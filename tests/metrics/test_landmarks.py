import numpy as np
import pytest
import torch
from sklearn.metrics import auc

from synthmtl.errors import InputError
from synthmtl.metrics import landmark_metrics
from synthmtl.metrics.landmarks import landmark_sums


def example(count=30, noise=0.02, seed=0):
    random = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, 68, 2, generator=random)
    truth[:, 36], truth[:, 45] = torch.tensor([0.3, 0.4]), torch.tensor([0.7, 0.4])
    return truth + noise * torch.randn(count, 68, 2, generator=random), truth


def test_known_answer_by_hand():
    _, truth = example(2)
    output = truth.clone()
    output[0] += torch.tensor([0.03, 0.04])  # every point is off by 0.05; the eyes are 0.4 apart
    result = landmark_metrics(output, truth, threshold=0.2)
    assert result.nme == pytest.approx(0.125 / 2)
    assert result.auc == pytest.approx((0.375 + 1) / 2)
    assert (result.failure_rate, result.count, result.missing, result.without_eyes) == (0, 2, 0, 0)
    assert landmark_metrics(output, truth).failure_rate == 0.5


def test_area_is_that_under_the_cumulative_curve():
    output, truth = example(200, noise=torch.linspace(0, 0.05, 200)[:, None, None])
    errors = (output - truth).norm(dim=-1).mean(1) / 0.4
    grid = np.linspace(0, 0.1, 20001)
    curve = (errors.numpy()[:, None] <= grid).mean(0)
    result = landmark_metrics(output, truth, threshold=0.1)
    assert 0 < result.failure_rate < 1
    assert result.auc == pytest.approx(auc(grid, curve) / 0.1, abs=1e-4)
    assert result.nme == pytest.approx(errors.mean().item(), rel=1e-5)


def test_a_perfect_and_a_hopeless_network():
    _, truth = example()
    perfect, hopeless = landmark_metrics(truth, truth), landmark_metrics(truth + 1, truth)
    assert (perfect.nme, perfect.auc, perfect.failure_rate) == (0, 1, 0)
    assert (hopeless.auc, hopeless.failure_rate) == (0, 1)


def test_size_of_the_face_plays_no_role():
    output, truth = example()
    assert landmark_metrics(output * 96, truth * 96).nme == pytest.approx(landmark_metrics(output, truth).nme)


def test_missing_points_are_left_out_and_faces_counted():
    output, truth = example()
    truth[0] = torch.nan
    truth[1, 36, 0] = torch.nan
    truth[2, 46:] = torch.nan
    truth[3, 45] = truth[3, 36]
    result = landmark_metrics(output, truth)
    assert (result.count, result.missing, result.without_eyes) == (27, 1, 2)
    errors = (output - truth).norm(dim=-1) / 0.4
    faces = [errors[2, :46].mean(), *errors[4:].mean(1)]
    assert result.nme == pytest.approx(float(torch.stack(faces).mean()), rel=1e-5)


def test_sums_give_the_same_score():
    outputs, truth = torch.stack([example(seed=0)[0], example()[1] + 0.01]), example()[1]
    truth[4] = torch.nan
    expected = [landmark_metrics(output, truth).nme for output in outputs]
    assert landmark_sums(outputs, truth).points.tolist() == pytest.approx(expected)


def test_bad_input_is_named():
    output, truth = example()
    with pytest.raises(InputError, match="do not fit"):
        landmark_metrics(output[:5], truth)
    with pytest.raises(InputError, match="68"):
        landmark_metrics(output[:, :50], truth[:, :50])
    with pytest.raises(InputError, match="NaN"):
        landmark_metrics(torch.where(truth > 0.5, torch.nan, output), truth)
    with pytest.raises(InputError, match="outer eye corners .points 36 and 45."):
        landmark_metrics(output, torch.full_like(truth, torch.nan))
    with pytest.raises(InputError, match="above 0"):
        landmark_metrics(output, truth, threshold=0.0)
