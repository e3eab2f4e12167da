import math

import pytest
import torch
from torch.nn import functional as F

from synthmtl.balance import copies
from synthmtl.balance.copies import TrainingFaces
from synthmtl.data.duplicates import MIN_CORRELATION, MIN_MATCH
from synthmtl.faces import RenderConfig, render_faces

SIZE = 48


@pytest.fixture(scope="module")
def table():
    """96 rendered faces of 24 people, four of each, in one session a person."""
    config = RenderConfig(counts=12, image_size=SIZE, subjects=24, sessions_per_subject=1, seed=3)
    return render_faces(config)


def seen(images, *, shift=0.0, degrees=0.0, scale=1.0):
    """As augmentation varies faces; shifts in pixels."""
    angle = math.radians(degrees)
    cos, sin, move = scale * math.cos(angle), scale * math.sin(angle), 2 * shift / SIZE
    theta = torch.tensor([[cos, -sin, move], [sin, cos, -move]]).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8)


VIEWS = {
    "as it is": {},
    "moved by a pixel": {"shift": 1},
    "moved by two": {"shift": -2},
    "turned": {"degrees": 5},
    "larger": {"scale": 0.95},
    "all at once": {"shift": 1, "degrees": -5, "scale": 1.05},
}


def rows_of_others(table, rows):
    """For each row one of another person."""
    return torch.stack([torch.where(table.subject != table.subject[row])[0][int(row) % 40] for row in rows])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_training_faces_match_them(table, view, mirrored):
    rows = torch.arange(0, 96, 2)
    made = seen(table.images[rows], **VIEWS[view])
    made = made.flip(-1) if mirrored else made
    known = TrainingFaces(table.images, table.subject)
    for sources in (None, rows_of_others(table, rows)):
        assert (known.match(made, sources) > MIN_MATCH).float().mean() > 0.85
    if view != "as it is":
        assert (known.distance(made)[1] < MIN_CORRELATION).all()  # why pixels in place do not do


@pytest.mark.parametrize("view", VIEWS)
def test_what_shows_the_person_of_its_source_matches_nothing(table, view):
    rows = torch.arange(96)
    made = seen(table.images, **VIEWS[view])
    known = TrainingFaces(table.images, table.subject)
    # Of any other face of that person, too: an edit to another expression may come out like the true one.
    others = torch.stack([torch.where(table.subject == table.subject[row])[0][-1] for row in rows])
    for sources in (rows, others):
        assert (known.match(made, sources) <= MIN_MATCH).all()


def test_where_people_are_unknown_what_resembles_the_source_matches_nothing(table):
    made, rows = seen(table.images, shift=1), torch.arange(96)
    twice = torch.cat([table.images, table.images, table.images.flip(-1)])
    for images in (table.images, twice):
        unknown = TrainingFaces(images)
        assert (unknown.match(made, rows) <= MIN_MATCH).all()
        assert (unknown.match(made, rows_of_others(table, rows)) > MIN_MATCH).float().mean() > 0.95


def test_half_known_people(table):
    """A face without a subject may show whom the source shows, or not: what counts is whether it resembles it."""
    rows, half = torch.arange(96), torch.where(torch.arange(96) % 2 == 0, table.subject, -1)
    made, known = seen(table.images, shift=1), TrainingFaces(table.images, half)
    assert (known.match(made, rows) <= MIN_MATCH).all()
    assert (known.match(made, rows_of_others(table, rows)) > MIN_MATCH).float().mean() > 0.95


def test_other_people_and_flat_faces_match_nothing(table):
    known = TrainingFaces(table.images, table.subject)
    others = render_faces(RenderConfig(counts=6, image_size=SIZE, subjects=24, seed=4)).images
    assert known.match(others).max() < MIN_MATCH
    flat = torch.full((3, 1, SIZE, SIZE), 90, dtype=torch.uint8)
    assert (known.match(flat) <= 0).all() and (TrainingFaces(flat).match(others) <= 0).all()


def test_nobody_is_left_where_all_faces_show_the_person_of_the_source(table):
    images = table.images[:4]
    one = TrainingFaces(images, torch.zeros(4, dtype=torch.int64))
    assert (one.match(images, torch.arange(4)) == -1).all() and (one.match(images) > MIN_MATCH).all()


def test_orders_batches_mirroring_and_color_do_not_matter(table, monkeypatch):
    made, rows = seen(table.images[::3], degrees=4), rows_of_others(table, torch.arange(0, 96, 3))
    wanted = TrainingFaces(table.images, table.subject).match(made, rows)
    shuffled = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    known = TrainingFaces(table.images[shuffled], table.subject[shuffled])
    color = TrainingFaces(table.images.expand(-1, 3, -1, -1), table.subject)
    monkeypatch.setattr(copies, "_LAID", 7)
    monkeypatch.setattr(copies, "_BLOCK", 20)
    found = [
        known.match(made, shuffled.argsort()[rows]),
        color.match(made.expand(-1, 3, -1, -1), rows),
        TrainingFaces(table.images.flip(-1), table.subject).match(made.flip(-1), rows),
        torch.cat([known.match(made[i : i + 5], shuffled.argsort()[rows[i : i + 5]]) for i in range(0, len(made), 5)]),
    ]
    for other in found:
        torch.testing.assert_close(other, wanted, atol=1e-3, rtol=0)
