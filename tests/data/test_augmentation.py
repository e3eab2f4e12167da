"""Augmentation: deterministic, one view for a pair, each variation as strong as configured."""

import dataclasses

import pytest
import torch

from synthmtl.data.augmentation import AugmentationConfig, augment, augment_pair
from synthmtl.data.randomness import StepRandom

OFF = AugmentationConfig(
    flip=0, rotation_degrees=0, shift=0, scale=0, brightness=0, contrast=0, noise=0, erase_probability=0
)


def faces(count=16, channels=1, height=24, width=24):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def with_only(**strengths):
    return dataclasses.replace(OFF, **strengths)


def test_switched_off_it_is_the_identity():
    images = faces()
    assert torch.equal(augment(images, StepRandom(0, 0), OFF), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_draws_give_the_same_faces_within_the_range(channels):
    images = faces(channels=channels)
    first = augment(images, StepRandom(5, 7), AugmentationConfig())
    assert torch.equal(first, augment(images, StepRandom(5, 7), AugmentationConfig()))
    assert not torch.equal(first, augment(images, StepRandom(5, 8), AugmentationConfig()))
    assert not torch.equal(first, augment(images, StepRandom(5, 7), AugmentationConfig(), "another"))
    assert first.shape == images.shape and first.abs().max() <= 1


def test_processes_see_the_faces_of_one():
    images = faces()
    whole = augment(images, StepRandom(1, 2), AugmentationConfig())
    for rank in range(2):
        part = augment(images[rank::2], StepRandom(1, 2, rank=rank, world=2), AugmentationConfig())
        torch.testing.assert_close(part, whole[rank::2])


def test_a_pair_gets_one_view_and_separate_noise():
    images = faces()
    source, target = augment_pair(images, images, StepRandom(0, 0), AugmentationConfig(noise=0))
    assert torch.equal(source, target)
    torch.testing.assert_close(source, augment(images, StepRandom(0, 0), AugmentationConfig(noise=0)))
    source, target = augment_pair(images, images, StepRandom(0, 0), with_only(noise=0.02))
    assert not torch.equal(source, target)


def test_flip_mirrors_that_share_of_the_faces():
    images = faces(400, height=4, width=4)
    flipped = augment(images, StepRandom(0, 0), with_only(flip=0.5))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert bool((mirrored ^ kept).all()) and 150 < int(mirrored.sum()) < 250


def spot(x, y, height=33, width=65):
    """A soft spot at (x, y), pixels from the middle."""
    ys, xs = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    return torch.exp(-((ys[:, None] - y) ** 2 + (xs[None] - x) ** 2) / 8)[None, None]


def place(images):
    """Where the spots are, (B, 2) pixels from the middle."""
    height, width = images.shape[-2:]
    weight = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    x = (weight.sum(1) * (torch.arange(width) - width // 2)).sum(1)
    return torch.stack([x, (weight.sum(2) * (torch.arange(height) - height // 2)).sum(1)], 1)


def test_rotation_keeps_distances_in_an_oblong_image():
    spots = spot(8, 0).expand(64, -1, -1, -1)
    found = place(augment(spots, StepRandom(0, 0), with_only(rotation_degrees=30)))
    torch.testing.assert_close(found.norm(dim=1), torch.full((64,), 8.0), atol=0.1, rtol=0)
    angles = torch.rad2deg(torch.atan2(found[:, 1], found[:, 0]))
    assert angles.abs().max() <= 30.5 and angles.min() < -20 and angles.max() > 20


def test_shift_and_scale_stay_within_their_limits():
    moved = place(augment(spot(0, 0).expand(64, -1, -1, -1), StepRandom(0, 0), with_only(shift=0.1)))
    assert moved[:, 0].abs().max() <= 6.6 and moved[:, 1].abs().max() <= 3.4 and moved[:, 0].abs().max() > 5
    scaled = place(augment(spot(10, 0).expand(64, -1, -1, -1), StepRandom(0, 0), with_only(scale=0.1)))[:, 0]
    assert 8.9 <= scaled.min() < 9.4 and 10.6 < scaled.max() <= 11.1


def test_light_is_one_line_of_gray_values_per_face():
    images = faces(32) / 2
    changed = augment(images, StepRandom(0, 0), with_only(brightness=0.2, contrast=0.2))
    for before, after in zip(images.flatten(1), changed.flatten(1), strict=True):
        slope = (after[0] - after[1]) / (before[0] - before[1])
        assert 0.8 <= slope <= 1.2 and (after - slope * before).abs().max() <= 0.2 + 1e-5
        torch.testing.assert_close(after - slope * before, (after - slope * before)[:1].expand(after.shape))


def test_erasing_fills_a_rectangle_of_the_area_asked_for():
    images = torch.full((300, 1, 40, 40), 0.123)
    changed = augment(images, StepRandom(0, 0), with_only(erase_probability=0.5, erase_area=(0.05, 0.1)))
    erased = (changed != images)[:, 0]
    touched = erased.flatten(1).any(1)
    assert 110 < int(touched.sum()) < 190
    for mask, image in zip(erased[touched], changed[touched, 0], strict=True):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None]) and len(image[mask].unique()) == 1
        assert 0.03 <= mask.float().mean() <= 0.13
        assert len(rows.nonzero()) == rows.nonzero().max() - rows.nonzero().min() + 1


def test_gradients_reach_the_faces():
    images = faces(4).requires_grad_()
    augment(images, StepRandom(0, 0), AugmentationConfig()).sum().backward()
    assert images.grad.abs().sum() > 0
