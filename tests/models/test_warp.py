import pytest
import torch

from synthmtl.models.warp import smooth_field, warp


def image(height=6, width=8):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def flow(picture, x_pixels, y_pixels):
    height, width = picture.shape[-2:]
    offsets = torch.tensor([x_pixels * 2 / width, y_pixels * 2 / height])
    return offsets[None, :, None, None].expand(len(picture), 2, height, width)


def test_zero_flow_is_the_identity():
    picture = image()
    torch.testing.assert_close(warp(picture, flow(picture, 0, 0)), picture, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, 1), (-1, 0), (0, -2), (2, -1)])
def test_a_flow_of_whole_pixels_shifts(x, y):
    picture = image()
    height, width = picture.shape[-2:]
    rows = (torch.arange(height) + y).clamp(0, height - 1)
    columns = (torch.arange(width) + x).clamp(0, width - 1)
    torch.testing.assert_close(
        warp(picture, flow(picture, x, y)), picture[..., rows, :][..., columns], atol=1e-5, rtol=0
    )


def test_half_a_pixel_is_the_mean_of_two():
    picture = image()
    out = warp(picture, flow(picture, 0.5, 0))
    torch.testing.assert_close(out[..., :-1], (picture[..., :-1] + picture[..., 1:]) / 2, atol=1e-5, rtol=0)


def test_each_face_has_its_own_flow_and_gradients_reach_it():
    picture = image()
    offsets = torch.cat([flow(picture, 0, 0)[:1], flow(picture, 1, 0)[:1]]).clone().requires_grad_()
    out = warp(picture, offsets)
    torch.testing.assert_close(out[0], picture[0], atol=1e-5, rtol=0)
    assert (out[1] - picture[1]).abs().max() > 0.1
    out.square().sum().backward()
    assert offsets.grad.isfinite().all() and offsets.grad.abs().sum() > 0


def test_low_precision_gives_float32():
    picture = image()
    out = warp(picture.bfloat16(), flow(picture, 0, 0).bfloat16())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, picture, atol=0.01, rtol=0)


def test_smoothing_keeps_what_is_constant_and_removes_what_alternates():
    constant = torch.tensor([0.3, -0.2])[None, :, None, None].expand(2, 2, 12, 10)
    torch.testing.assert_close(smooth_field(constant), constant)
    alternating = torch.ones(1, 2, 12, 10)
    alternating[..., ::2, :] = -1
    assert smooth_field(alternating)[..., 2:-2, :].abs().max() < 1e-6


def test_smoothing_spreads_one_pixel_binomially_and_mixes_no_channels():
    field = torch.zeros(1, 2, 9, 9)
    field[0, 1, 4, 4] = 1
    smooth = smooth_field(field)
    taps = torch.tensor([1, 4, 6, 4, 1]) / 16
    torch.testing.assert_close(smooth[0, 1, 2:7, 2:7], taps.outer(taps))
    assert not smooth[0, 0].any()
