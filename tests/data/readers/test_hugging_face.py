import io

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from synthmtl.data.load import load_splits, read_tables
from synthmtl.data.readers.formats import detect_format
from synthmtl.errors import InputError


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    """The real library, offline and with its caches below the test's folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # reads the environment when it is imported

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return datasets


def picture(number, size=16):
    return np.random.default_rng(number).integers(0, 256, (size, size), dtype=np.uint8)


def make(datasets, labels, *, start=0, names=None, column="label", **columns):
    """Gray pictures of 16 px with labels: class labels of ``names``, or text."""
    features = {"image": datasets.Image()}
    features[column] = datasets.ClassLabel(names=list(names)) if names else datasets.Value("string")
    for name, values in columns.items():
        kind = {str: "string", bool: "bool", int: "int64"}.get(type(values[0]), "float32")
        features[name] = datasets.Value(kind)
    pictures = [Image.fromarray(picture(start + i)) for i in range(len(labels))]
    return datasets.Dataset.from_dict(
        {"image": pictures, column: labels, **columns}, features=datasets.Features(features)
    )


def read(path, **options):
    return read_tables(path, **({"image_size": 16, "channels": 1} | options))


def test_saved_splits_under_their_usual_names(datasets, tmp_path):
    names = ("Angry", "happy", "neutral")
    datasets.DatasetDict(
        {
            "training": make(
                datasets, [0, 1, 1, 2], names=names, person=["b", "a", "b", "c"], subject=["x", "y", "x", "z"]
            ),
            "valid": make(datasets, [2, -1], names=names, start=10, person=["c", "c"], subject=["y", "w"]),
            "test": make(datasets, [0], names=names, start=20, person=["d"], subject=["z"]),
        }
    ).save_to_disk(tmp_path / "faces")
    assert detect_format(tmp_path / "faces") == "huggingface"
    tables = read(tmp_path / "faces")
    assert list(tables) == ["train", "validation", "test"]
    train, validation, test = tables.values()
    assert train.classes == ("neutral", "happiness", "anger")
    assert train.expression.tolist() == [2, 1, 1, 0] and validation.expression.tolist() == [0, -1]
    for i in range(4):
        assert torch.equal(train.images[i, 0], torch.from_numpy(picture(i)))
    assert torch.equal(test.images[0, 0], torch.from_numpy(picture(20)))
    # Names of people mean the same in every split.
    assert train.subject[1] == validation.subject[0] and train.subject[3] == test.subject[0]
    some = read(tmp_path / "faces", classes=("anger", "happiness"))
    assert some["train"].counts() == {"happiness": 2, "anger": 1} and some["validation"].expression.tolist() == [-1]


@pytest.mark.parametrize("folder", ["", "data"])
def test_parquet_files_in_shards(datasets, tmp_path, folder):
    root = tmp_path / "faces" / folder
    root.mkdir(parents=True)
    faces = make(datasets, ["fear", "joy", "sad"], column="mood", valence=[0.5, -0.25, 0.0], AU12=[0.0, 1.0, 0.5])
    faces.select([0, 1]).to_parquet(root / "train-00000-of-00002.parquet")
    faces.select([2]).to_parquet(root / "train-00001-of-00002.parquet")
    make(datasets, ["fear"], column="mood", start=9, valence=[1.0], AU12=[0.0]).to_parquet(root / "dev.parquet")
    with pytest.raises(InputError, match="no usable label|which column|only"):
        load_splits(tmp_path / "faces", image_size=16, channels=1)
    tables = read(f"{tmp_path / 'faces'}?label=mood")
    assert list(tables) == ["train", "validation"]
    train = tables["train"]
    assert [train.classes[i] for i in train.expression.tolist()] == ["fear", "happiness", "sadness"]
    torch.testing.assert_close(train.valence_arousal[:, 0], torch.tensor([0.5, -0.25, 0.0]))
    assert torch.equal(train.images[2, 0], torch.from_numpy(picture(2)))
    assert int((~train.action_units.isnan()).sum()) == 3 and len(train.files) == 3


def test_by_name(datasets, tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for name in ("anger", "happiness"):
            for i in range(count):
                path = tmp_path / "named" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(i)).save(path)
    tables = read(f"hf:{tmp_path / 'named'}")
    assert {name: table.counts() for name, table in tables.items()} == {
        "train": {"happiness": 3, "anger": 3},
        "test": {"happiness": 2, "anger": 2},
    }
    assert all(file.endswith(".png") for file in tables["train"].files)


def test_one_split_of_another_name_is_split_here(datasets, tmp_path):
    faces = make(datasets, [0, 1] * 20, names=("fear", "anger"), subject=[i // 2 for i in range(40)])
    faces.save_to_disk(tmp_path / "faces")
    assert list(read(tmp_path / "faces")) == ["all"]
    splits = load_splits(tmp_path / "faces", image_size=16, channels=1)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 40


def test_synthesized_faces_are_known_by_column_and_by_mark(datasets, tmp_path):
    from synthmtl.balance.formats import png_bytes

    record = {"generator": "0" * 16, "source_file": "a.png", "seed": 1}
    marked = png_bytes(torch.from_numpy(picture(0))[None], record)
    plain = png_bytes(torch.from_numpy(picture(1))[None])
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["fear", "anger"])})
    rows = {"image": [{"bytes": b, "path": None} for b in (marked, plain)], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    assert read(tmp_path)["train"].synthetic.tolist() == [True, False]


def test_which_columns_are_meant(datasets, tmp_path):
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "crop": datasets.Image(),
            "sex": datasets.ClassLabel(names=["f", "m"]),
            "emotion": datasets.ClassLabel(names=["angry", "sad"]),
        }
    )
    image = Image.fromarray(picture(3))
    rows = {"photo": [image], "crop": [Image.fromarray(picture(4))], "sex": [1], "emotion": [1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match=r"2 columns of pictures: name it with \?image=COLUMN; the columns are photo"):
        read(tmp_path / "two")
    table = read(f"{tmp_path / 'two'}?image=crop")["all"]
    assert table.classes == ("sadness",) and torch.equal(table.images[0, 0], torch.from_numpy(picture(4)))
    with pytest.raises(InputError, match="no column 'face'"):
        read(f"{tmp_path / 'two'}?image=face")
    with pytest.raises(InputError, match="unknown option 'column'"):
        read(f"{tmp_path / 'two'}?column=face")
    with pytest.raises(InputError, match="two, all:1: unknown expression 'm'"):
        read(f"{tmp_path / 'two'}?image=crop&label=sex")


def test_what_cannot_be_meant_is_named(datasets, tmp_path):
    make(datasets, [0], names=("cat", "dog")).save_to_disk(tmp_path / "pets")
    with pytest.raises(InputError, match="pets, all:1: unknown label 'cat'"):
        read(tmp_path / "pets")
    codes = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(picture(1))], "label": [3]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    codes.save_to_disk(tmp_path / "codes")
    with pytest.raises(InputError, match="column 'label' holds numbers without names"):
        read(tmp_path / "codes")
    datasets.DatasetDict({"train": make(datasets, ["fear"]), "holdout": make(datasets, ["fear"])}).save_to_disk(
        tmp_path / "splits"
    )
    with pytest.raises(InputError, match="unknown split 'holdout'"):
        read(tmp_path / "splits")
    datasets.DatasetDict({"val": make(datasets, ["fear"]), "dev": make(datasets, ["fear"])}).save_to_disk(
        tmp_path / "twice"
    )
    with pytest.raises(InputError, match="two splits mean validation"):
        read(tmp_path / "twice")
    with pytest.raises(InputError, match="cannot be loaded by datasets"):
        read(f"hf:{tmp_path / 'nowhere'}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="broken: cannot be loaded by datasets"):
        read(tmp_path / "broken")


def test_pictures_outside_and_broken_ones(datasets, tmp_path, caplog):
    outside = tmp_path / "secret.png"
    Image.fromarray(picture(0)).save(outside)
    good = io.BytesIO()
    Image.fromarray(picture(1)).save(good, "PNG")
    pictures = [
        {"bytes": None, "path": str(outside)},
        {"bytes": good.getvalue(), "path": "good.png"},
        {"bytes": good.getvalue()[:40], "path": "half.png"},
        None,
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["fear"])})

    def write(name, chosen):
        # Not by datasets itself, which would read the file outside and store its bytes.
        rows = [{"image": pictures[i], "label": 0} for i in chosen]
        (tmp_path / name).mkdir()
        table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)
        parquet.write_table(table, tmp_path / name / "faces.parquet")

    write("faces", range(4))
    with pytest.raises(InputError, match="3 of 4 images cannot be read: .*lies outside of the data set"):
        read(tmp_path / "faces")
    with caplog.at_level("WARNING", "synthmtl"):
        table = read(tmp_path / "faces", on_bad="skip")["all"]
    assert table.files == ["good.png"] and "left out 3 of 4" in caplog.text
    write("none", [0, 3])
    with pytest.raises(InputError, match="none of the 2 pictures"):
        read(tmp_path / "none", on_bad="skip")


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"hf:some/faces needs the library datasets: pip install 'synthmtl\[hub\]'"):
        read("hf:some/faces")


def test_a_split_without_labels_has_faces_without_them(datasets, tmp_path):
    labelled = make(datasets, ["happiness", "fear", "fear"])
    bare = make(datasets, ["happiness", "fear"], start=3).remove_columns("label")
    datasets.DatasetDict(train=labelled, test=bare).save_to_disk(str(tmp_path / "set"))
    tables = read(tmp_path / "set")
    assert tables["train"].counts() == {"happiness": 1, "fear": 2}
    assert tables["test"].expression.tolist() == [-1, -1]


def test_a_folder_with_labels_of_its_own_is_an_image_folder_unless_options_are_given(datasets, tmp_path):
    for name, label in {"classes": "train/happy", "metadata": "metadata.csv", "hidden": "._x.parquet"}.items():
        make(datasets, ["fear"]).to_parquet(tmp_path / name / "embeddings.parquet")
        assert detect_format(tmp_path / name) == "huggingface"
        if name == "classes":
            (tmp_path / name / label).mkdir(parents=True)
        else:
            (tmp_path / name / label).write_bytes(b"file_name\n")
        assert detect_format(tmp_path / name) == ("huggingface" if name == "hidden" else "image_folder")
        assert read(f"{tmp_path / name}?label=label")["all"].classes == ("fear",)


@pytest.mark.parametrize(
    "name",
    ["{}", "{}_0", "{}0", "fer_{}", "faces-{}-00000-of-00001", "2013.{}.v2"],
)
def test_parquet_files_have_the_splits_that_datasets_finds(datasets, tmp_path, name):
    root, counts = tmp_path / "faces", {"train": 4, "test": 2, "validation": 2}
    root.mkdir()
    for start, (split, count) in enumerate(counts.items()):
        make(datasets, ["fear", "anger"] * (count // 2), start=10 * start).to_parquet(
            root / f"{name.format(split)}.parquet"
        )
    theirs = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "theirs"))
    ours = read(root)
    assert {split: len(rows) for split, rows in theirs.items()} == counts
    assert {split: len(table) for split, table in ours.items()} == counts
    assert torch.equal(ours["test"].images[1, 0], torch.from_numpy(picture(11)))


@pytest.mark.parametrize("name", ["{}/0000", "default/{}/0000", "data/{}/faces-0"])
def test_parquet_files_lie_in_folders_of_splits(datasets, tmp_path, name):
    """The hub converts data so, and calls them ``default`` where they have no other name."""
    counts = {"train": 4, "test": 2, "validation": 3}
    for start, (split, count) in enumerate(counts.items()):
        file = tmp_path / "test" / f"{name.format(split)}.parquet"
        file.parent.mkdir(parents=True)
        make(datasets, ["fear", "anger", "fear", "anger"][:count], start=10 * start).to_parquet(file)
    assert detect_format(tmp_path / "test") == "huggingface"
    tables = read(tmp_path / "test")
    assert {split: len(table) for split, table in tables.items()} == counts
    assert torch.equal(tables["test"].images[1, 0], torch.from_numpy(picture(11)))


@pytest.mark.parametrize("column", ["split", "Split", "Usage"])
@pytest.mark.parametrize("file", ["faces", "train"])
def test_a_column_of_splits_is_heeded(datasets, tmp_path, column, file):
    told = ["Training", "PrivateTest", "Training", "PublicTest", "PrivateTest"]
    faces = make(datasets, ["fear", "fear", "anger", "anger", "joy"], **{column: told})
    faces.to_parquet(tmp_path / f"{file}.parquet")
    tables = read(tmp_path)
    assert {name: table.counts() for name, table in tables.items()} == {
        "train": {"happiness": 0, "fear": 1, "anger": 1},
        "validation": {"happiness": 0, "fear": 0, "anger": 1},
        "test": {"happiness": 1, "fear": 1, "anger": 0},
    }
    for name, rows in (("train", (0, 2)), ("validation", (3,)), ("test", (1, 4))):
        for face, row in zip(tables[name].images, rows, strict=True):
            assert torch.equal(face[0], torch.from_numpy(picture(row)))
        assert not tables[name].attributes


def test_usage_tells_nothing_beside_splits_of_their_own(datasets, tmp_path):
    for split, usage in (("train", "Training"), ("validation", "PrivateTest"), ("test", "PublicTest")):
        make(datasets, ["fear", "anger"], Usage=[usage] * 2).to_parquet(tmp_path / f"{split}.parquet")
    assert {name: len(table) for name, table in read(tmp_path).items()} == {"train": 2, "validation": 2, "test": 2}


def test_columns_are_known_in_any_case_and_near_misses_told(datasets, tmp_path, caplog):
    people = ["x", "NA", "x"]
    make(datasets, ["fear", "joy", "NA"], column="Emotion", Subject=people).to_parquet(tmp_path / "faces.parquet")
    table = read(tmp_path)["all"]
    assert table.subject.tolist() == [0, -1, 0] and table.expression.tolist() == [1, 0, -1]
    make(datasets, ["fear", "joy", "joy"], person=people).to_parquet(tmp_path / "faces.parquet")
    with caplog.at_level("WARNING", "synthmtl"):
        assert (read(tmp_path)["all"].subject == -1).all()
    assert "the column 'person' is not read as subject: call it 'subject' if it says who is shown" in caplog.text
    make(datasets, ["fear"] * 3, column="Label", label=["joy"] * 3).to_parquet(tmp_path / "faces.parquet")
    with pytest.raises(InputError, match=r"which column holds the expressions\? Name it with \?label=COLUMN"):
        read(tmp_path)
    assert read(f"{tmp_path}?label=Label")["all"].classes == ("fear",)
    make(datasets, ["fear"] * 3, subject=["x"] * 3, Subject=["y"] * 3).to_parquet(tmp_path / "faces.parquet")
    with pytest.raises(InputError, match="two columns mean subject, 'subject' and 'Subject': keep one of them"):
        read(tmp_path)


def test_action_units_may_be_true_or_false(datasets, tmp_path):
    make(datasets, ["fear", "joy"], AU12=[True, False]).to_parquet(tmp_path / "faces.parquet")
    units = read(tmp_path)["all"].action_units
    assert units[~units.isnan()].tolist() == [1, 0]
