import csv
import math

import numpy as np
import pytest
import torch

from synthmtl.data.load import read_tables
from synthmtl.data.readers.london import COLUMNS, OUTLINE, POINTS, is_london, read_london, to_300w
from synthmtl.errors import InputError

MIRRORED = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip
"""Index of the same place on the other side of the face, in 300-W's scheme."""

MIRRORED_TEMPLATE = dict(zip(*OUTLINE, strict=True)) | {
    71: 82, 72: 81, 73: 80, 74: 79, 75: 78, 76: 77, 18: 27, 19: 26, 20: 25, 21: 24, 22: 23, 28: 33, 29: 32, 30: 31,
    50: 56, 51: 57, 52: 58, 53: 59, 54: 60, 55: 55, 63: 68, 64: 69, 65: 70, 180: 181, 87: 93, 88: 92, 89: 91, 90: 90,
    94: 98, 95: 97, 96: 96, 99: 103, 100: 102, 101: 101, 104: 108, 105: 107, 106: 106,
}  # fmt: skip


def template(seed=0):
    """(189, 2) points of a face that does not exist: the eyes level, the outline curved, the others anywhere."""
    points = np.random.default_rng(seed).uniform(40, 60, (189, 2))
    points[[18, 27]] = [[30, 45], [70, 45]]
    for side, sign in zip(OUTLINE, (-1, 1), strict=True):
        angle = np.linspace(-0.3, math.pi / 2, len(side))
        points[list(side)] = np.stack([50 + sign * 30 * np.cos(angle), 48 + 45 * np.sin(angle)], 1)
    return points


@pytest.fixture
def london(lay_out):
    """london(points={name: (189, 2)}, sizes=(32, 32)) → a folder of two people, neutral and smiling."""

    def make(points, size=(32, 32)):
        height, width = size
        names = [f"{kind}/{who}.jpg" for kind in ("neutral", "happiness") for who in ("007", "010")]
        rows = ["file_name,subject,expression,age,gender,ethnicity"]
        rows += [f"{n},{n[-7:-4]},{n.split('/')[0]},{'' if '010' in n else 31},female,white" for n in names]
        given = [",".join([name, *(f"{number:.4f}" for number in place.ravel())]) for name, place in points.items()]
        pictures = torch.arange(4 * height * width).reshape(4, 1, height, width).remainder(251).to(torch.uint8)
        return lay_out(
            {
                "metadata.csv": "\n".join(rows) + "\n",
                "landmarks.csv": "\n".join([",".join(COLUMNS), *given]) + "\n",
                **dict(zip(names, pictures, strict=True)),
            }
        )

    return make


def test_every_point_of_300w_has_a_place():
    assert sorted(POINTS) == list(range(17, 68))
    for weights in POINTS.values():
        assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) > 0
    mapped = to_300w(template())
    assert mapped.shape == (68, 2) and np.isfinite(mapped).all()


def test_a_point_that_corresponds_is_that_point():
    points = template()
    mapped = to_300w(points)
    for index, weights in POINTS.items():
        if len(weights) == 1:
            assert np.array_equal(mapped[index], points[next(iter(weights))])
    assert np.array_equal(mapped[8], points[129])


def test_the_map_is_the_same_on_both_sides():
    points = template(1)
    mirrored = points.copy()
    for one, other in MIRRORED_TEMPLATE.items():
        mirrored[[one, other]] = points[[other, one]]
    mirrored[:, 0] = 100 - mirrored[:, 0]
    expected = to_300w(points)[MIRRORED]
    expected[:, 0] = 100 - expected[:, 0]
    np.testing.assert_allclose(to_300w(mirrored), expected)


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.0])
def test_the_map_turns_and_grows_with_the_face(angle):
    turn = 3 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = template(2)
    np.testing.assert_allclose(to_300w(points @ turn + 7), to_300w(points) @ turn + 7)


def test_the_jaw_has_equal_steps_from_the_eyes_to_the_chin():
    mapped = to_300w(template())
    assert mapped[[0, 16], 1] == pytest.approx(45)  # the eyes' corners
    for side in (mapped[:9], mapped[16:7:-1]):
        steps = np.linalg.norm(np.diff(side, axis=0), axis=1)
        assert steps.max() / steps.min() < 1.02  # chords of a curve cut its steps a little
        assert (np.diff(side[:, 1]) > 0).all()


def test_an_outline_that_begins_below_the_eyes_is_taken_from_its_beginning():
    points = template()
    points[[18, 27], 1] = 10
    assert np.array_equal(to_300w(points)[[0, 16]], points[[134, 144]])


def test_a_missing_template_point_is_missing_where_it_is_needed_only():
    points = template()
    points[[104, 20]] = np.nan
    missing = np.isnan(to_300w(points)).any(1)
    assert np.flatnonzero(missing).tolist() == [37, 38, 59]
    points[129] = np.nan
    assert np.isnan(to_300w(points)[:17]).all()


def test_faces_labels_and_landmarks(london):
    points = template() * 0.32
    root = london({"neutral/010.jpg": points, "neutral/007.jpg": points + 1})
    assert is_london(root) and not is_london(root / "landmarks.csv") and not is_london(root / "neutral")
    (table,) = read_london(root, image_size=16, channels=1).values()
    assert table.classes == ("neutral", "happiness") and table.counts() == {"neutral": 2, "happiness": 2}
    rows = {file.removeprefix(f"{root.as_posix()}/"): row for row, file in enumerate(table.files)}
    assert table.subject[rows["neutral/007.jpg"]] == table.subject[rows["happiness/007.jpg"]]
    assert len(table.subject.unique()) == 2
    assert table.attributes["age"].nan_to_num(-1).tolist().count(31) == 2
    assert list(table.attributes) == ["age", "ethnicity", "gender"]
    expected = torch.from_numpy(to_300w(points) / 32).float()
    torch.testing.assert_close(table.landmarks[rows["neutral/010.jpg"]], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(table.landmarks[rows["neutral/007.jpg"]], expected + 1 / 32, atol=1e-5, rtol=0)
    assert table.landmarks[rows["happiness/010.jpg"]].isnan().all()


def test_landmarks_follow_the_central_square(london):
    points = template() * 0.32
    (table,) = read_london(london({"neutral/010.jpg": points}, (32, 48)), image_size=16, channels=1).values()
    row = table.files.index(next(file for file in table.files if file.endswith("neutral/010.jpg")))
    expected = torch.from_numpy((to_300w(points) - (8, 0)) / 32).float()
    torch.testing.assert_close(table.landmarks[row], expected, atol=1e-5, rtol=0)


def test_load_recognizes_the_set_by_its_points(london):
    root = london({"neutral/007.jpg": template() * 0.32})
    assert not read_tables(root, image_size=16, channels=3)["all"].landmarks.isnan().all()
    few = [COLUMNS[:-2], ["neutral/007.jpg", *["3"] * 376]]
    with (root / "landmarks.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(few)
    assert not is_london(root) and read_tables(root, image_size=16, channels=1)["all"].landmarks.isnan().all()
    with pytest.raises(InputError, match=r"landmarks.csv:1: .*189 template points"):
        read_tables(root, image_size=16, channels=1, format="london")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["neutral/007.jpg", *["a"] * 378], "landmarks.csv:2: .*pixels as numbers"),
        (["neutral/007.jpg", *["1"] * 377], "landmarks.csv:2: 378 cells"),
        (["neutral/999.jpg", *["1"] * 378], "landmarks.csv:2: no image .*999.jpg"),
    ],
)
def test_bad_rows_are_named(london, row, message):
    root = london({})
    with (root / "landmarks.csv").open("a", newline="") as stream:
        csv.writer(stream).writerow(row)
    with pytest.raises(InputError, match=message) as error:
        read_london(root, image_size=16, channels=1)
    assert "\n" not in str(error.value)


def test_an_empty_cell_is_a_missing_point(london):
    root = london({})
    cells = [f"{number:.3f}" for number in (template() * 0.32).ravel()]
    cells[2 * 106] = ""
    with (root / "landmarks.csv").open("a", newline="") as stream:
        csv.writer(stream).writerow(["neutral/007.jpg", *cells])
    (table,) = read_london(root, image_size=16, channels=1).values()
    given = ~table.landmarks.isnan().any(-1).all(-1)
    assert torch.where(table.landmarks[given][0].isnan().any(-1))[0].tolist() == [56, 57, 58]
