import pytest
import torch

from synthmtl.data.randomness import StepRandom
from synthmtl.losses.adversarial import differentiable_augment, least_squares


def faces(count=4, channels=1):
    return torch.rand(count, channels, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_least_squares():
    scores = torch.tensor([[[[1.0, 3.0]]], [[[0.0, 0.0]]]])
    assert least_squares(scores, 1).tolist() == [2.0, 1.0]
    assert least_squares(scores, 0).tolist() == [5.0, 0.0]


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_depends_on_step_and_name_only(channels):
    images = faces(channels=channels)
    out = differentiable_augment(images, StepRandom(0, 1), "a")
    assert out.shape == images.shape and out.dtype == images.dtype
    assert torch.equal(out, differentiable_augment(images, StepRandom(0, 1), "a"))
    assert not torch.equal(out, differentiable_augment(images, StepRandom(0, 2), "a"))
    assert not torch.equal(out, differentiable_augment(images, StepRandom(0, 1), "b"))


def test_augmentation_is_mild_and_shifts_by_a_tenth_at_most():
    image = torch.full((8, 1, 20, 20), 0.5)
    out = differentiable_augment(image, StepRandom(0, 0), "a")
    means = out.mean((1, 2, 3))
    assert (means > 0.5 * 0.8 - 0.2).all() and (means < 0.5 * 1.2 + 0.2).all() and means.std() > 0.02
    spot = torch.zeros(1, 1, 20, 20)
    spot[0, 0, 10, 10] = 20.0
    places = {divmod(differentiable_augment(spot, StepRandom(0, step), "a").argmax().item(), 20) for step in range(60)}
    assert all(abs(y - 10) <= 2 and abs(x - 10) <= 2 for y, x in places) and len(places) > 10


def test_two_processes_augment_as_one_does():
    images = faces()
    one = differentiable_augment(images, StepRandom(0, 0), "a")
    for rank in range(2):
        part = differentiable_augment(images[rank::2], StepRandom(0, 0, rank=rank, world=2), "a")
        assert torch.equal(part, one[rank::2])


def test_gradients_pass():
    images = faces().requires_grad_()
    differentiable_augment(images, StepRandom(0, 0), "a").sum().backward()
    assert images.grad.isfinite().all()
    inner = images.grad[..., 3:-3, 3:-3]
    assert (inner >= 0.8).all() and (inner <= 1.2).all()


def test_noise_has_the_deviation_asked_for():
    images = torch.zeros(64, 1, 32, 32)
    for deviation in (0.0, 0.3):
        seen = differentiable_augment(images, StepRandom(0, 0), "guide", noise=deviation)
        within = (seen - seen.mean((1, 2, 3), keepdim=True)).std()  # each face has an offset of its own
        assert float(within) == pytest.approx(deviation, rel=0.02, abs=1e-6)
