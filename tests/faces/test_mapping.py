"""Expressions carried over from rendered people: landmarks, pixels, ratios, and who is like whom."""

import numpy as np
import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.faces.changes import RenderedChanges
from synthmtl.faces.mapping import RenderedChange, fit_similarity, map_expression, shape_distances

CLASSES = ("neutral", "happiness", "surprise", "anger")


FREE = [point for point in range(68) if point not in (37, 38, 40, 41, 43, 44, 46, 47)]
"""Landmarks but those of the lids between their corners."""


def openings(places):
    """Distances between the lids, (eye, two points)."""
    return np.linalg.norm(places[[[41, 40], [47, 46]]] - places[[[37, 38], [43, 44]]], axis=2)


@pytest.fixture(scope="module")
def person():
    """A rendered person, neutral and with three expressions, at 64 px."""
    table = render_faces(
        RenderConfig(
            counts=dict.fromkeys(CLASSES, 1),
            subjects=1,
            sessions_per_subject=1,
            image_size=64,
            noise=0.0,
            co_occurrence=0.0,
            intensity_range=(1.0, 1.0),
            seed=3,
        )
    ).with_classes(CLASSES)
    order = table.expression.argsort()
    return table.select(order)


def change_of(table, expression):
    places = table.landmarks.double().numpy()
    images = table.images.float()
    return RenderedChange(images[0], images[expression], places[0], places[expression])


def turned(points, degrees, size, shift):
    angle = np.deg2rad(degrees)
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + shift


def test_a_similarity_is_recovered_and_inverted(person):
    points = person.landmarks[0].double().numpy()
    onto = turned(points, 17.0, 0.8, np.array([0.1, -0.05]))
    found = fit_similarity(points, onto)
    assert np.allclose(found(points), onto)
    assert np.allclose(found.inverse(found(points)), points)


def test_shapes_are_compared_whatever_their_place_turn_and_size(person):
    points = person.landmarks.double().numpy()
    others = np.stack([turned(points[0], -20.0, 1.3, np.array([0.2, 0.1])), points[2]])
    alike, other = shape_distances(points[0], others)
    assert alike < 1e-12 < other
    # In units of the first: a face of half the size is half as far away.
    assert shape_distances(points[0] / 2, others)[1] == pytest.approx(other / 2)


def test_no_change_leaves_a_photograph_as_it_is(person):
    places = person.landmarks[0].double().numpy()
    face = torch.linspace(40, 200, 64).repeat(1, 64, 1)
    still = change_of(person, 0)
    mapped, moved = map_expression(face, places, still)
    assert np.allclose(moved, places)
    # The plate is not quite stiff enough to leave places where they are to the last digit.
    assert (mapped - face).abs().max() < 1.0


@pytest.mark.parametrize("expression", [1, 2, 3])
def test_a_persons_own_change_makes_nearly_the_true_face(person, expression):
    change = change_of(person, expression)
    mapped, moved = map_expression(change.before, change.places_before, change)
    assert np.allclose(moved[FREE], change.places_after[FREE])
    assert np.allclose(openings(moved), openings(change.places_after), rtol=0.35)
    # What moving and the ratio cannot make are painted teeth of full brightness, and eyes whose iris stays round.
    left = (mapped - change.after).abs().mean()
    assert left < 0.8 * (change.before - change.after).abs().mean()
    # The mouth, where an edit is seen first, is nearer still.
    top, bottom = (change.places_after[48:68, 1].min() * 64 - 4, change.places_after[48:68, 1].max() * 64 + 4)
    mouth = (slice(None), slice(int(top), int(bottom)), slice(20, 44))
    assert (mapped - change.after)[mouth].abs().mean() < 0.75 * (change.before - change.after)[mouth].abs().mean()


def test_the_hairline_stays(person):
    """A stripe across the forehead, well above the brows, is where it was when they are lowered or raised."""
    for expression in (2, 3):
        change = change_of(person, expression)
        places = turned(change.places_before, 0.0, 0.6, np.array([0.2, 0.35]))
        high = int((places[27, 1] - 1.1 * (places[33, 1] - places[27, 1])) * 64)
        assert high > 4
        face = torch.full((1, 64, 64), 60.0)
        face[:, :high] = 180.0
        mapped, moved = map_expression(face, places, change)
        brow = np.abs(moved - places)[17:27, 1].max() * 64
        middle = slice(int(places[19, 0] * 64), int(places[24, 0] * 64))
        edge = (mapped[0, :, middle] > 120).sum(0).float().mean()
        assert abs(float(edge) - high) < 0.5 < brow


def test_landmarks_move_as_on_a_face_of_that_size_and_turn(person):
    change = change_of(person, 2)
    places = turned(change.places_before, 15.0, 0.7, np.array([0.2, 0.05]))
    _, moved = map_expression(change.before, places, change)
    assert np.allclose(moved[FREE], turned(change.places_after, 15.0, 0.7, np.array([0.2, 0.05]))[FREE])


def test_lids_open_and_close_in_proportion_and_never_cross(person):
    change = change_of(person, 3)
    grown = (openings(change.places_after).mean(1) / openings(change.places_before).mean(1))[:, None]
    narrow = change.places_before.copy()
    for upper, lower in (([37, 38], [41, 40]), ([43, 44], [47, 46])):
        middle = (narrow[upper] + narrow[lower]) / 2
        narrow[upper], narrow[lower] = (middle + 0.2 * (narrow[part] - middle) for part in (upper, lower))
    _, moved = map_expression(change.before, narrow, change)
    assert (grown < 1).all()  # anger narrows the eyes
    assert np.allclose(openings(moved), np.maximum(grown, 0.3) * openings(narrow))
    assert (moved[[41, 40, 47, 46], 1] > moved[[37, 38, 43, 44], 1]).all()


def test_teeth_are_hardly_brighter_than_skin(person):
    places = person.landmarks[0].double().numpy()
    flash = RenderedChange(torch.full((1, 64, 64), 50.0), torch.full((1, 64, 64), 250.0), places, places)
    mapped, _ = map_expression(torch.full((1, 64, 64), 130.0), places, flash)
    column, row = (places[62] * 64).astype(int)
    assert mapped[0, row, column] == pytest.approx(170.0, abs=0.5)


def test_a_ratio_changes_the_lower_face_alone(person):
    places = person.landmarks[0].double().numpy()
    darker = RenderedChange(torch.full((1, 64, 64), 112.0), torch.full((1, 64, 64), 50.0), places, places)
    mapped, _ = map_expression(torch.full((1, 64, 64), 188.0), places, darker)
    column, row = (places[33] * 64).astype(int)
    mouth_column, mouth_row = (places[62] * 64).astype(int)
    # (188 + 12) · (50 + 12) / (112 + 12) - 12
    assert mapped[0, mouth_row, mouth_column] == pytest.approx(88.0, abs=0.5)
    eyes = places[36:48, 1].max()
    above = mapped[0, : int(eyes * 64)]
    assert (above - 188).abs().max() < 0.5
    assert (mapped[0, :, 0] - 188).abs().max() < 0.5  # beside the face


def test_colors_are_mapped_too(person):
    change = change_of(person, 1)
    colored = RenderedChange(
        change.before.expand(3, -1, -1), change.after.expand(3, -1, -1), change.places_before, change.places_after
    )
    gray, _ = map_expression(change.before, change.places_before, change)
    color, _ = map_expression(change.before.expand(3, -1, -1), change.places_before, colored)
    assert torch.allclose(color, gray.expand(3, -1, -1))


@pytest.fixture(scope="module")
def changes():
    return RenderedChanges(CLASSES, 32, 1, people=12, seed=5)


def test_a_photograph_gets_every_other_expression(changes):
    config = RenderConfig(counts={"neutral": 2}, subjects=2, sessions_per_subject=1, image_size=32, seed=9)
    faces = render_faces(config).with_classes(CLASSES)
    places = faces.landmarks[0].double().numpy()
    made = changes.apply(faces.images[0], places, np.random.default_rng(1))
    assert made.shape == (3, 1, 32, 32) and made.dtype == torch.uint8
    assert [CLASSES[k] for k in changes.expressions] == ["happiness", "surprise", "anger"]
    assert torch.equal(made, changes.apply(faces.images[0], places, np.random.default_rng(1)))
    for face in made:
        assert (face.float() - faces.images[0].float()).abs().mean() > 1
    assert len({face.numpy().tobytes() for face in made}) == 3


def test_people_are_like_themselves(changes):
    own = [changes.nearest(changes._places[rows[0]], np.random.default_rng(0)) for rows in changes._rows]
    assert None not in own


def test_what_is_no_face_is_like_nobody(changes):
    scattered = np.random.default_rng(0).random((68, 2))
    assert changes.nearest(scattered, np.random.default_rng(0)) is None
    assert changes.apply(torch.zeros(1, 32, 32, dtype=torch.uint8), scattered, np.random.default_rng(0)) is None
    one_point = np.full((68, 2), 0.5)
    assert changes.nearest(one_point, np.random.default_rng(0)) is None


@pytest.mark.parametrize("classes", [("happiness", "anger"), ("neutral",)])
def test_there_is_nothing_to_map(classes):
    with pytest.raises(InputError, match="mapping needs neutral faces and another expression"):
        RenderedChanges(classes, 32, 1)
