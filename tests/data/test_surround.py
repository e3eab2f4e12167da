"""What all faces have around them does not make strangers alike."""

import pytest
import torch
from torch.nn import functional as F

from synthmtl.balance.copies import TrainingFaces
from synthmtl.data import duplicates
from synthmtl.data.alignment import MARGIN, SIDE
from synthmtl.data.duplicates import near_duplicates, repeats
from synthmtl.data.storage import FaceRows
from synthmtl.data.surround import pixels_that_count
from synthmtl.metrics.memorisation import find_copies

SIZE = 48


def faces(count, seed=0):
    """Smooth pictures that differ from each other by less than from what is around faces."""
    coarse = torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, (SIZE, SIZE), mode="bicubic") * 10 + 150).clamp(0, 255).byte()


def cut_out(images, value=0):
    """Faces in an oval; ``value`` around it."""
    at = torch.arange(SIZE) - (SIZE - 1) / 2
    inside = (at / 15) ** 2 + (at[:, None] / 20) ** 2 <= 1
    return torch.where(inside, images, torch.tensor(value, dtype=torch.uint8))


def test_all_pixels_count_where_no_pixel_is_the_same_in_all_faces():
    assert pixels_that_count(faces(60)) is None
    assert pixels_that_count(cut_out(faces(49))) is None  # of so few nothing can be told
    assert pixels_that_count(faces(1).expand(60, -1, -1, -1)) is None  # one picture: it is all the same
    assert pixels_that_count(torch.full((60, 1, SIZE, SIZE), 9, dtype=torch.uint8)) is None
    assert pixels_that_count(faces(0), None) is None


@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_surround_and_its_edge_do_not_count(value):
    counts = pixels_that_count(cut_out(faces(60), value))
    assert counts.shape == (SIDE, SIDE) and torch.equal(counts, counts.flip(-1))
    at = (torch.arange(SIDE) - (SIDE - 1) / 2) * SIZE / SIDE
    inside = ((at / 15) ** 2 + (at[:, None] / 20) ** 2) ** 0.5
    assert counts[inside < 0.7].all() and not counts[inside > 0.95].any()
    assert not counts[:MARGIN].any() and not counts[:, -MARGIN:].any()
    # Told by two sets as by one, and by rows of a larger one.
    images = cut_out(faces(60), value)
    assert torch.equal(pixels_that_count(images[:20], images[20:]), counts)
    assert torch.equal(pixels_that_count(FaceRows(images.repeat(2, 1, 1, 1), torch.arange(60))), counts)


@pytest.mark.parametrize("value", [0, 255])
def test_strangers_behind_one_mask_are_no_copies_and_copies_are(value, monkeypatch):
    plain = faces(80)
    images = cut_out(plain, value)
    assert len(near_duplicates(images)) == 0
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1))
    changed = {
        "brightened": cut_out((plain.float() * 0.8 + 20).byte(), value),
        "mirrored": images.flip(-1),
        "moved": cut_out(plain.roll(1, -1), value),  # behind a mask that did not move
        "noisy": cut_out((plain.float() + noise).clamp(0, 255).byte(), value),
    }
    for name, copies in changed.items():
        pairs = near_duplicates(images, copies)
        assert torch.equal(pairs.first, pairs.second) and len(pairs) >= 76, name
    assert repeats(torch.cat([images, changed["moved"]]))["near"] >= 76
    monkeypatch.setattr(duplicates, "pixels_that_count", lambda *sets: None)
    assert len(near_duplicates(images)) > 1000  # what the mask would do


def test_filter_and_score_card_look_at_faces_and_not_at_masks():
    images, others = cut_out(faces(80)), cut_out(faces(20, seed=1))
    moved = cut_out(faces(80).roll(1, -1))[:20]
    known = TrainingFaces(images)
    assert known.match(others).max() < 0.95 and known.distance(others)[1].max() < 0.95
    assert known.match(moved).min() > 0.98
    assert not find_copies(images, others).flagged.any()
    assert find_copies(images, moved).flagged.all()
