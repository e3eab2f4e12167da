import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from synthmtl.data.alignment import SIDE, WHOLE, _slopes, best_match, center, reduced, unit, windows

SIZE = 48
MOVED = torch.tensor([0.05, -0.03, 0.92, 1.04, 0.1])


def random_pictures(cells):
    """40 smooth random pictures of contrasts like a face's, the smoother the fewer cells."""
    coarse = torch.rand(40, 1, cells, cells, generator=torch.Generator().manual_seed(0))
    pictures = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=True) * 255
    return pictures.round().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def smooth():
    return random_pictures(7)


def in_place(first, second):
    return (unit(center(first)) * unit(center(second))).sum(1)


def turned(images, degrees):
    """By another implementation than ours."""
    pictures = [Image.fromarray(image[0].numpy()).rotate(degrees, Image.Resampling.BICUBIC) for image in images]
    return torch.stack([torch.from_numpy(np.array(picture))[None] for picture in pictures])


def test_the_whole_is_the_picture_and_a_window_is_what_it_says(smooth):
    pictures = reduced(smooth)
    torch.testing.assert_close(windows(pictures, torch.tensor(WHOLE).expand(40, -1)), pictures, atol=0.1, rtol=0)
    corner = windows(pictures, torch.tensor([-0.5, -0.5, 0.5, 0.5, 0]).expand(40, -1))
    assert in_place(corner, reduced(smooth[..., : SIZE // 2, : SIZE // 2])).min() > 0.99
    angle = math.radians(5)
    window = torch.tensor([0, 0, math.cos(angle), math.cos(angle), math.sin(angle)])
    assert in_place(windows(pictures, window.expand(40, -1)), reduced(turned(smooth, 5))).min() > 0.99


def test_slopes_are_the_differences_that_windows_make():
    pictures, window, by = reduced(random_pictures(3)), MOVED.expand(40, -1), 0.06  # about a pixel
    slopes = _slopes(windows(pictures, window)[:, 0], window)
    for which, slope in enumerate(slopes):
        change = by * torch.eye(5)[which]
        wanted = (windows(pictures, window + change) - windows(pictures, window - change))[:, 0] / (2 * by)
        assert torch.dist(center(slope), center(wanted)) < 0.1 * center(wanted).norm()


@pytest.mark.parametrize(("degrees", "steps"), [(5, 3), (-8, 3), (10, 5), (-10, 5)])
def test_turned_pictures_lie_on_their_originals_whichever_was_turned(smooth, degrees, steps):
    first, second = reduced(smooth), reduced(turned(smooth, degrees))
    for pair in ((first, second), (second, first)):
        assert (best_match(*pair, steps=steps) > 0.98).float().mean() >= 0.95
    assert in_place(first, second).median() < 0.98


def test_moved_scaled_and_turned_at_once(smooth):
    pictures = reduced(smooth)
    assert best_match(pictures, windows(pictures, MOVED.expand(40, -1)), steps=5).min() > 0.98
    known = best_match(pictures, windows(pictures, MOVED.expand(40, -1)), MOVED.expand(40, -1), steps=0)
    torch.testing.assert_close(known, torch.full((40,), 0.995))  # 1 without what the turn costs


def test_turning_costs_so_much_and_leaning_hardly_nothing(smooth):
    pictures = reduced(smooth)
    costs = []
    for turn in (0.0, 0.01, -0.02, 0.03, -0.1):
        window = torch.tensor([0.0, 0.0, 1.0, 1.0, turn]).expand(40, -1)
        costs.append(1 - best_match(pictures, windows(pictures, window), window, steps=0))
    wanted = torch.tensor([0, 0, 0.0025, 0.005, 0.005])
    torch.testing.assert_close(torch.stack(costs), wanted[:, None].expand(-1, 40), atol=1e-5, rtol=0)


def test_a_longer_search_never_finds_less_and_strangers_stay_strangers(smooth):
    pictures = reduced(smooth)
    others = pictures.roll(1, 0)
    found = [best_match(pictures, others, steps=steps) for steps in range(6)]
    torch.testing.assert_close(found[0], in_place(pictures, others))
    assert all((more >= less).all() for less, more in zip(found, found[1:], strict=False))
    assert found[-1].max() < 0.9


def test_brightness_and_contrast_do_not_matter(smooth):
    first, second = reduced(smooth), reduced(turned(smooth, 5))
    wanted = best_match(first, second)
    for pair in ((0.6 * first + 40, second), (first, 0.6 * second + 40)):
        torch.testing.assert_close(best_match(*pair), wanted, atol=1e-3, rtol=0)


def test_flat_pictures_lie_on_nothing_and_no_pairs_have_no_match(smooth):
    flat = torch.full((40, 1, SIDE, SIDE), 128.0)
    assert (best_match(flat, reduced(smooth)) == 0).all() and (best_match(reduced(smooth), flat) == 0).all()
    assert best_match(flat[:0], flat[:0]).shape == (0,)
