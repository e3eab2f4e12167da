"""Augmentation: deterministic, one view for a pair, each variation as strong as configured."""

import dataclasses

import pytest
import torch

from synthmtl.data.augmentation import (
    FLIPPED_LANDMARKS,
    AugmentationConfig,
    augment,
    augment_landmarks,
    augment_pair,
    flip_landmarks,
)
from synthmtl.data.randomness import StepRandom
from synthmtl.data.sampling import EpochSampler
from synthmtl.data.streams import RecognitionStream
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

OFF = AugmentationConfig(
    flip=0, rotation_degrees=0, shift=0, scale=0, brightness=0, contrast=0, noise=0, erase_probability=0
)


def faces(count=16, channels=1, height=24, width=24):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def with_only(**strengths):
    return dataclasses.replace(OFF, **strengths)


BAD = {"flip": 1.1, "rotation_degrees": -1, "shift": -0.1, "scale": 1.0, "brightness": float("nan"), "contrast": -0.2}
BAD |= {"noise": -1, "erase_probability": 2, "erase_area": (0.2, 0.1)}


@pytest.mark.parametrize("name", BAD)
def test_strengths_out_of_range_are_refused(name):
    assert BAD.keys() == {field.name for field in dataclasses.fields(AugmentationConfig)}
    with pytest.raises(InputError, match=f"^augmentation {name} .* not "):
        with_only(**{name: BAD[name]})


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


def dotted(landmarks, height, width):
    """Faces whose landmarks are bright dots, wider than a pixel, one channel for each."""
    ys, xs = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    x, y = (landmarks[..., None, None] * torch.tensor([width, height])[:, None, None]).unbind(2)
    return 2 * torch.exp(-((ys[:, None] - y).square() + (xs - x).square()) / 6) - 1


def dots(images):
    """Where the dots of :func:`dotted` are, (B, 68, 2) in [0, 1]."""
    height, width = images.shape[-2:]
    weight = (images + 1).square()
    weight = weight / weight.sum((2, 3), keepdim=True)
    x = (weight.sum(2) * (torch.arange(width) + 0.5)).sum(2) / width
    return torch.stack([x, (weight.sum(3) * (torch.arange(height) + 0.5)).sum(2) / height], 2)


@pytest.mark.parametrize("size", [(48, 48), (40, 64)])
@pytest.mark.parametrize(
    "strengths", [{"flip": 0.5}, {"rotation_degrees": 25}, {"shift": 0.1}, {"scale": 0.2}, None], ids=str
)
def test_landmarks_stay_on_their_places_of_the_face(size, strengths):
    # Away from the border, where a dot and its reflection would be taken for one.
    landmarks = 0.3 + 0.4 * torch.rand(24, 68, 2, generator=torch.Generator().manual_seed(1))
    config = with_only(flip=0.5, rotation_degrees=15, shift=0.05, scale=0.1) if strengths is None else None
    config = config or with_only(**strengths)
    moved = augment_landmarks(landmarks, size, StepRandom(0, 0), config)
    found = dots(augment(dotted(landmarks, *size), StepRandom(0, 0), config))
    mirrored = StepRandom(0, 0).uniform("augment/flip", 24) < config.flip
    # The channels keep their dots: in a mirror image, the dot of a point is that of its counterpart.
    found = torch.where(mirrored[:, None, None], found[:, list(FLIPPED_LANDMARKS)], found)
    torch.testing.assert_close(moved, found, atol=0.3 / min(size), rtol=0)
    assert (moved - landmarks).abs().amax((1, 2)).gt(0.5 / min(size)).float().mean() > 0.3


def test_mirrored_landmarks_keep_their_meaning():
    numbers = torch.arange(68)
    permutation = torch.tensor(FLIPPED_LANDMARKS)
    assert torch.equal(permutation[permutation], numbers)
    parts = {"jaw": range(17), "brows": range(17, 27), "nose": range(27, 36), "eyes": range(36, 48),
             "outer lips": range(48, 60), "inner lips": range(60, 68)}  # fmt: skip
    for part in parts.values():
        assert sorted(permutation[list(part)].tolist()) == list(part)
    # The middle line stays, the corners of eyes and mouth change sides, and so do upper lids.
    assert [n for n in range(68) if permutation[n] == n] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    for a, b in ((0, 16), (17, 26), (31, 35), (36, 45), (39, 42), (37, 44), (41, 46), (48, 54), (60, 64), (61, 63)):
        assert permutation[a] == b
    landmarks = torch.rand(2, 68, 2)
    flipped = flip_landmarks(landmarks)
    assert torch.equal(flipped[:, 36, 1], landmarks[:, 45, 1])
    torch.testing.assert_close(flipped[:, 36, 0], 1 - landmarks[:, 45, 0])
    torch.testing.assert_close(flip_landmarks(flipped), landmarks)


def test_missing_landmarks_stay_missing_and_those_outside_become_so():
    landmarks = torch.full((64, 68, 2), 0.5)
    landmarks[:, 3] = float("nan")
    landmarks[:, 8, 0] = 0.999
    landmarks[5] = float("nan")
    moved = augment_landmarks(landmarks, (48, 48), StepRandom(0, 0), with_only(rotation_degrees=10, shift=0.08))
    known = ~moved.isnan()
    assert torch.equal(known[..., 0], known[..., 1])
    others = [n for n in range(68) if n not in (3, 8)]
    rows = [n for n in range(64) if n != 5]
    assert not known[:, 3].any() and not known[5].any() and known[rows][:, others].all()
    assert 10 < int(known[:, 8, 0].sum()) < 54
    assert moved[known].min() >= 0 and moved[known].max() <= 1
    assert torch.equal(augment_landmarks(landmarks, (48, 48), StepRandom(0, 0), OFF).isnan(), landmarks.isnan())


def test_a_stream_moves_landmarks_with_the_faces():
    # All landmarks of a face in one dot, which a mirror image cannot mix up.
    landmarks = (0.35 + 0.3 * torch.rand(4, 1, 2, generator=torch.Generator().manual_seed(2))).repeat(1, 68, 1)
    pixels = ((dotted(landmarks, 48, 48)[:, :1] + 1) * 127.5).round().to(torch.uint8)
    table = FaceTable(images=pixels, classes=("neutral",), landmarks=landmarks)
    config = with_only(flip=0.5, rotation_degrees=15, shift=0.05, scale=0.1)

    def batch_of(table, augmentation):
        sampler = EpochSampler(torch.arange(4), 4, 0)
        return RecognitionStream(table, sampler, augmentation=augmentation, seed=3)(0)

    batch, still = batch_of(table, config), batch_of(table, None)
    torch.testing.assert_close(batch.landmarks[:, :1], dots(batch.image), atol=0.3 / 48, rtol=0)
    assert not torch.allclose(still.landmarks, batch.landmarks, atol=0.01)
    without = batch_of(table.replace(landmarks=None), config)
    assert without.landmarks.isnan().all() and torch.equal(without.image, batch.image)
