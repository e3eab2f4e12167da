import numpy as np
import pytest
import torch

from synthmtl.faces import anatomy
from synthmtl.faces.head import EYE_VERTICES, SKIN, TEETH, head
from synthmtl.faces.identity import appearance, shapes
from synthmtl.faces.renderer import render
from synthmtl.faces.view import View, camera_axes, rotation_matrix
from synthmtl.labels import EXPRESSIONS

MIRRORED_LANDMARKS = (
    list(range(16, -1, -1))
    + list(range(26, 16, -1))
    + [27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
    + [64, 63, 62, 61, 60, 67, 66, 65]
)


def view_of(shape, *, yaw=0.0, pitch=0.0, roll=0.0, light=(0.0, 0.3, 1.0)):
    center = camera_axes(shape[head().landmarks]).mean(0)
    light = np.array(light) / np.linalg.norm(light)
    rotation = rotation_matrix(yaw=yaw, pitch=pitch, roll=roll)
    background = np.full((6, 6, 3), 0.9)
    return View(rotation, center, 5.5, np.array([0.5, 0.5]), light, 0.4, background)


def draw(coefficients=None, *, subject=3, size=48, **view):
    shape = shapes(0, [subject])
    if coefficients is None:
        coefficients = np.zeros((1, 52), np.float32)
    images, landmarks = render(shape, coefficients, [appearance(0, subject)], [view_of(shape[0], **view)], size=size)
    return images[0], landmarks[0]


def action(**values):
    coefficients = np.zeros((1, 52), np.float32)
    for name, value in values.items():
        for side in anatomy.sides(name):
            coefficients[0, anatomy.ACTION_INDEX[side]] = value
    return coefficients


def test_head_parts_are_consistent():
    model = head()
    assert model.template.shape[0] == model.actions.shape[1] == model.uv.shape[0] == len(model.cavity)
    assert model.triangles.max() < len(model.template)
    assert (model.kind[np.argmax(model.kind == TEETH) :] == TEETH).all()  # last, as the rasteriser needs them
    assert len(set(model.landmarks.tolist())) == 68
    assert (model.kind == SKIN).mean() > 0.5


def test_landmarks_mirror_on_a_symmetric_head():
    _, landmarks = draw()
    mirrored = landmarks[MIRRORED_LANDMARKS] * [-1, 1] + [1, 0]
    assert np.abs(mirrored - landmarks).max() < 0.006


def test_mirrored_actions_move_mirrored_landmarks():
    _, left = draw(action(mouthSmileLeft=1.0))
    _, right = draw(action(mouthSmileRight=1.0))
    assert np.abs(right[MIRRORED_LANDMARKS] * [-1, 1] + [1, 0] - left).max() < 0.01
    assert np.abs(left - right).max() > 0.02


def test_rotation_moves_landmarks_as_named():
    _, rest = draw()
    nose, brow_middle = 30, slice(17, 27)
    assert draw(yaw=15)[1][nose, 0] > rest[nose, 0] + 0.02
    assert draw(pitch=15)[1][nose, 1] < rest[nose, 1] - 0.02
    tipped = draw(roll=15)[1]
    assert tipped[brow_middle, 0].mean() > rest[brow_middle, 0].mean() + 0.02
    eyes = tipped[[36, 45]]
    angle = np.rad2deg(np.arctan2(*(eyes[1] - eyes[0])[::-1]))
    assert angle == pytest.approx(15, abs=0.5)


def test_light_falls_from_where_it_is_said_to():
    left, _ = draw(light=(-1.0, 0.0, 0.6))
    right, _ = draw(light=(1.0, 0.0, 0.6))
    half = slice(12, 24)
    assert left[16:36, half].mean() > right[16:36, half].mean() + 0.05


def test_eyes_lie_under_their_landmarks():
    image, landmarks = draw(size=128)
    gray = image.mean(-1)
    for eye in (landmarks[36:42], landmarks[42:48]):
        low, high = (np.rint(bound * 128).astype(int) for bound in (eye.min(0), eye.max(0)))
        inside = gray[low[1] : high[1] + 1, low[0] : high[0] + 1]
        cheek = gray[low[1] + 14 : high[1] + 15, low[0] : high[0] + 1]
        assert inside.min() < 0.15  # the pupil
        assert np.ptp(inside) > 3 * np.ptp(cheek)
    assert len(EYE_VERTICES) == 2


def test_closed_lips_hide_the_teeth_and_a_smile_shows_them():
    def brightest_over_skin(coefficients):
        image, landmarks = draw(coefficients, size=128)
        low, high = (np.rint(f(landmarks[60:68], 0) * 128).astype(int) for f in (np.min, np.max))
        return image[low[1] : high[1] + 1, low[0] : high[0] + 1].min(-1).max() - image[70:80, 40:50].min(-1).mean()

    bright = action(mouthSmile=0.8, mouthUpperUp=1.0, jawOpen=0.2)
    assert brightest_over_skin(bright) > brightest_over_skin(action()) + 0.15


@pytest.mark.parametrize("expression", range(1, 8))
def test_every_expression_changes_the_picture(expression):
    rest, _ = draw()
    moved, _ = draw(anatomy.recipe_vector(expression)[None])
    assert np.abs(moved - rest).mean() > 0.004, EXPRESSIONS[expression]


def test_a_face_does_not_depend_on_its_company_or_on_threads():
    subjects = list(range(20))
    resting = shapes(0, subjects)
    rng = np.random.default_rng(0)
    coefficients = np.stack([anatomy.sample_actions(index % 8, rng=rng)[0] for index in subjects])
    looks = [appearance(0, subject) for subject in subjects]
    views = [view_of(shape, yaw=index) for index, shape in enumerate(resting)]
    together, points = render(resting, coefficients, looks, views, size=32)
    alone, lone_points = render(resting[5:6], coefficients[5:6], looks[5:6], views[5:6], size=32)
    assert np.array_equal(alone[0], together[5]) and np.array_equal(lone_points[0], points[5])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.array_equal(render(resting, coefficients, looks, views, size=32)[0], together)
    finally:
        torch.set_num_threads(threads)
