import pytest
import torch

from synthmtl.losses.reconstruction import FeatureDistance, change_weights, folding, pixel_loss, smoothness
from synthmtl.models import Recognizer


def faces(seed, count=3, channels=1, size=16):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_loss_is_zero_for_equal_faces_only(channels):
    a, b = faces(0, channels=channels), faces(1, channels=channels)
    weights = change_weights(a, b)
    assert torch.equal(pixel_loss(b, b, weights), torch.zeros(3))
    assert (pixel_loss(a, b, weights) > 0).all()


def test_pixel_loss_by_hand():
    a, b, ones = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5), torch.ones(1, 1, 4, 4)
    assert pixel_loss(a, b, ones).item() == pytest.approx(0.5)  # an even error has no slope
    a[0, 0, 1, 1] = 0.8  # an error of +0.3 among -0.5: four edges of 0.8, among 12 each way
    assert pixel_loss(a, b, ones, gradient=0.0).item() == pytest.approx((15 * 0.5 + 0.3) / 16)
    assert (pixel_loss(a, b, ones, gradient=2.0) - pixel_loss(a, b, ones, gradient=0.0)).item() == pytest.approx(
        2 * (2 * 0.8 / 12 + 2 * 0.8 / 12)
    )
    torch.testing.assert_close(pixel_loss(a, b, 3 * ones), 3 * pixel_loss(a, b, ones))


def test_change_weights_are_larger_where_a_pair_differs():
    source = faces(0)
    target = source.clone()
    target[..., 10:14, 4:12] += 0.5
    weights = change_weights(source, target)
    assert weights.shape == (3, 1, 16, 16)
    assert (weights[..., 11:13, 6:10] > 2).all() and weights.max() <= 8
    torch.testing.assert_close(weights[..., :6, :], torch.full((3, 1, 6, 16), 0.3))
    assert torch.equal(change_weights(source, source), torch.full((3, 1, 16, 16), 0.3))


def test_smoothness_is_in_squared_pixels():
    assert torch.equal(smoothness(torch.full((2, 2, 8, 8), 0.3)), torch.zeros(2))
    ramp = (torch.arange(8.0) * 2 / 8).expand(1, 2, 8, 8)  # one pixel more at every step to the right
    assert smoothness(ramp).item() == pytest.approx(1)
    assert smoothness(ramp.mT).item() == pytest.approx(1)
    assert smoothness(3 * ramp).item() == pytest.approx(9)


@pytest.mark.parametrize(("stretch", "least", "expected"), [
    (0.0, 0.5, 0.0),  # the picture as it is
    (1.0, 0.5, 0.0),  # squeezed to half its width: every pixel shows twice its area
    (-0.75, 0.5, 0.25**2),  # stretched four times
    (-1.0, 0.5, 0.5**2),  # one column smeared over the face
    (-2.0, 0.5, 1.5**2),  # mirrored
])  # fmt: skip
def test_folding_grows_with_stretch_and_mirroring(stretch, least, expected):
    ramp = (torch.arange(8.0) * 2 / 8).expand(8, 8) * stretch
    flow = torch.stack([ramp, torch.zeros(8, 8)])[None]
    for each in (flow, flow.flip(1).mT):  # in x, and in y
        assert folding(each, least=least).item() == pytest.approx(expected, abs=1e-6)


def test_a_turn_folds_nothing():
    at = (torch.arange(8.0) - 3.5) * 2 / 8
    y, x = torch.meshgrid(at, at, indexing="ij")
    assert folding(torch.stack([-y - x, x - y])[None]).item() == pytest.approx(0, abs=1e-6)  # by 90 degrees


def test_feature_distance():
    torch.manual_seed(0)
    guide = Recognizer(("neutral", "anger"), stem_channels=4, stage_channels=(4, 8), joint_channels=8).eval()
    distance = FeatureDistance(guide.features)
    a, b = faces(0, size=32), faces(1, size=32)
    assert torch.equal(distance(a, a), torch.zeros(3))
    assert distance(a, b).shape == (3,) and (distance(a, b) > 0).all()
    torch.testing.assert_close(distance(a, b), distance(b, a))
    near = a + 0.05 * (b - a)
    assert (distance(a, near) < distance(a, b)).all()


def test_feature_distance_of_faces_without_features_has_a_finite_gradient():
    distance = FeatureDistance(lambda x: [x.relu()] * 3)
    a = -torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a.retain_grad()
    distance(a, torch.ones(2, 3, 4, 4)).sum().backward()
    assert a.grad.isfinite().all()
