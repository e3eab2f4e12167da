import math

import pytest
import torch

from synthmtl.losses import LandmarkLoss, wing


def example(count=5):
    random = torch.Generator().manual_seed(0)
    output, truth = torch.rand(count, 68, 2, generator=random), torch.rand(count, 68, 2, generator=random)
    return output.requires_grad_(), truth, torch.rand(count, generator=random) + 0.1


def test_wing_is_the_published_formula():
    constant = 10 - 10 * math.log(1 + 10 / 2)
    errors = torch.tensor([-20.0, -9.0, -0.5, 0.0, 0.5, 2.0, 9.9, 10.1, 40.0])
    expected = [10 * math.log(1 + abs(x) / 2) if abs(x) < 10 else abs(x) - constant for x in errors.tolist()]
    torch.testing.assert_close(wing(errors), torch.tensor(expected))


def test_wing_is_continuous_and_steepest_at_zero():
    around = torch.tensor([10 - 1e-4, 10 + 1e-4])
    assert float(wing(around).diff()) == pytest.approx(0, abs=1e-3)
    errors = torch.tensor([1e-6, 1.0, 5.0, 9.0, 11.0, 100.0], requires_grad=True)
    slopes = torch.autograd.grad(wing(errors).sum(), errors)[0]
    torch.testing.assert_close(slopes[0], torch.tensor(5.0), atol=1e-4, rtol=0)
    assert slopes.diff()[:3].lt(0).all() and slopes[-2:].eq(1).all()


def test_scaling_errors_with_both_constants_scales_the_loss():
    errors = torch.linspace(-30, 30, 101)
    torch.testing.assert_close(wing(3 * errors, 30.0, 6.0), 3 * wing(errors))
    output, truth, _ = example()
    torch.testing.assert_close(
        LandmarkLoss(unit=128.0, width=20.0, curvature=4.0)(output, truth), 2 * LandmarkLoss()(output, truth)
    )


def test_no_error_has_no_loss_and_no_gradient():
    for kind in ("wing", "l1"):
        output = example()[0]
        loss = LandmarkLoss(kind)(output, output.detach().clone())
        assert loss == 0 and torch.autograd.grad(loss, output)[0].count_nonzero() == 0


def test_l1_of_complete_faces_is_the_mean_absolute_error_in_units():
    output, truth, _ = example()
    torch.testing.assert_close(LandmarkLoss("l1", unit=96.0)(output, truth), 96 * (output - truth).abs().mean())


@pytest.mark.parametrize("kind", ["wing", "l1"])
def test_every_face_counts_the_same_however_many_points_it_has(kind):
    output, truth, weight = example()
    truth[0, 5:] = torch.nan
    truth[1, :, 0] = torch.nan  # a point without one coordinate is missing
    truth[2] = torch.nan
    loss = LandmarkLoss(kind)
    faces = [loss(output[:1, :5], truth[:1, :5]), *(loss(output[i : i + 1], truth[i : i + 1]) for i in (3, 4))]
    w = weight[[0, 3, 4]]
    torch.testing.assert_close(loss(output, truth, weight), (torch.stack(faces) * w).sum() / w.sum())


def test_all_missing_is_zero():
    output, truth, weight = example()
    loss = LandmarkLoss()(output, torch.full_like(truth, torch.nan), weight)
    assert loss == 0 and torch.autograd.grad(loss, output)[0].count_nonzero() == 0


def test_bad_settings():
    with pytest.raises(ValueError, match="use wing or l1"):
        LandmarkLoss("l2")
    with pytest.raises(ValueError, match="above 0"):
        LandmarkLoss(curvature=0.0)
