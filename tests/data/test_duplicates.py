import io
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from synthmtl.data import duplicates
from synthmtl.data.alignment import best_match, reduced
from synthmtl.data.duplicates import MIN_MATCH, duplicate_groups, exact_hash, near_duplicates, perceptual_hash, repeats
from synthmtl.data.storage import FaceRows
from synthmtl.faces import RenderConfig, render_faces

SIZE = 48


def disturbed(images, seed=0):
    """Brighter, weaker in contrast, with a little noise: the same picture to a person."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images.float() * 0.8 + 30 + noise * 2).round().clamp(0, 255).to(torch.uint8)


def test_hash_ignores_brightness_contrast_and_noise(faces):
    images = faces(50, 48)
    one, other = perceptual_hash(images), perceptual_hash(disturbed(images))
    assert one.shape == (50, 64)
    assert (one != other).sum(1).max() <= 8
    unlike = (one[:, None] != one[None]).sum(2)[~torch.eye(50, dtype=torch.bool)]
    assert unlike.min() > 8 and 28 < unlike.float().mean() < 36


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
    assert (found.correlation > 0.99).all() and (found.match >= found.correlation).all()
    assert (found.correlation[found.exact] == 1).all() and not found.mirrored.any()


def test_rows_of_a_set_are_searched_as_their_copies_are(faces):
    images = faces(40, 48)
    images[[4, 21]] = disturbed(images[[30, 9]])
    rows, others = torch.tensor([30, 2, 9, 30]), torch.tensor([21, 4, 5])
    for second in (None, others):
        found = near_duplicates(FaceRows(images, rows), None if second is None else FaceRows(images, second))
        wanted = near_duplicates(images[rows], None if second is None else images[second])
        assert len(found) and all(torch.equal(vars(found)[name], column) for name, column in vars(wanted).items())


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


@pytest.fixture
def with_copies(faces):
    """70 faces, of which 25 are equal, disturbed or mirrored ones of the others."""
    images = faces(70, SIZE)
    images[40:50] = images[[3, 3, 0, 39, 21, 8, 9, 17, 18, 30]]
    images[50:60] = disturbed(images[[3, 5, 6, 12, 13, 20, 34, 35, 36, 37]])
    images[60:65] = disturbed(images[[5, 1, 33, 27, 28]]).flip(-1)
    return images


@pytest.mark.parametrize("two_sets", [False, True])
def test_search_agrees_with_all_pairs_laid_over_each_other(with_copies, two_sets):
    first, second = (with_copies[:40], with_copies[30:]) if two_sets else (with_copies, with_copies)
    i, j = torch.ones(len(first), len(second)).triu(0 if two_sets else 1).nonzero().T
    if two_sets:
        i, j = torch.cartesian_prod(torch.arange(len(first)), torch.arange(len(second))).T
    straight, mirrored = (best_match(reduced(first[i]), reduced(others[j])) for others in (second, second.flip(-1)))
    wanted = torch.maximum(straight, mirrored) > MIN_MATCH
    found = near_duplicates(first, second if two_sets else None)
    assert torch.equal(found.first, i[wanted]) and torch.equal(found.second, j[wanted])
    assert torch.equal(found.mirrored, (mirrored > straight)[wanted])
    assert torch.equal(found.exact, (first[i] == second[j]).flatten(1).all(1)[wanted])
    assert len(found) > 20 and found.mirrored.any() and found.exact.any()


@pytest.mark.parametrize(("chunk", "pictures"), [(1, 1), (7, 3), (16, 64), (70, 4), (71, 25)])
@pytest.mark.parametrize("two_sets", [False, True])
def test_it_does_not_matter_how_many_are_compared_at_once(with_copies, chunk, pictures, two_sets, monkeypatch):
    sets = (with_copies[:33], with_copies[33:]) if two_sets else (with_copies,)
    wanted = near_duplicates(*sets)
    monkeypatch.setattr(duplicates, "_CHUNK", chunk)
    monkeypatch.setattr(duplicates, "_PICTURES", pictures)
    found = near_duplicates(*sets)
    for name in ("first", "second", "exact", "mirrored"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    for name in ("correlation", "match"):
        assert torch.allclose(getattr(found, name), getattr(wanted, name), atol=1e-4)


class Made(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within it, those with memory of their own."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        given = {t.untyped_storage().data_ptr() for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.bytes += tensor.nbytes
        return result


def test_all_blocks_are_compared_in_the_same_memory(with_copies):
    blocks = duplicates._Blocks(60, 60)
    planes, points = duplicates.tangent_planes(with_copies), duplicates.tangent_points(with_copies)
    keys = exact_hash(with_copies)
    with Made() as made:
        for rows, columns in ((slice(60), slice(60)), (slice(60), slice(60, 70)), (slice(60, 70), slice(60, 70))):
            found = blocks.close(
                planes[rows], points[columns], (keys[rows, None], keys[columns]), triangle=rows == columns
            )
            assert made.bytes <= 100 * len(found)  # a few numbers for each candidate
            made.bytes = 0


def test_few_pictures_are_worked_on_at_once(with_copies, monkeypatch):
    counts = []
    monkeypatch.setattr(duplicates, "reduced", lambda faces: counts.append(len(faces)) or reduced(faces))
    monkeypatch.setattr(duplicates, "_CHUNK", 64)
    monkeypatch.setattr(duplicates, "_PICTURES", 16)
    assert len(near_duplicates(with_copies)) > 16
    assert max(counts) == 16


def test_flat_and_dark_faces_are_paired_only_when_identical():
    generator = torch.Generator().manual_seed(0)
    dark = torch.randint(0, 3, (40, 1, 48, 48), generator=generator).to(torch.uint8)  # sensor noise on black
    gray = torch.stack([torch.full((1, 48, 48), level, dtype=torch.uint8) for level in (0, 50, 128, 128)])
    found = near_duplicates(torch.cat([dark, gray]))
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(42, 43)]


def test_groups_follow_chains_and_repeats_are_counted(faces):
    base = faces(6, 48)
    images = torch.cat([base, base[:1], disturbed(base[:2]), base[2:4].flip(-1), base[2:3].flip(-1)])
    group = duplicate_groups(images)
    assert group[0] == group[6] == group[7] and group[1] == group[8]
    assert group[2] == group[9] == group[11] and group[3] == group[10]
    assert len(group.unique()) == 6
    assert repeats(images) == {"exact": 2, "near": 6, "mirrored": 2}


@pytest.fixture
def confirmations(monkeypatch):
    """How many pairs of faces were laid over each other, a number a batch."""
    counts = []

    def counted(first, second, **options):
        counts.append(len(first) if options.get("steps") != 0 else 0)
        return best_match(first, second, **options)

    monkeypatch.setattr(duplicates, "best_match", counted)
    monkeypatch.setattr(duplicates, "_PICTURES", 16)
    return counts


def clip(faces, count, seed=0):
    """Frames of one face, every third of them mirrored: each is alike all others."""
    frames = disturbed(faces(1, SIZE).expand(count, -1, -1, -1), seed)
    frames[::3] = frames[::3].flip(-1)
    return frames


@pytest.mark.parametrize("count", [60, 240])
def test_the_frames_of_a_clip_are_laid_over_each_other_a_few_times_each(faces, confirmations, count):
    assert repeats(clip(faces, count))["near"] == count - 1 and sum(confirmations) <= 4 * count
    confirmations.clear()
    assert duplicate_groups(clip(faces, count)).unique().tolist() == [0] and sum(confirmations) <= 4 * count


def test_chains_are_those_of_all_pairs(with_copies):
    # Mixtures on the way from one face to another are alike their neighbors only.
    steps = torch.linspace(0, 1, 30)[:, None, None, None]
    images = torch.cat([with_copies, ((1 - steps) * with_copies[0] + steps * with_copies[1]).to(torch.uint8)])
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    pairs = near_duplicates(images)
    alike = torch.eye(len(images))
    alike[pairs.first, pairs.second] = alike[pairs.second, pairs.first] = 1
    joined = torch.matrix_power(alike.double(), len(images)) > 0
    groups = duplicate_groups(images)
    assert torch.equal(groups[:, None] == groups, joined)
    assert repeats(images)["near"] == len(images) - len(groups.unique())


def test_many_copies_of_one_picture_are_quick(faces):
    images = faces(1, 16).expand(20_000, -1, -1, -1)
    assert repeats(images) == {"exact": 19_999, "near": 19_999, "mirrored": 0}


def test_empty_sets():
    empty = torch.empty(0, 1, 16, 16, dtype=torch.uint8)
    assert len(near_duplicates(empty)) == len(near_duplicates(empty, empty + 0)) == 0
    assert perceptual_hash(empty).shape == (0, 64) and exact_hash(empty).shape == (0,)


@pytest.fixture(scope="module")
def people():
    """240 rendered faces of as many people."""
    config = RenderConfig(counts=30, image_size=SIZE, subjects=480, sessions_per_subject=1, seed=11)
    faces = render_faces(config)
    assert len(faces.subject.unique()) == 240
    return faces.images


def recompressed(image):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=70)
    return Image.open(data)


def resized(image, factor):
    side = round(SIZE * factor)
    return image.resize((side, side), Image.Resampling.BICUBIC)


def cropped(image, *cut):
    left, top, right, bottom = (0.04 * SIZE * side for side in cut)
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, SIZE - right, SIZE - bottom))


def mirrored(image):
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def turned(image, degrees):
    return image.rotate(degrees, Image.Resampling.BICUBIC)


PLANTS = {
    "mirrored": mirrored,
    "JPEG 70": recompressed,
    "mirrored, JPEG 70": lambda image: recompressed(mirrored(image)),
    "smaller": lambda image: resized(image, 0.9),
    "larger": lambda image: resized(image, 1.1),
    "cropped all around": lambda image: cropped(image, 1, 1, 1, 1),
    "cropped at one side": lambda image: cropped(image, 1, 0, 0, 0),
    "mirrored, cropped at two sides": lambda image: cropped(mirrored(image), 0, 1, 1, 0),
    "turned": lambda image: turned(image, 6),
    "mirrored, turned": lambda image: turned(mirrored(image), -4),
    "darker": lambda image: image.point(lambda level: 0.9 * level),
    "brighter": lambda image: image.point(lambda level: 1.1 * level),
}


def planted(images):
    """A copy of each face, by the kinds in turn."""
    changes = list(PLANTS.values())
    copies = [changes[i % len(changes)](Image.fromarray(image[0].numpy())) for i, image in enumerate(images)]
    copies = [np.array(copy.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for copy in copies]
    return torch.from_numpy(np.stack(copies))[:, None]


@pytest.mark.parametrize("swapped", [False, True])
def test_planted_copies_are_found_and_other_people_are_not(people, swapped):
    copies = planted(people[:200])
    found = near_duplicates(copies, people) if swapped else near_duplicates(people, copies)
    own = found.first == found.second
    assert int(own.sum()) >= 196  # 98 of 100
    assert len(found.second[~own].unique()) <= 1  # 0.5 of 100
    flipped = torch.tensor(["mirrored" in kind for kind in PLANTS])
    assert torch.equal(found.mirrored[own], flipped[found.first[own] % len(PLANTS)])
    assert (found.match > MIN_MATCH).all()


def test_different_people_are_no_duplicates(people):
    found = near_duplicates(people)
    assert len(torch.cat([found.first, found.second]).unique()) <= 1  # of 240


def test_hash_speed(faces):
    images = faces(4000, 48)
    perceptual_hash(images)
    start = time.process_time()
    perceptual_hash(images)
    assert 4000 / (time.process_time() - start) > 2_000  # about 20,000/s on one core; the margin is for busy machines
