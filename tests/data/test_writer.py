import json

import pytest
import torch

from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.table import FaceTable, coded_words
from synthmtl.data.writer import metadata_rows, write_image_folder
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS

COLUMNS = (
    "images", "expression", "expression_distribution", "compound", "action_units", "landmarks", "valence_arousal",
    "subject", "session", "domain", "weight", "synthetic",
)  # fmt: skip


def assert_same(one: FaceTable, other: FaceTable) -> None:
    assert one.classes == other.classes
    assert one.attributes.keys() == other.attributes.keys()
    pairs = [(getattr(one, name), getattr(other, name)) for name in COLUMNS]
    pairs += [(column, other.attributes[name]) for name, column in one.attributes.items()]
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def labelled(faces):
    """labelled(channels) → 12 faces with every label, each missing somewhere."""

    def make(channels: int) -> FaceTable:
        generator = torch.Generator().manual_seed(0)

        def rand(*shape):
            return torch.rand(*shape, generator=generator)

        table = FaceTable(
            images=faces(12, 16, channels),
            classes=("happiness", "fear", "anger"),
            expression=torch.tensor([2, 0, 1, -1] * 3),
            expression_distribution=rand(12, 3).softmax(1),
            compound=torch.tensor([-1, -1, -1, 10] * 3),
            action_units=rand(12, len(ACTION_UNITS)),
            landmarks=rand(12, 68, 2) * 1.1 - 0.05,
            valence_arousal=rand(12, 2) * 2 - 1,
            subject=torch.tensor([7, -1, 10, 3] * 3),
            session=torch.tensor([0, 1, -1, 0] * 3),
            domain=torch.tensor([0, 1] * 6),
            weight=rand(12),
            synthetic=torch.tensor([True, False, False] * 4),
            attributes={"yaw": rand(12) * 20 - 10, "light_x": rand(12)},
        )
        table.expression_distribution[4] = torch.nan
        table.action_units[:, 3] = torch.nan
        table.action_units[5] = torch.nan
        table.landmarks[6] = torch.nan
        table.landmarks[7, 12] = torch.nan
        table.valence_arousal[8] = torch.nan
        table.attributes["yaw"][9] = torch.nan
        return table

    return make


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip_to_the_bit(labelled, tmp_path, channels):
    table = labelled(channels)
    write_image_folder(table, tmp_path)
    (read,) = read_image_folder(tmp_path, image_size=16, channels=channels).values()
    assert_same(table, read)
    write_image_folder(read, tmp_path / "again", "test")
    again = read_image_folder(tmp_path / "again", image_size=16, channels=channels)
    assert list(again) == ["test"]
    assert_same(table, again["test"])


def test_splits_share_a_root(table, tmp_path):
    parts = {"train": table({"fear": 3, "anger": 2}), "validation": table({"fear": 1, "anger": 2}, seed=1)}
    for split, part in parts.items():
        write_image_folder(part, tmp_path, split)
    read = read_image_folder(tmp_path, image_size=16, channels=1)
    for split, part in parts.items():
        assert_same(part, read[split])


def test_only_labels_that_are_there_are_written(table):
    rows = list(metadata_rows(table({"fear": 2})))
    assert rows == [{"expression": "fear", "synthetic": False}] * 2


def test_layout_names_and_provenance(table, tmp_path):
    extra = [{"source_file": f"{i}.png", "seed": 2**40 + i, "agreement": 0.5} for i in range(2)]
    path = write_image_folder(table({"fear": 1, "anger": 1}), tmp_path, names=["a", "b"], extra=extra)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["file_name"] for row in rows] == ["fear/a.png", "anger/b.png"]
    assert rows[1]["source_file"] == "1.png" and rows[1]["seed"] == 2**40 + 1
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "train/anger/b.png", "train/fear/a.png", "train/metadata.jsonl",
    ]  # fmt: skip
    read = read_image_folder(tmp_path, image_size=16, channels=1)["train"]
    assert read.attributes["agreement"].tolist() == [0.5, 0.5]


def test_huggingface_datasets_loads_it(labelled, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    table = labelled(3)
    extra = [{"source_file": None if i % 2 else "x.png"} for i in range(12)]
    write_image_folder(table, tmp_path / "set", extra=extra)
    write_image_folder(table.select(range(4)), tmp_path / "set", "test", extra=extra[:4])
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 12, "test": 4}
    train = loaded["train"]
    assert train["expression"][:4] == ["anger", "happiness", "fear", None]
    assert torch.equal(torch.tensor(train["subject"][0]), table.subject[0])
    assert train["source_file"][:2] == ["x.png", None]
    for i in range(12):
        pixels = torch.tensor(list(train[i]["image"].convert("RGB").tobytes()), dtype=torch.uint8)
        assert torch.equal(pixels.view(16, 16, 3).permute(2, 0, 1), table.images[i])


def test_an_unfinished_folder_may_be_written_again_but_no_finished_one(table, tmp_path):
    faces = table({"fear": 2})
    with pytest.raises(TypeError):
        write_image_folder(faces, tmp_path, extra=[{"a": 1}, {"a": object()}])
    assert not (tmp_path / "train" / "metadata.jsonl").exists()
    write_image_folder(faces, tmp_path)
    with pytest.raises(InputError, match="metadata.jsonl: exists already"):
        write_image_folder(faces, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["a"]}, "1 file names"),
        ({"names": ["a", "a"]}, r"\(1 different\)"),
        ({"names": ["a", "../b"]}, "no plain file name"),
        ({"names": ["a", ".b"]}, "no plain file name"),
        ({"extra": [{}]}, "1 rows of extra"),
        ({"extra": [{}, {"expression": "fear"}]}, "'expression' has the name of a label"),
        ({"extra": [{}, {" Subject": "x"}]}, "' Subject' has the name of a label"),
    ],
)
def test_bad_arguments(table, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_image_folder(table({"fear": 2}), tmp_path, **options)


@pytest.mark.parametrize(
    "name",
    ["valence", "Subject", "SYNTHETIC", "Label ", "Split", "File_Name", "Source_File", "AU1", "au_04", "ferplus_x"],
)
def test_an_attribute_must_not_be_called_like_a_label(table, tmp_path, name):
    faces = table({"fear": 2}).replace(attributes={name: torch.zeros(2)})
    with pytest.raises(InputError, match=f"attribute '{name}' has the name of a label"):
        write_image_folder(faces, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_attributes_come_back_under_their_names(table, tmp_path):
    """However near to a label's they are, and in their own case."""
    names = ("subject_age", "AU99", "Auburn", "Age", "age", "12", "splits")
    faces = table({"fear": 2}).replace(attributes={name: torch.tensor([i, 9.0]) for i, name in enumerate(names)})
    write_image_folder(faces, tmp_path)
    (read,) = read_image_folder(tmp_path, image_size=16, channels=1).values()
    assert_same(faces.replace(files=read.files), read)


def test_words_are_written_as_words(table, tmp_path):
    column, words = coded_words(["male", None, "female", "male"])
    faces = table({"fear": 4}).replace(attributes={"gender": column}, words={"gender": words})
    assert [row["gender"] for row in metadata_rows(faces)] == ["male", "", "female", "male"]
    write_image_folder(faces, tmp_path)
    read = read_image_folder(tmp_path, image_size=16, channels=1)["train"]
    assert read.words == faces.words and read.fingerprint() == faces.fingerprint()


def test_words_that_no_face_has_are_no_column(table):
    column, words = coded_words([None, "female", "male"])
    faces = table({"fear": 3}).replace(attributes={"gender": column}, words={"gender": words})
    assert [row["gender"] for row in metadata_rows(faces)] == ["", "female", "male"]
    assert list(metadata_rows(faces.select([0]))) == [{"expression": "fear", "synthetic": False}]
