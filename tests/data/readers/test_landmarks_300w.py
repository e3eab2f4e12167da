import numpy as np
import pytest
import torch

from synthmtl.data.readers.formats import detect_format
from synthmtl.data.readers.landmarks_300w import is_300w, read_300w
from synthmtl.errors import InputError


def read(root, **options):
    return read_300w(root, **{"image_size": 16, "channels": 1} | options)


def pts(points, sep="\n"):
    rows = [f"{x:.4f} {y:.4f}" for x, y in points]
    return sep.join(["version: 1", f"n_points:  {len(points)}", "{", *rows, "}"]) + sep


def test_parts_and_their_splits(lay_out, points):
    names = {
        "afw/1": "train", "helen/trainset/2": "train", "helen/testset/3": "test", "lfpw/trainset/4": "train",
        "lfpw/testset/5": "test", "ibug/6": "test", "300W/01_Indoor/7": "test",
    }  # fmt: skip
    files = {f"{name}.pts": pts(points(8, 24)) for name in names} | {f"{name}.png": i for i, name in enumerate(names)}
    root = lay_out(files)
    assert is_300w(root) and is_300w(root / "helen") and is_300w(root / "ibug")
    tables = read(root)
    for split, table in tables.items():
        wanted = sorted(str(root / f"{name}.png") for name, own in names.items() if own == split)
        assert sorted(table.files) == wanted and table.classes == ()
    assert list(read(root / "helen")) == ["train", "test"] and list(read(root / "ibug")) == ["all"]


def test_points_are_in_the_box_around_them(lay_out, points):
    """The square has half as much again as the points; pixel 1, 1 is centered half a pixel from the corner."""
    marks = points(9, 25) - (0, 2)
    picture = torch.arange(40 * 40).reshape(1, 40, 40).remainder(251).to(torch.uint8)
    root = lay_out(
        {"a.pts": "\ufeff" + pts(marks + 0.5, "\r\n"), "a.JPG": 1, "b.pts": pts(marks + 0.5), "b.png": picture}
    )
    table = read(root, image_size=24)["all"]
    expected = (marks - marks.min(0)) / 16 * (2 / 3) + 1 / 6
    np.testing.assert_allclose(table.landmarks[0], expected, atol=1e-5)
    assert torch.equal(table.images[1], picture[:, 3:27, 5:29])


def test_a_box_beyond_the_picture_repeats_its_border(lay_out, points):
    picture = torch.arange(32).repeat(32, 1)[None].to(torch.uint8)
    root = lay_out({"a.pts": pts(points(0, 32) + 0.5), "a.png": picture})
    image = read(root, image_size=48)["all"].images[0, 0]
    assert image[0, :8].tolist() == [0] * 8 and image[40, -8:].tolist() == [31] * 8
    assert image[20, 8:40].tolist() == list(range(32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (pts(np.ones((67, 2))), "b.pts: 67 points instead of 68"),
        (pts(np.ones((69, 2))), "b.pts: 69 points instead of 68"),
        ("", "b.pts: 0 points instead of 68"),
        ("version: 1\nn_points: 68\n{\n1 2\n3\n}\n", "b.pts:5: '3' is no point x y"),
        ("{\n1 nan\n}", "b.pts:2: '1 nan' is no point"),
        (b"\xff\xfe\x00", "b.pts: not UTF-8 text"),
        (pts(np.ones((68, 2))), "b.png: the face's box .* does not suit"),
        (pts(np.linspace(500, 600, 136).reshape(68, 2)), "b.png: the face's box .* does not suit"),
    ],
)
def test_a_bad_file_is_named_or_skipped(lay_out, points, text, message):
    root = lay_out({"a.pts": pts(points(8, 24)), "a.png": 1, "b.pts": text, "b.png": 2})
    with pytest.raises(InputError, match=message):
        read(root)
    assert len(read(root, on_bad="skip")["all"]) == 1


def test_missing_pictures_and_mixed_folders(lay_out, points):
    root = lay_out({"afw/a.pts": pts(points(8, 24)), "afw/a.png": 1, "afw/b.pts": pts(points(8, 24))})
    with pytest.raises(InputError, match="afw/b.pts: no image .*afw/b.png"):
        read(root)
    lay_out({"afw/b.png": 2, "other/c.pts": pts(points(8, 24)), "other/c.png": 3})
    with pytest.raises(InputError, match="other/c.pts: in no split, though others are"):
        read(root)


def test_folders_of_expressions_are_no_landmark_set(lay_out, points):
    root = lay_out({"train/happiness/0.png": 1, "train/happiness/0.pts": pts(points(8, 24)), "train/fear/1.png": 2})
    assert not is_300w(root) and detect_format(root) == "image_folder"


@pytest.mark.parametrize(
    "labels", [{"metadata.csv": "file_name,expression\nimages/0.png,happy\n"}, {"train/metadata.jsonl": ""}]
)
def test_a_folder_with_metadata_is_no_landmark_set(lay_out, points, labels):
    root = lay_out({"images/0.png": 1, "images/0.pts": pts(points(8, 24))})
    assert is_300w(root)
    assert not is_300w(lay_out(labels))


def test_hidden_files_are_no_landmarks(lay_out):
    assert not is_300w(lay_out({"images/0.png": 1, "images/._0.pts": b"fork"}))
