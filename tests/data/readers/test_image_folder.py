import json
import logging
import unicodedata
import zipfile

import pytest
import torch

from synthmtl.data.readers.image_folder import canonical_split, read_image_folder
from synthmtl.errors import InputError


def read(root, **options):
    return read_image_folder(root, **{"image_size": 16, "channels": 1} | options)


def zipped(root, target, prefix=""):
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(root).as_posix())
    return target


@pytest.mark.parametrize(
    ("name", "split"),
    [("Train", "train"), ("training", "train"), ("val", "validation"), ("valid", "validation"), ("dev", "validation"),
     ("PublicTest", "validation"), ("Testing", "test"), ("test-set", "test"), ("extra", None)],
)  # fmt: skip
def test_split_aliases(name, split):
    assert canonical_split(name) == split


def test_splits_and_aliases(folder, caplog):
    root = folder({"training/Angry": 2, "training/happy": 3, "val/angry": 1, "Test/fear": 1})
    with caplog.at_level(logging.INFO, "synthmtl"):
        tables = read(root)
    assert list(tables) == ["train", "validation", "test"]
    assert {table.classes for table in tables.values()} == {("happiness", "fear", "anger")}
    assert tables["train"].counts() == {"happiness": 3, "fear": 0, "anger": 2}
    assert "read 'Angry' as 'anger'" in caplog.text and "read 'val' as 'validation'" in caplog.text


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "no label", "unknown"])
def test_faces_of_an_unlabeled_folder_have_no_expression(folder, name):
    tables = read(folder({"train/anger": 2, f"train/{name}": 3, "test/fear": 1}))
    assert tables["train"].counts() == {"fear": 0, "anger": 2}
    assert sorted(tables["train"].expression.tolist()) == [-1, -1, -1, 1, 1]


def test_without_splits_all_is_one_table(folder):
    tables = read(folder({"anger": 2, "neutral": 2}))
    assert list(tables) == ["all"] and tables["all"].counts() == {"neutral": 2, "anger": 2}
    assert tables["all"].files[0].endswith("set/anger/000.png")


def test_zip_gives_the_same_as_the_folder(folder, tmp_path):
    root = folder({"train/anger": 2, "train/neutral": 3, "test/anger": 1})
    (root / "train" / "anger" / ".hidden.png").write_text("not an image")
    (root / "Thumbs.db").write_text("nor this")
    archive = zipped(root, tmp_path / "set.zip", prefix="outer/inner/")
    before = sorted(tmp_path.rglob("*"))
    for name, table in read(root).items():
        other = read(archive)[name]
        assert torch.equal(table.images, other.images) and torch.equal(table.expression, other.expression)
    assert sorted(tmp_path.rglob("*")) == before


def test_one_wrapping_folder_is_stepped_into(folder, tmp_path):
    folder({"train/anger": 2, "train/neutral": 1}, root=tmp_path / "outer" / "fer2013")
    assert list(read(tmp_path / "outer")) == ["train"]


def test_metadata_gives_labels_order_and_splits(folder):
    root = folder({"images": 4})
    rows = ["file_name,split,label,subject,age", "images/003.png,train,happy,b,30", "images/001.png,train,sad,a,"]
    (root / "metadata.csv").write_text("\n".join([*rows, "images/000.png,test,happy,a,20", "images/002.png,dev,,c,1"]))
    tables = read(root)
    assert [file[-7:] for file in tables["train"].files] == ["003.png", "001.png"]
    assert tables["train"].expression.tolist() == [0, 1] and tables["validation"].expression.tolist() == [-1]
    assert tables["train"].subject.tolist() == [1, 0] and tables["test"].subject.tolist() == [0]
    assert tables["test"].attributes["age"].tolist() == [20.0]


def test_metadata_in_each_split_folder(folder):
    root = folder({"train": 2, "test": 1})
    for split, names in (("train", ("000.png", "001.png")), ("test", ("000.png",))):
        rows = [json.dumps({"file_name": name, "expression": "fear", "AU1": 0.5}) for name in names]
        (root / split / "metadata.jsonl").write_text("\n".join(rows))
    tables = read(root)
    assert {name: len(table) for name, table in tables.items()} == {"train": 2, "test": 1}
    assert tables["test"].action_units[0, 0] == 0.5


def test_stray_picture_beside_the_metadata_is_ignored(folder, save, faces, caplog):
    root = folder({"train/anger": 2, "train/fear": 2})
    save(root / "contact_sheet.png", faces(1, 64, 3)[0])
    assert len(read(root)["train"]) == 4
    assert "contact_sheet.png" in caplog.text


def test_landmarks_follow_the_crop(folder, save, faces):
    root = folder({"anger": 1})
    save(root / "fear" / "wide.png", faces(1, 16)[0].repeat(1, 1, 2))  # 16 high, 32 wide
    points = [[0.25, 0.0], [0.75, 1.0]] * 34
    rows = [{"file_name": name, "landmarks": points} for name in ("anger/000.png", "fear/wide.png")]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    square, wide = read(root)["all"].landmarks
    assert square[:2].tolist() == [[0.25, 0.0], [0.75, 1.0]]
    assert wide[:2].tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_wanted_classes_only(folder):
    root = folder({"anger": 2, "fear": 2, "neutral": 1})
    table = read(root, classes=("anger", "neutral", "disgust"))["all"]
    assert table.counts() == {"neutral": 1, "disgust": 0, "anger": 2}


def test_sizes_and_channels(folder):
    assert read(folder({"anger": 1, "fear": 1}), image_size=9, channels=3)["all"].images.shape == (2, 3, 9, 9)


@pytest.mark.parametrize("bad", ["zero", "text", "absent", "unread"])
def test_bad_files_stop_or_are_skipped(folder, caplog, bad):
    root = folder({"train/anger": 2, "train/fear": 2})
    if bad == "absent":
        (root / "metadata.csv").write_text("file_name,subject\ntrain/anger/none.png,7\n")
        message = r"metadata.csv:2: no image .*none.png"
    elif bad == "unread":
        (root / "train" / "anger" / "phone.heic").write_text("photograph")
        (root / "metadata.csv").write_text("file_name,subject\ntrain/anger/phone.heic,7\n")
        message = r"metadata.csv:2: .*phone.heic is in a format that is not read: delete the row or save it as PNG"
    else:
        (root / "train" / "anger" / "bad.png").write_text("" if bad == "zero" else "no picture")
        message = r"anger/bad.png: .*delete"
    with pytest.raises(InputError, match=message):
        read(root)
    assert len(read(root, on_bad="skip")["train"]) == 4
    assert "left out: " in caplog.text


@pytest.mark.parametrize(
    ("counts", "metadata", "message"),
    [
        ({}, None, "no faces found"),
        ({".": 3}, None, "no faces found"),
        (
            {"train/anger": 1, "train/sleepy": 2},
            None,
            "train/sleepy: unknown expression folder 'sleepy': use one of neu",
        ),
        ({"sleepy": 2}, None, "sleepy: unknown expression folder"),
        ({"train/sleepy": 2}, "file_name,subject\ntrain/sleepy/000.png,1", "unknown expression folder"),
        ({"anger/train": 1, "anger/test": 1}, None, "a split below another folder"),
        ({"train/anger": 1, "anger": 1}, None, "in no split, though others are"),
        (
            {"anger": 1},
            "file_name,label\nanger/000.png,fear",
            r"metadata.csv:2: labelled 'fear', but .*lies in 'anger'",
        ),
        ({"anger": 1}, "file_name,label\nanger/000.png,sleepy", "metadata.csv:2: unknown label 'sleepy'"),
        (
            {"train/anger": 1},
            "file_name,split\ntrain/anger/000.png,test",
            r"metadata.csv:2: split 'test'.*lies in train",
        ),
        ({"anger": 1}, "file_name,split\nanger/000.png,later", "metadata.csv:2: unknown split 'later'"),
        ({"anger": 1}, "file_name\nanger/000.png\n./anger/000.png", "metadata.csv:3: .*has a row already .*csv:2"),
        ({"anger": 1}, "file_name,valence\nanger/000.png,7", "metadata.csv:2: valence is '7'"),
    ],
)
def test_contradictions_are_one_clear_line(folder, counts, metadata, message):
    root = folder(counts)
    if metadata is not None:
        (root / "metadata.csv").write_text(metadata)
    with pytest.raises(InputError, match=message) as error:
        read(root)
    assert "\n" not in str(error.value)


def test_paths_that_are_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder or file"):
        read(tmp_path / "none")
    (tmp_path / "file.zip").write_text("not a zip")
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        read(tmp_path / "file.zip")


def test_all_images_bad(folder):
    root = folder({"anger": 1})
    (root / "anger" / "000.png").write_bytes(b"")
    with pytest.raises(InputError, match="none of the 1 images can be read"):
        read(root, on_bad="skip")


def test_unknown_on_bad(folder):
    with pytest.raises(InputError, match="on_bad"):
        read(folder({"anger": 1}), on_bad="ignore")


@pytest.mark.parametrize(("named", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_apart_from_their_letters(folder, named, stored):
    root = folder({"happy": 2, "sad": 1})
    (root / "happy" / "000.png").rename(root / "happy" / unicodedata.normalize(stored, "Renée.png"))
    name = unicodedata.normalize(named, "happy/Renée.png")
    (root / "metadata.csv").write_text(f"file_name,subject\n{name},7\n", encoding="utf-8")
    assert sorted(read(root)["all"].subject.tolist()) == [-1, -1, 7]


def test_a_name_means_the_file_that_is_spelled_so(folder, save, faces):
    root = folder({"sad": 1})
    for number, form in enumerate(("NFC", "NFD")):
        save(root / "happy" / unicodedata.normalize(form, "é.png"), faces(1, seed=number)[0])
    rows = [f"{unicodedata.normalize(form, 'happy/é.png')},{form}" for form in ("NFD", "NFC")]
    (root / "metadata.csv").write_text("\n".join(["file_name,subject", *rows]), encoding="utf-8")
    table = read(root)["all"]
    assert torch.equal(table.images[:2], torch.cat([faces(1, seed=1), faces(1, seed=0)]))
    assert table.subject.tolist() == [1, 0, -1]


def test_pictures_of_other_formats_are_told(folder, caplog):
    root = folder({"happy": 1, "sad": 1})
    (root / "sad" / "phone.HEIC").write_bytes(b"photograph")
    assert len(read(root)["all"]) == 2
    assert "ignored 1 image files" in caplog.text and "phone.HEIC" in caplog.text
