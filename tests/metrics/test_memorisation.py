import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.metrics.memorisation import COPIES, best_crop, feature_neighbors, find_copies, hash_neighbors

SIZE = 48


@pytest.fixture(scope="module")
def real():
    """Smooth random pictures with a little grain, of contrasts like a face's."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(60, 1, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=True) * 255
    return (smooth + 3 * torch.randn(smooth.shape, generator=generator)).round().clamp(0, 255).to(torch.uint8)


def each(images, change):
    return torch.stack([torch.from_numpy(np.array(change(Image.fromarray(image[0].numpy()), i)))[None]
                        for i, image in enumerate(images)])  # fmt: skip


def recompressed(image, i):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return Image.open(data)


def cropped(image, i):
    low, high = np.random.default_rng(i).uniform(0, 0.06, 2), np.random.default_rng(i + 100).uniform(0.94, 1, 2)
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=tuple(SIZE * np.concatenate([low, high])))


def turned(image, i, degrees=10):
    return image.rotate(degrees * (-1) ** i, Image.Resampling.BICUBIC)


def brighter(image, i):
    return image.point(lambda level: 0.8 * level + 30)


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        ("exact", lambda images: images.clone()),
        ("near", lambda images: each(images, recompressed)),
        ("near", lambda images: each(images, brighter)),
        ("mirrored", lambda images: images.flip(-1)),
        ("mirrored", lambda images: each(images.flip(-1), recompressed)),
        ("cropped", lambda images: each(images, cropped)),
        ("cropped", lambda images: each(images, cropped).flip(-1)),
        ("cropped", lambda images: each(images, turned)),
        ("cropped", lambda images: each(each(images, turned).flip(-1), brighter)),
        ("cropped", lambda images: each(each(images, lambda image, i: turned(image, i, 4)), cropped)),
    ],
)
def test_planted_copies_are_found(real, kind, plant):
    planted = plant(real[20:36])
    copies = find_copies(real, planted)
    assert copies.flagged.all()
    assert copies.row.tolist() == list(range(20, 36))
    assert (copies.kind == COPIES.index(kind)).float().mean() > 0.8  # a strong compression may look like a crop


def test_other_pictures_and_noise_are_no_copies(real):
    noise = torch.randint(0, 256, (20, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    flat = torch.full((2, 1, SIZE, SIZE), 128, dtype=torch.uint8)
    for faces in (real[40:], noise, flat):
        copies = find_copies(real[:40], faces)
        assert not copies.flagged.any() and (copies.match < 0.9).all()
        assert copies.row.min() >= 0 and copies.row.max() < 40


def test_faces_of_the_set_itself(real):
    twice = torch.cat([real, real[:1]])
    rows = torch.tensor([0, 1, 2, 60])
    alone = find_copies(twice, twice[rows], own=rows)
    assert alone.kind.tolist() == [0, -1, -1, 0] and alone.row[[0, 3]].tolist() == [60, 0]
    assert (alone.row != rows).all()
    assert find_copies(real, real).kind.tolist() == [0] * 60


def test_color_and_small_sets(real):
    color = real.expand(-1, 3, -1, -1).contiguous()
    assert find_copies(color[:1], color[:1].flip(-1)).kind.tolist() == [2]
    assert len(find_copies(real, real[:0]).kind) == 0
    with pytest.raises(InputError, match="read them alike"):
        find_copies(real, color)


def test_best_crop_of_a_known_window(real):
    window = real[..., 2:46, 1:45].float()
    enlarged = F.interpolate(window, size=(SIZE, SIZE), mode="bicubic", align_corners=False, antialias=True)
    row, match = best_crop(real, enlarged.round().clamp(0, 255).to(torch.uint8)[:10])
    assert row.tolist() == list(range(10)) and match.min() > 0.985


def test_hash_neighbors(real):
    row, bits = hash_neighbors(real, each(real[5:9], brighter))
    assert row.tolist() == [5, 6, 7, 8] and bits.max() <= 4
    row, bits = hash_neighbors(real, real)
    assert bits.tolist() == [0] * 60


def test_authenticity_of_copies_of_draws_and_of_noise():
    generator = torch.Generator().manual_seed(0)
    real, fresh = torch.randn(800, 8, generator=generator), torch.randn(400, 8, generator=generator)
    copies = feature_neighbors(real, real)
    assert copies.row.tolist() == list(range(800)) and not copies.authentic.any() and (copies.closeness == 0).all()
    draws = feature_neighbors(real, fresh)
    assert 0.45 < draws.authentic.float().mean() < 0.75
    assert feature_neighbors(real, fresh + 20).authentic.all()
    slow = torch.cdist(fresh.double(), real.double())
    among = torch.cdist(real.double(), real.double()).fill_diagonal_(float("inf")).min(1).values
    assert torch.equal(draws.row, slow.argmin(1))
    torch.testing.assert_close(draws.spacing, among[draws.row])
    assert torch.equal(draws.authentic, slow.min(1).values > among[draws.row])
    with pytest.raises(InputError, match="neighbors"):
        feature_neighbors(real[:1], fresh)
