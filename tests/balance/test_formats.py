import io
import json
import sys
import tarfile

import pytest
import torch
from PIL import Image

from synthmtl.balance import formats
from synthmtl.balance.calibration import calibrate_judge
from synthmtl.balance.formats import FaceFiles, png_bytes, shortener, write_shards
from synthmtl.balance.scored import read_scored_sets
from synthmtl.balance.synthesize import synthesize_balancing_set
from synthmtl.balance.write import write_balancing_set
from synthmtl.cli import main
from synthmtl.data.load import read_tables
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.errors import InputError


@pytest.fixture(scope="module")
def parts(job):
    """Result, generator and table, with labels of every kind."""
    generator, judge = job.make_generator(), job.make_judge()
    table = job.make_faces({"neutral": 6, "happiness": 4, "fear": 2})
    table.valence_arousal[3] = torch.tensor([0.25, -0.5])
    table.landmarks[2] = torch.linspace(0, 1, 136).view(68, 2)
    table.expression_distribution[5] = torch.tensor([0.25, 0.75, 0.0])
    table.attributes["yaw"] = torch.arange(12.0)
    calibration = calibrate_judge(judge, job.make_faces(dict.fromkeys(job.CLASSES, 8), seed=5), quantile=0.5)
    return synthesize_balancing_set(generator, judge, table, calibration=calibration), generator, table


@pytest.fixture(scope="module")
def written(parts, tmp_path_factory):
    """written[format] → folder of the set with originals, in shards of 5."""
    result, generator, table = parts
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "SHARD_FACES", 5)
        for name in formats.FORMATS:
            folders[name] = tmp_path_factory.mktemp(name)
            write_balancing_set(
                result, folders[name], generator=generator, table=table, originals=True, format=name, sheet_faces=1
            )
    return folders


@pytest.fixture
def datasets(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # reads the environment when it is imported

    return datasets


@pytest.mark.parametrize("name", formats.FORMATS)
def test_datasets_loads_every_format(parts, written, datasets, tmp_path, name):
    result, _, table = parts
    rows = datasets.load_dataset(name, data_dir=str(written[name]), cache_dir=str(tmp_path))["train"]
    assert len(rows) == 18
    key = "image" if name != "webdataset" else "png"
    assert sum(row[key].size == (32, 32) for row in rows) == 18
    records = [row["json"] for row in rows] if name == "webdataset" else rows
    assert sorted(r["seed"] for r in records if r["synthetic"]) == sorted(r["seed"] for r in result.records)
    assert sum(r["yaw"] is not None for r in records) == 12
    if name == "webdataset":
        assert [row["cls"] for row in rows] == [table.classes.index(r["expression"]) for r in records]
    if name == "parquet":
        assert rows.features["expression"].names == list(table.classes)


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_shards_are_scored_at_the_size_of_their_faces(written, name):
    """And not at that of the contact sheet, the only file that is a picture."""
    sets = read_scored_sets(written["imagefolder"], written[name])
    assert sets.real.image_size == sets.synthetic.image_size == 32 and sets.synthetic.channels == 1
    assert not [note for note in sets.notes if "px" in note]


def test_an_attribute_called_image_makes_room_for_the_picture(parts, tmp_path):
    result, generator, table = parts
    numbered = table.replace(attributes={"image": torch.arange(12.0)})
    options = {"generator": generator, "table": numbered, "originals": True, "format": "parquet", "sheet_faces": 1}
    write_balancing_set(result, tmp_path, **options)
    back = read_tables(tmp_path, image_size=32, channels=1)["train"]
    originals = back.select(~back.synthetic)
    assert sorted(originals.attributes["image_"].tolist()) == list(range(12))
    assert torch.equal(originals.images[originals.attributes["image_"].argsort()], table.images)


def test_parquet_comes_back_with_every_label(parts, written):
    result, _, table = parts
    folder = written["parquet"] / "data"
    assert sorted(p.name for p in folder.iterdir()) == [f"train-{i:05d}-of-00004.parquet" for i in range(4)]
    back = read_tables(written["parquet"], image_size=32, channels=1)["train"]
    same = read_image_folder(written["imagefolder"], image_size=32, channels=1)["train"]
    order = sorted(range(18), key=lambda i: back.files[i])
    other = sorted(range(18), key=lambda i: same.files[i][-len("fear/original-000000.png") :])
    back, same = back.select(order), same.select([other[i] for i in range(18)])
    by_seed = {int(seed): i for i, seed in enumerate(back.attributes["seed"].nan_to_num().tolist()) if seed}
    assert len(by_seed) == 6 and back.synthetic.sum() == 6
    originals = {file.split("/")[-1]: i for i, file in enumerate(back.files) if "original" in file}
    for row in range(12):
        i = originals[f"original-{row:06d}.png"]
        assert torch.equal(back.images[i], table.images[row]) and back.expression[i] == table.expression[row]
        assert back.subject[i] == table.subject[row]
        for name in ("valence_arousal", "landmarks", "expression_distribution"):
            torch.testing.assert_close(getattr(back, name)[i], getattr(table, name)[row], equal_nan=True)
        assert back.attributes["yaw"][i] == row
    assert back.attributes.keys() == same.attributes.keys()
    assert sorted(back.counts().items()) == sorted(same.counts().items())


def test_archives_come_back_as_the_image_folder_does(written):
    """In every column, in its order."""
    back = read_tables(written["webdataset"], image_size=32, channels=1)["train"]
    same = read_tables(written["imagefolder"], image_size=32, channels=1)["train"]
    names = [[file.rsplit("/", 1)[-1] for file in table.files] for table in (back, same)]
    same = same.select([names[1].index(name) for name in names[0]])
    assert len(set(names[0])) == len(names[0]) == 18
    assert back.replace(files=same.files).fingerprint() == same.fingerprint() and back.words == same.words


def test_archives_are_the_same_in_every_call(parts, written, tmp_path, monkeypatch):
    result, generator, table = parts
    monkeypatch.setattr(formats, "SHARD_FACES", 5)
    write_balancing_set(result, tmp_path, generator=generator, table=table, originals=True, format="webdataset")
    names = [f"data/train-{i:06d}.tar" for i in range(4)]
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.tar")) == names
    assert all((tmp_path / n).read_bytes() == (written["webdataset"] / n).read_bytes() for n in names)
    with tarfile.open(tmp_path / names[3]) as archive:
        entries = {e.name: archive.extractfile(e).read() for e in archive}
    row = json.loads(entries["synthesized-000005.json"])
    assert entries["synthesized-000005.cls"] == str(table.classes.index(row["expression"])).encode()
    assert Image.open(io.BytesIO(entries["synthesized-000005.png"])).info["seed"] == str(row["seed"])


def test_every_synthesized_file_says_so(parts, written, tmp_path):
    result = parts[0]
    marked = {}
    for path in (written["imagefolder"] / "train").rglob("*.png"):
        info = Image.open(path).info
        assert ("synthetic" in info) == path.name.startswith("synthesized")
        if "synthetic" in info:
            marked[path.name] = info
    for record, file in zip(result.records, result.table.files, strict=True):
        info = marked[file.split("/")[-1]]
        assert info == {
            "synthetic": "true",
            "generator": result.identity["generator"],
            "source_file": record["source_file"],
            "seed": str(record["seed"]),
        }
    # Without metadata, renamed and mixed with photographs, they are still known.
    for number, path in enumerate(sorted((written["imagefolder"] / "train").rglob("*.png"))):
        place = tmp_path / "train" / path.parent.name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    table = read_image_folder(tmp_path, image_size=32, channels=1)["train"]
    assert int(table.synthetic.sum()) == 6 and len(table) == 18


def test_names_that_latin_letters_cannot_write():
    record = {"generator": "0" * 16, "source_file": "лица/č 1.png", "seed": 3}
    info = Image.open(io.BytesIO(png_bytes(torch.zeros(3, 4, 4, dtype=torch.uint8), record))).info
    assert info["source_file"] == "лица/č 1.png" and info["synthetic"] == "true"


def test_faces_are_written_while_others_are_made(job, parts, tmp_path):
    result, generator, table = parts
    judge = job.make_judge()
    files = FaceFiles(tmp_path, table)
    early = []
    again = synthesize_balancing_set(
        generator, judge, table, calibration=result.calibration, batch_size=2, on_faces=files.add,
        on_chunk=lambda done, count: early.append(len(list(tmp_path.rglob("*.png")))),
    )  # fmt: skip
    assert early[0] >= 1 and len(files.written) == len(again.table) == 6
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    write_balancing_set(again, tmp_path, generator=generator, table=table, files=files)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "train").rglob("*.png")} == stamps
    other = tmp_path / "other"
    write_balancing_set(again, other, generator=generator, table=table)
    assert all((other / path.relative_to(tmp_path)).read_bytes() == path.read_bytes() for path in stamps)
    done = FaceFiles(tmp_path, table)
    done.add(again.table, again.records)
    assert done.finished and not done.written


def test_interrupted_shards_leave_nothing_that_looks_finished(parts, tmp_path):
    def broken():
        yield formats.Face("a", b"", {"expression": None})
        raise OSError("the power is gone")

    with pytest.raises(OSError):
        write_shards(tmp_path, "webdataset", broken(), 2, ("neutral",))
    assert not (tmp_path / "data").exists()
    result, generator, table = parts
    write_balancing_set(result, tmp_path, generator=generator, table=table, format="webdataset")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-000000.tar"]
    assert not (tmp_path / ".data.part").exists()


def test_parquet_without_the_library_is_said(parts, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert main(["balance", "--model", "x", "--data", "y", "--out", str(tmp_path / "out"), "--format", "parquet"]) == 2
    said = "synthmtl: --format parquet needs the library datasets: pip install 'synthmtl[hub]'\n"
    assert capsys.readouterr().err == said
    result, generator, table = parts
    with pytest.raises(InputError, match="unknown format 'zip'"):
        write_balancing_set(result, tmp_path, generator=generator, table=table, format="zip")


@pytest.mark.parametrize("above", ["/home/somebody/", "../../somebody/", "../"])
def test_names_say_nothing_of_the_folders_above_the_data(above):
    files = [f"{above}FACES/train/fear/1.png", f"{above}FACES/test/fear/2.png"]
    shorten = shortener(files)
    assert [shorten(file) for file in files] == ["FACES/train/fear/1.png", "FACES/test/fear/2.png"]
    assert shorten("faces.zip/1.png") == "faces.zip/1.png" and shorten(None) is None
