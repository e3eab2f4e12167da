import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.data.inspection import inspect_data
from synthmtl.data.load import load_splits, read_tables
from synthmtl.data.readers.formats import detect_format
from synthmtl.errors import InputError


def pixels(number, size=16):
    return np.random.default_rng(number).integers(0, 256, (size, size), dtype=np.uint8)


def picture(number):
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, "PNG")
    return stream.getvalue()


def sample(name, number, **labels):
    return {f"{name}.png": picture(number), f"{name}.json": json.dumps(labels).encode()}


def pack(file, *samples):
    """An archive of samples {name: bytes}; gives the folder that it is in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in (pair for files in samples for pair in files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.parent


def read(path, **options):
    return read_tables(path, **{"image_size": 16, "channels": 1} | options)


@pytest.mark.parametrize("folder", ["", "data"])
def test_archives_are_one_set_in_the_order_of_their_samples(tmp_path, folder):
    root = tmp_path / folder
    pack(root / "train-000000.tar", sample("b", 0, expression="fear", valence=0.5), sample("a", 1, label="happy"))
    pack(root / "train-000001.tar", sample("a", 2, expression=None, subject="x"))
    pack(root / "val-000000.tar", sample("c", 3, expression="fear", source_file="z/1.png"))
    assert detect_format(tmp_path) == "webdataset"
    tables = read(tmp_path)
    assert list(tables) == ["train", "validation"]
    train, validation = tables.values()
    assert train.classes == validation.classes == ("happiness", "fear")
    assert train.expression.tolist() == [1, 0, -1] and validation.expression.tolist() == [1]
    for i in range(3):
        assert torch.equal(train.images[i, 0], torch.from_numpy(pixels(i)))
    assert torch.equal(validation.images[0, 0], torch.from_numpy(pixels(3)))
    assert train.valence_arousal[0, 0] == 0.5 and train.subject.tolist() == [-1, -1, 0]
    assert validation.words["source_file"] == ("z/1.png",)
    assert train.files[0] == (root / "train-000000.tar" / "b.png").as_posix()
    assert read(tmp_path, classes=("fear",))["train"].expression.tolist() == [0, -1]


@pytest.mark.parametrize(
    "name", ["{}-000", "{}", "fer_{}-000", "faces.{}.00-of-01", "FER2013_{}_0", "{}0", "{}/000", "data/{}/a"]
)
def test_the_split_is_a_word_of_the_name_wherever_it_stands(tmp_path, name):
    for number, word in enumerate(("train", "val", "Test")):
        pack(tmp_path / f"{name.format(word)}.tar", sample("a", number, expression="fear"))
    tables = read(tmp_path)
    assert list(tables) == ["train", "validation", "test"]
    for number, table in enumerate(tables.values()):
        assert torch.equal(table.images[0, 0], torch.from_numpy(pixels(number)))


def test_a_name_of_two_splits_or_of_a_longer_word_tells_none(tmp_path):
    assert list(read(pack(tmp_path / "none" / "restrained-0.tar", sample("a", 0, expression="fear")))) == ["all"]
    pack(tmp_path / "two" / "data" / "train_test-0.tar", sample("a", 0, expression="fear"))
    with pytest.raises(InputError, match="two/data/train_test-0.tar: its name tells two splits, train and test: keep"):
        read(tmp_path / "two")
    pack(tmp_path / "mixed" / "train" / "test-0.tar", sample("a", 0, expression="fear"))
    with pytest.raises(InputError, match="mixed/train/test-0.tar: its name tells two splits, train and test: keep"):
        read(tmp_path / "mixed")


def test_archives_of_no_split_are_split_here(tmp_path):
    pack(tmp_path / "part-0.tar", *(sample(f"{i}", i, expression=("fear", "anger")[i % 2]) for i in range(40)))
    assert list(read(tmp_path)) == ["all"]
    splits = load_splits(tmp_path, image_size=16, channels=1)
    assert sum(map(len, splits.tables().values())) == 40
    assert inspect_data(tmp_path)["counts"] == {"all": {"fear": 20, "anger": 20}}


def test_labels_are_spelled_as_in_metadata(tmp_path):
    pack(tmp_path / "train-0.tar", sample("a", 0, emotion="fear", Subject="x"), sample("b", 1, emotion="sad"))
    train = read(tmp_path)["train"]
    assert train.counts() == {"sadness": 1, "fear": 1} and train.subject.tolist() == [0, -1]


def test_what_is_no_sample_is_passed_over(tmp_path):
    further = {"a.cls": b"5", "._a.png": b"", "notes.txt": b"x"}
    pack(tmp_path / "train-0.tar", sample("a", 0, expression="fear"), further, {"b.png": picture(1)})
    pack(tmp_path / "._train-0.tar", sample("c", 2, expression="fear"))
    assert read(tmp_path)["train"].expression.tolist() == [0, -1]


def test_bad_samples_are_named_and_can_be_left_out(tmp_path):
    no_picture = {"b.json": b'{"expression": "fear"}'}
    broken = {"c.png": b"no picture", "c.json": b'{"expression": "fear"}'}
    pack(tmp_path / "train-0.tar", sample("a", 0, expression="fear"), no_picture, broken)
    with pytest.raises(InputError, match=r"train-0.tar/b.json: no picture beside it"):
        read(tmp_path)
    assert len(read(tmp_path, on_bad="skip")["train"]) == 1
    assert len(inspect_data(tmp_path)["bad_files"]) == 2
    pack(tmp_path / "train-0.tar", broken)
    with pytest.raises(InputError, match="none of the 1 images can be read"):
        read(tmp_path, on_bad="skip")


@pytest.mark.parametrize(
    ("message", "samples"),
    [
        ("train-0.tar/a.json:1: unknown expression 'glee'", [sample("a", 0, expression="glee")]),
        ("a.json: broken JSON", [{"a.png": picture(0), "a.json": b"{"}]),
        ("a.json: not a JSON object", [{"a.png": picture(0), "a.json": b"[]"}]),
        ("a.png: is there twice", [sample("a", 0), sample("a", 1)]),
        ("a.jpg: a second picture of one sample", [sample("a", 0), {"a.jpg": picture(1)}]),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, message, samples):
    pack(tmp_path / "train-0.tar", *samples)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_splits_are_of_all_archives_or_of_none(tmp_path):
    for name in ("train-0.tar", "more-0.tar"):
        pack(tmp_path / name, sample("a", 0, expression="fear"))
    with pytest.raises(InputError, match="more-0.tar/a.png: in no split, though others are"):
        read(tmp_path)


def test_an_archive_that_is_cut_off_is_damaged(tmp_path):
    pack(tmp_path / "train-0.tar", *(sample(f"{i}", i, expression="fear") for i in range(20)))
    whole = (tmp_path / "train-0.tar").read_bytes()
    for kept in (9000, 9300, 8192):  # in a picture, in a header, between two samples
        (tmp_path / "train-0.tar").write_bytes(whole[:kept])
        with pytest.raises(InputError, match="train-0.tar: damaged tar archive"):
            read(tmp_path)


def test_other_archives_are_left_to_other_layouts(tmp_path, lay_out):
    root = lay_out({"train/happy/1.png": 1, "train/sad/2.png": 2})
    pack(root / "train-0.tar", sample("a", 0, expression="fear"))  # beside the faces that it was packed from
    assert detect_format(root) == "image_folder"
    for name, content in (("pictures", {"a.png": picture(0)}), ("texts", {"a.json": b"{}"})):
        assert detect_format(pack(tmp_path / name / "train-0.tar", content)) == "image_folder"
    (tmp_path / "texts" / "train-0.tar").write_bytes(b"no tar")
    assert detect_format(tmp_path / "texts") == "image_folder"
    with pytest.raises(InputError, match="no faces found: give tar archives"):
        read(tmp_path / "texts" / "..", format="webdataset")
