import logging

import numpy as np
import pytest
import torch

from synthmtl.data.load import read_tables
from synthmtl.data.readers.affectnet import is_affectnet, read_affectnet
from synthmtl.data.readers.formats import detect_format
from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS

HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"


def read(root, **options):
    return read_affectnet(root, **{"image_size": 16, "channels": 1} | options)


def names(table):
    return [table.classes[i] for i in table.expression.tolist()]


def arrays(split, name, expression, valence=0.5, arousal=-0.25, landmarks=None):
    files = {f"{split}/images/{name}.jpg": ord(name) + len(split)}
    values = {"exp": expression, "val": valence, "aro": arousal}
    # AffectNet holds the expression as text.
    files |= {f"{split}/annotations/{name}_{key}.npy": np.array(str(value)) for key, value in values.items()}
    if landmarks is not None:
        files[f"{split}/annotations/{name}_lnd.npy"] = landmarks
    return files


def row(path, expression=1, valence=0.5, arousal=-0.25, box="4,4,16,16", landmarks=None):
    marks = "" if landmarks is None else ";".join(f"{value:.2f}" for value in landmarks.ravel())
    return f"{path},{box},{marks},{expression},{valence},{arousal}"


def test_arrays(lay_out, points):
    files = {}
    for code in range(8):
        files |= arrays("train_set", str(code), code, landmarks=points(8, 24).ravel() if code else None)
    files |= arrays("val_set", "9", 1, valence=-2, arousal=-2)
    files["val_set/annotations/9_val.npy"] = np.array(-2.0)
    root = lay_out(files)
    assert is_affectnet(root)
    tables = read(root)
    assert {name: len(table) for name, table in tables.items()} == {"train": 8, "validation": 1}
    train = tables["train"]
    assert tuple(names(train)) == EXPRESSIONS == train.classes
    assert train.valence_arousal.tolist() == [[0.5, -0.25]] * 8
    np.testing.assert_allclose(train.landmarks[3], points(8, 24) / 32, atol=1e-6)
    assert train.landmarks[0].isnan().all() and (train.subject == -1).all()
    assert train.files[2] == (root / "train_set/images/2.jpg").as_posix()
    validation = tables["validation"]
    assert validation.classes == EXPRESSIONS and names(validation) == ["happiness"]
    assert validation.valence_arousal.isnan().all() and validation.landmarks.isnan().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_set/annotations/b_exp.npy": np.array("11")},
            "b_exp.npy: expression is '11.0': use a code from 0 to 10",
        ),
        ({"train_set/annotations/b_exp.npy": np.array([None], object)}, "b_exp.npy: no npy file of one number"),
        ({"train_set/annotations/b_exp.npy": b""}, "b_exp.npy: no npy file of one number"),
        (
            {"train_set/annotations/b_val.npy": np.array("1.5")},
            "b_exp.npy: valence is '1.5': use a number from -1 to 1",
        ),
        ({"train_set/annotations/b_lnd.npy": np.zeros(134)}, "b_lnd.npy: 67 points instead of 68"),
        ({"train_set/annotations/b_lnd.npy": np.full(136, 500.0)}, "b_exp.npy: landmarks far from the face"),
        ({"train_set/images/b.jpg": b"no picture"}, "b.jpg: not an image"),
    ],
)
def test_a_bad_array_names_its_file_or_is_skipped(lay_out, caplog, change, message):
    root = lay_out(arrays("train_set", "a", 0) | arrays("train_set", "b", 1) | arrays("train_set", "c", 2) | change)
    with pytest.raises(InputError, match=message):
        read(root)
    with caplog.at_level(logging.WARNING, "synthmtl"):
        assert names(read(root, on_bad="skip")["train"]) == ["neutral", "sadness"]
    assert message.split(":")[0] in caplog.text


def test_a_missing_picture(lay_out):
    root = lay_out(arrays("train_set", "a", 0) | arrays("train_set", "b", 1))
    (root / "train_set/images/b.jpg").unlink()
    with pytest.raises(InputError, match="b_exp.npy: no image .*b.jpg"):
        read(root)
    assert len(read(root, on_bad="skip")["train"]) == 1


@pytest.mark.parametrize("folder", ["", "Manually_Annotated_file_lists/"])
def test_csv_with_byte_order_mark_and_crlf_and_without_header(lay_out, points, folder):
    rows = [row("1/a.png", 3, landmarks=points(4, 20)), row("1/b.png", 6, -2, -2, box="0,0,8,4")]
    rows += [row("2/c.png", code, -2, -2) for code in (8, 9, 10)]
    root = lay_out(
        {
            f"{folder}training.csv": "\ufeff" + "\r\n".join([HEADER, *rows]) + "\r\n",
            f"{folder}validation.csv": row("1/d.png", 7, landmarks=points(4, 20)) + "\n",
            "Manually_Annotated_Images/1/a.png": 1,
            "Manually_Annotated_Images/1/b.png": 2,
            "Manually_Annotated_Images/1/d.png": 3,
        }
    )
    assert is_affectnet(root)
    tables = read(root)
    train = tables["train"]
    assert names(train) == ["surprise", "anger"] and names(tables["validation"]) == ["contempt"]
    np.testing.assert_allclose(train.landmarks[0], (points(4, 20) - 4) / 16, atol=1e-3)
    assert train.valence_arousal[0].tolist() == [0.5, -0.25] and train.valence_arousal[1].isnan().all()


def test_faces_of_the_csv_are_cut_out_by_their_box(lay_out, save):
    picture = torch.arange(32 * 32).reshape(1, 32, 32).remainder(251).to(torch.uint8)
    root = lay_out({"training.csv": f"{HEADER}\n{row('a.png', box='4,6,16,16')}\n", "a.png": picture})
    assert torch.equal(read(root)["train"].images[0], picture[:, 6:22, 4:20])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("b.png", 11), "expression is '11': use a code from 0 to 10"),
        (row("b.png", "happy"), "expression is 'happy'"),
        (row("b.png", valence=3), "valence is '3'"),
        (row("b.png", arousal="much"), "arousal is 'much'"),
        (row("b.png", box="4,4,0,0"), "are no box in pixels"),
        (row("b.png", box="4,4,x,9"), "are no box in pixels"),
        (row("b.png", landmarks=np.ones((67, 2))), "facial_landmarks has 67 points instead of 68"),
        (row("../b.png"), "'../b.png' is no path below the data folder"),
        (row("/etc/b.png"), "'/etc/b.png' is no path below the data folder"),
        (row(r"C:\b.png"), "is no path below the data folder"),
        (row("missing.png"), "no image .*missing.png: delete the row or add the image"),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(lay_out, caplog, bad, message):
    rows = [HEADER, row("a.png"), bad, row("b.png", 2)]
    root = lay_out({"training.csv": "\n".join(rows), "a.png": 1, "b.png": 2, "../b.png": 3})
    with pytest.raises(InputError, match=f"training.csv:3: .*{message}"):
        read(root)
    with caplog.at_level(logging.WARNING, "synthmtl"):
        assert len(read(root, on_bad="skip")["train"]) == 2
    assert "training.csv:3" in caplog.text


def test_a_row_of_another_length_and_a_box_beside_the_picture(lay_out):
    root = lay_out({"training.csv": f"{HEADER}\na.png,1,2\n", "a.png": 1})
    with pytest.raises(InputError, match="training.csv:2: 3 cells where the header has 9"):
        read(root)
    lay_out({"training.csv": f"{HEADER}\n{row('a.png', box='90,90,9,9')}\n"})
    with pytest.raises(InputError, match="a.png: the face's box .90, 90, 99, 99. does not suit 32x32 pixels"):
        read(root)


@pytest.mark.parametrize("splits", [["train/", "val/"], [""]])
def test_folders_by_code(lay_out, splits):
    files = {f"{split}{code}/{i}.jpg": 10 * code + i for split in splits for code in range(8) for i in range(2)}
    tables = read(lay_out(files), classes=("anger", "neutral"))
    assert list(tables) == (["train", "validation"] if splits[0] else ["all"])
    for table in tables.values():
        assert table.counts() == {"neutral": 2, "anger": 2}
        assert all(f"/{0 if name == 'neutral' else 6}/" in f for f, name in zip(table.files, names(table), strict=True))


@pytest.mark.parametrize("split", ["train/", ""])
@pytest.mark.parametrize("count", [7, 8])
def test_numbered_folders_are_affectnets_only_for_who_says_so(lay_out, count, split):
    """FER+, CK+ and Aff-Wild2 have eight codes, too, in other orders."""
    root = lay_out({f"{split}{code}/a.jpg": code for code in range(count)})
    assert not is_affectnet(root) and detect_format(root) == "image_folder"
    cures = "unknown expression folder '0': .*rename the folders, or, .* name that format .--faces.format affectnet;"
    with pytest.raises(InputError, match=cures):
        read_tables(root, image_size=16, channels=1)
    (table,) = read_tables(root, image_size=16, channels=1, format="affectnet").values()
    assert tuple(names(table)) == EXPRESSIONS[:count]


def test_without_faces_the_message_says_what_to_give(lay_out):
    root = lay_out({"other.txt": "x"})
    with pytest.raises(InputError, match="no faces found"):
        read(root)


def test_a_csv_given_by_name_is_the_only_one_that_is_read(lay_out):
    rows = [row(f"1/{i}.png", code) for i, code in enumerate((0, 1, 6))]
    root = lay_out({f"1/{i}.png": i for i in range(3)} | {"training.csv": "\n".join([HEADER, *rows])})
    for name, split in (("my_subset.csv", "all"), ("validation.csv", "validation"), ("test.csv", "test")):
        lay_out({name: f"{HEADER}\n{rows[2]}\n"})
        for _ in range(2):  # beside the lists, and beside folders of numbers only
            tables = read(root / name)
            assert list(tables) == [split] and names(tables[split]) == ["anger"]
            (root / "training.csv").unlink(missing_ok=True)


def test_a_csv_in_the_folder_of_lists_names_pictures_below_the_root(lay_out):
    folder = "Manually_Annotated_file_lists"
    root = lay_out({f"{folder}/training.csv": f"{HEADER}\n{row('1/a.png')}\n", "Manually_Annotated_Images/1/a.png": 1})
    assert len(read(root / folder / "training.csv")["train"]) == 1


def test_a_face_has_one_row_though_a_picture_may_show_several(lay_out):
    rows = [HEADER, row("a.png", 1), row("a.png", 6, box="8,8,16,16")]
    root = lay_out({"training.csv": "\n".join(rows), "a.png": 1})
    assert names(read(root)["train"]) == ["happiness", "anger"]
    lay_out({"Manually_Annotated_file_lists/training.csv": f"{HEADER}\n{row('a.png', 4)}\n"})
    with pytest.raises(
        InputError, match="lists/training.csv:2: a.png has a row already .*set/training.csv:2.: keep one"
    ):
        read(root)
    assert names(read(root, on_bad="skip")["train"]) == ["happiness", "anger"]


def test_hidden_files_are_no_faces(lay_out, tmp_path):
    codes = {f"train/{code}/a.jpg": code for code in range(8)}
    assert len(read(lay_out(codes | {"train/0/._a.jpg": b"fork"}))["train"]) == 8
    files = arrays("train_set", "a", 0) | {"train_set/annotations/._a_exp.npy": b"fork"}
    assert len(read(lay_out(files, tmp_path / "arrays"))["train"]) == 1
