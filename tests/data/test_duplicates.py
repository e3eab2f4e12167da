import time

import pytest
import torch

from synthmtl.data.duplicates import (
    MAX_DISTANCE,
    duplicate_groups,
    exact_hash,
    leaks,
    near_duplicates,
    perceptual_hash,
    repeats,
)


def disturbed(images, seed=0):
    """Brighter, weaker in contrast, with a little noise: the same picture to a person."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images.float() * 0.8 + 30 + noise * 2).round().clamp(0, 255).to(torch.uint8)


def test_hash_ignores_brightness_contrast_and_noise(faces):
    images = faces(50, 48)
    one, other = perceptual_hash(images), perceptual_hash(disturbed(images))
    assert one.shape == (50, 64)
    assert (one != other).sum(1).max() <= MAX_DISTANCE
    unlike = (one[:, None] != one[None]).sum(2)[~torch.eye(50, dtype=torch.bool)]
    assert unlike.min() > MAX_DISTANCE and 28 < unlike.float().mean() < 36


def test_exact_hash(faces):
    images = faces(20)
    changed = images.clone()
    changed[7, 0, 3, 3] ^= 1
    same = exact_hash(images) == exact_hash(changed)
    assert same.tolist() == [i != 7 for i in range(20)]
    assert len(exact_hash(images).unique()) == 20


@pytest.mark.parametrize("channels", [1, 3])
def test_pairs_across_two_sets(faces, channels):
    first = faces(40, 48, channels)
    second = torch.cat([faces(5, 48, channels, seed=9), first[[3, 8]], disturbed(first[[8, 20]])])
    found = near_duplicates(first, second)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(3, 5), (8, 6), (8, 7), (20, 8)]
    assert found.exact.tolist() == [True, True, False, False]
    assert (found.correlation > 0.99).all() and (found.correlation[found.exact] == 1).all()


def test_pairs_within_one_set_are_named_once(faces):
    images = faces(1500, 16)
    images[1400] = images[2]
    images[1200] = images[1100]
    found = near_duplicates(images)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(2, 1400), (1100, 1200)]


def test_search_agrees_with_all_correlations(faces):
    base = faces(60, 48)
    images = torch.cat([base, disturbed(base[:30], 1), disturbed(base[:10], 2)])
    flat = images.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    flat = flat / flat.norm(dim=1, keepdim=True)
    expected = torch.nonzero(((flat @ flat.T) > 0.99).triu(1))
    found = near_duplicates(images)
    assert torch.equal(torch.stack([found.first, found.second], 1), expected) and len(expected) == 50


def test_flat_and_dark_faces_are_paired_only_when_identical():
    generator = torch.Generator().manual_seed(0)
    dark = torch.randint(0, 3, (40, 1, 48, 48), generator=generator).to(torch.uint8)  # sensor noise on black
    gray = torch.stack([torch.full((1, 48, 48), level, dtype=torch.uint8) for level in (0, 50, 128, 128)])
    found = near_duplicates(torch.cat([dark, gray]))
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(42, 43)]


def test_groups_follow_chains_and_repeats_are_counted(faces):
    base = faces(6, 48)
    images = torch.cat([base, base[:1], disturbed(base[:2])])
    group = duplicate_groups(images)
    assert group[0] == group[6] == group[7] and group[1] == group[8]
    assert len(group.unique()) == 6
    assert repeats(images) == (1, 3)


def test_many_copies_of_one_picture_are_quick(faces):
    images = faces(1, 16).expand(20_000, -1, -1, -1)
    assert repeats(images) == (19_999, 19_999)


def test_leaks(table):
    train = table({"happiness": 20, "anger": 20}, size=48)
    fresh = table({"happiness": 5, "anger": 5}, size=48, seed=5)
    train.subject[:] = torch.arange(40) % 8
    test = fresh.replace(images=fresh.images.clone(), subject=torch.tensor([6, 7, 8, 9] + [-1] * 6))
    test.images[0] = train.images[1]  # same label
    test.images[1] = train.images[30]  # other label
    test.images[2] = disturbed(train.images[2:3])[0]
    test.images[3] = disturbed(train.images[31:32])[0]
    none, seen, unseen = leaks({"train": train, "validation": fresh, "test": test})
    assert (none.split, none.other, none.near, none.exact, none.subjects) == ("validation", "train", 0, 0, 0)
    assert (seen.split, seen.other, seen.faces) == ("test", "train", 10)
    assert (seen.exact, seen.near, seen.exact_other_label, seen.near_other_label, seen.subjects) == (2, 4, 1, 2, 2)
    assert seen.rows.tolist() == [0, 1, 2, 3]
    assert (unseen.split, unseen.other, unseen.exact) == ("test", "validation", 6)
    assert seen.to_dict()["near"] == 4 and "rows" not in seen.to_dict()


def test_a_missing_label_is_no_other_label(table):
    train = table({"happiness": 3, "anger": 3})
    test = train.replace(expression=torch.full((6,), -1))
    (leak,) = leaks({"train": train, "test": test})
    assert leak.exact == leak.near == 6 and leak.exact_other_label == leak.near_other_label == 0


def test_empty_sets():
    empty = torch.empty(0, 1, 16, 16, dtype=torch.uint8)
    assert len(near_duplicates(empty)) == 0
    assert perceptual_hash(empty).shape == (0, 64) and exact_hash(empty).shape == (0,)


def test_hash_speed(faces):
    images = faces(4000, 48)
    perceptual_hash(images)
    start = time.process_time()
    perceptual_hash(images)
    assert 4000 / (time.process_time() - start) > 2_000  # about 20,000/s on one core; the margin is for busy machines
