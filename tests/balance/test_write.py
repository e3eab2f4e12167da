import json

import pytest
import torch
from PIL import Image

from synthmtl.balance.calibration import calibrate_judge
from synthmtl.balance.sheet import contact_cells, sheet_rows
from synthmtl.balance.synthesize import synthesize_balancing_set
from synthmtl.balance.write import write_balancing_set
from synthmtl.data.load import load_splits
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.table import FaceTable, attribute_words
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.models.sampling import SamplingOptions


@pytest.fixture(scope="module")
def parts(job):
    """Result, generator and table; the faces are said to come from folders of this machine."""
    generator, judge = job.make_generator(), job.make_judge()
    table = job.make_faces({"neutral": 6, "happiness": 4, "fear": 2})
    table.files = [f"/home/someone/faces/train/{i}.png" for i in range(12)]
    calibration = calibrate_judge(judge, job.make_faces(dict.fromkeys(job.CLASSES, 8), seed=5), quantile=0.5)
    return synthesize_balancing_set(generator, judge, table, calibration=calibration), generator, table


@pytest.fixture(scope="module")
def written(parts, tmp_path_factory):
    result, generator, table = parts
    return write_balancing_set(result, tmp_path_factory.mktemp("set"), generator=generator, table=table)


def test_datasets_loads_it(parts, written, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # reads the environment when it is imported

    loaded = datasets.load_dataset("imagefolder", data_dir=str(written), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]
    rows, result = loaded["train"], parts[0]
    assert len(rows) == len(result.table) == 6
    assert sorted(rows["seed"]) == sorted(record["seed"] for record in result.records)
    assert sorted(rows["expression"]) == ["fear"] * 4 + ["happiness"] * 2
    assert set(rows["synthetic"]) == {True} and rows[0]["image"].size == (32, 32)
    assert {"source_file", "source_expression", "generator", "agreement"} <= set(rows.column_names)


def test_reader_gives_the_same_faces(job, parts, written):
    table = read_image_folder(written, image_size=32, channels=1, classes=job.CLASSES)["train"]
    made = parts[0].table
    assert torch.equal(table.images, made.images) and torch.equal(table.expression, made.expression)
    assert table.synthetic.all()
    torch.testing.assert_close(table.attributes["agreement"], made.attributes["agreement"])


def test_metadata_name_the_source_without_the_machine(parts, written):
    rows = [json.loads(line) for line in (written / "train" / "metadata.jsonl").read_text().splitlines()]
    for row, record in zip(rows, parts[0].records, strict=True):
        assert row["source_file"] == f"train/{record['source_row']}.png"
        assert row["file_name"].startswith(f"{row['expression']}/synthesized-")
        assert (row["seed"], row["generator"]) == (record["seed"], record["generator"])
    assert not any(b"someone" in path.read_bytes() for path in written.rglob("*") if path.is_file())


def test_card_and_json_state_the_counts(parts, written):
    result = parts[0]
    balance = json.loads((written / "balance.json").read_text())
    assert balance["strategy"] == "auto" and balance["requested"] == result.requested
    assert balance["counts_after"] == {"neutral": 6, "happiness": 6, "fear": 6}
    assert balance["identity"] == result.identity and balance["calibration"]["quantile"] == 0.5
    card = (written / "README.md").read_text()
    assert f"| fear | 2 | 4 | 4 | {result.below_threshold['fear']} | 0 | 6 |" in card
    assert result.identity["generator"] in card and "License: that of the source" in card
    assert Image.open(written / "contact_sheet.png").width > 4 * 88


def test_finished_set_is_left_alone_and_another_is_refused(job, parts, written):
    result, generator, table = parts
    stamps = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_balancing_set(result, written, generator=generator, table=table)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == stamps
    with pytest.raises(InputError, match="another balancing set"):
        write_balancing_set(result, written, generator=generator, table=table, originals=True)


def test_interrupted_writing_is_done_again(parts, written, tmp_path):
    result, generator, table = parts
    write_balancing_set(result, tmp_path, generator=generator, table=table)
    (tmp_path / "train" / "metadata.jsonl").unlink()
    (tmp_path / "README.md").unlink()
    next(tmp_path.glob("train/fear/*.png")).write_bytes(b"")
    write_balancing_set(result, tmp_path, generator=generator, table=table)
    files = {path.relative_to(written) for path in written.rglob("*")}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == files
    assert all((tmp_path / f).read_bytes() == (written / f).read_bytes() for f in files if (written / f).is_file())


def test_another_data_set_is_never_touched(parts, tmp_path):
    result, generator, table = parts
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.jsonl").write_text("")
    with pytest.raises(InputError, match="another data set"):
        write_balancing_set(result, tmp_path, generator=generator, table=table)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["metadata.jsonl", "train"]


def test_originals_make_a_balanced_folder(job, parts, tmp_path):
    result, generator, table = parts
    write_balancing_set(result, tmp_path, generator=generator, table=table, originals=True)
    whole = read_image_folder(tmp_path, image_size=32, channels=1)["train"]
    assert set(whole.counts().values()) == {6}
    assert torch.equal(whole.images, FaceTable.concatenate([table, result.table]).images)
    assert whole.synthetic.tolist() == [False] * 12 + [True] * 6


def test_faces_of_an_earlier_set_count_and_stay_marked(job, parts, tmp_path):
    result, generator, table = parts
    earlier = table.replace(synthetic=torch.arange(len(table)) % 4 == 0)
    write_balancing_set(result, tmp_path, generator=generator, table=earlier, originals=True)
    back = read_image_folder(tmp_path, image_size=32, channels=1)["train"]
    assert back.counts() == json.loads((tmp_path / "balance.json").read_text())["counts_after"]
    assert torch.equal(back.synthetic, torch.cat([earlier.synthetic, result.table.synthetic]))
    for file in tmp_path.rglob("train/**/*.png"):
        with Image.open(file) as image:
            assert ("synthetic" in image.text) == (not file.name.startswith("original")), file


def balanced_again(generator, data, out, parents, *, seed=0):
    """Balance the training split of ``data`` into ``out``, and add the pixels of each edit's source to ``parents``."""
    table = load_splits(data, image_size=32, channels=1, split_seed=seed, on_leak="warn").train
    total = max(table.counts().values()) + 4
    plan = dict.fromkeys(table.classes, total)
    result = synthesize_balancing_set(generator, None, table, plan, filter=False, seed=seed)
    for image, record in zip(result.table.images, result.records, strict=True):
        parents[pixels(image)] = pixels(table.images[record["source_row"]])
    return write_balancing_set(result, out, generator=generator, table=table, originals=True, sheet_faces=1)


def pixels(image):
    return image.numpy().tobytes()


def rows_of(folder):
    return [json.loads(line) for line in (folder / "train" / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def chain(job, tmp_path_factory):
    """A set that was balanced twice, the set between, and the pixels of each edit's source by its own."""
    root, generator, parents = tmp_path_factory.mktemp("chain"), job.make_generator(), {}
    write_image_folder(job.make_faces({"neutral": 24, "happiness": 16, "fear": 10}, subjects=0), root / "faces")
    once = balanced_again(generator, root / "faces", root / "once", parents)
    return balanced_again(generator, once, root / "twice", parents, seed=1), once, parents


@pytest.mark.parametrize("seed", range(3))
def test_no_edit_of_a_held_out_photograph_is_trained_on_however_often_a_set_was_balanced(chain, seed):
    twice, _, parents = chain
    splits = load_splits(twice, image_size=32, channels=1, split_seed=seed, on_leak="warn")
    held_out = {pixels(image) for part in (splits.validation, splits.test) for image in part.images}
    made = splits.train.images[splits.train.synthetic]
    assert len(made) >= 20 and not any(parents[pixels(image)] in held_out for image in made)
    assert any("they are edits of faces that are held out" in note for note in splits.notes)
    written = read_image_folder(twice, image_size=32, channels=1)["train"].images
    assert any(parents.get(pixels(image)) in held_out for image in written)


def test_what_an_earlier_set_says_of_its_faces_is_kept(chain):
    twice, once, parents = chain
    table = read_image_folder(twice, image_size=32, channels=1)["train"]
    before = read_image_folder(once, image_size=32, channels=1)["train"]
    rows, first = rows_of(twice), {pixels(before.images[i]): row for i, row in enumerate(rows_of(once))}
    called = {pixels(before.images[i]): before.files[i].removeprefix(f"{once}/") for i in range(len(before))}
    earlier = [i for i, row in enumerate(rows) if row["file_name"].split("/")[1].startswith("earlier")]
    assert len(earlier) > 10
    for i in earlier:
        row, was = rows[i], first[pixels(table.images[i])]
        for name in ("expression", "source_expression", "generator", "attempt", "below_threshold", "filtered"):
            assert row[name] == was[name], name
        assert row["synthetic"] is True and row["seed"] is None
        # Its photograph is in this table, too, under the name that it has in the set between.
        source = called[parents[pixels(table.images[i])]]
        assert row["source_file"] == source and rows[row["source_row"]]["source_file"] == source
        text = Image.open(twice / "train" / row["file_name"]).text
        assert text == {"synthetic": "true", "generator": was["generator"], "source_file": source}
    assert set(attribute_words(table, "filtered")) == {None, "False"}


def test_what_an_earlier_set_does_not_say_is_missing(job, parts, tmp_path):
    result, generator, table = parts
    earlier = table.replace(synthetic=torch.arange(len(table)) == 3)
    write_balancing_set(result, tmp_path, generator=generator, table=earlier, originals=True)
    (row,) = (row for row in rows_of(tmp_path) if row["file_name"].split("/")[1].startswith("earlier"))
    names = ("source_file", "source_row", "source_expression", "seed", "attempt", "generator", "filtered")
    assert [row[name] for name in names] == [None] * 7
    assert Image.open(tmp_path / "train" / row["file_name"]).text == {"synthetic": "true"}


def drawn(result, directory, **parts):
    """What a set of two rows of faces gives to draw: cells, columns and path."""
    seen = []
    write_balancing_set(result, directory, sheet_faces=2, draw=lambda *given: seen.append(given), **parts)
    return seen[0]


def test_another_way_to_draw_is_used(parts, tmp_path):
    result, generator, table = parts
    cells, columns, path = drawn(result, tmp_path, generator=generator, table=table)
    assert cells.shape == (2, 4, 1, 32, 32) and columns == ["source", *table.classes]
    assert path == tmp_path / "contact_sheet.png"


def test_the_sheet_is_drawn_as_the_faces_were(parts, tmp_path):
    _, generator, table = parts
    result = synthesize_balancing_set(generator, None, table, filter=False, spread=2.0)
    cells, _, _ = drawn(result, tmp_path, generator=generator, table=table)
    rows = sheet_rows(table, 2)
    assert torch.equal(cells, contact_cells(generator, table, rows, spread=2.0))
    assert not torch.equal(cells, contact_cells(generator, table, rows))


def test_nothing_to_write(job, tmp_path):
    judge, table = job.make_judge(), job.make_faces(dict.fromkeys(job.CLASSES, 5))
    generator = job.make_generator()
    empty = synthesize_balancing_set(generator, judge, table, calibration=calibrate_judge(judge, table))
    with pytest.raises(InputError, match="no synthesized face to write"):
        write_balancing_set(empty, tmp_path / "set", generator=generator, table=table)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("format", ["imagefolder", "webdataset", "parquet"])
def test_a_set_of_new_faces_says_so(job, tmp_path, monkeypatch, format):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    generator, table = job.make_diffusion(), job.make_faces({"neutral": 4, "happiness": 2, "fear": 3})
    result = synthesize_balancing_set(
        generator, None, table, sources="none", filter=False, sampling=SamplingOptions(steps=2)
    )
    out = write_balancing_set(result, tmp_path / "set", generator=generator, table=table, format=format, sheet_faces=2)
    rows = datasets.load_dataset(format, data_dir=str(out), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(rows) == 3 and Image.open(out / "contact_sheet.png").size[0] == 3 * (96 + 2) + 2
    card = (out / "README.md").read_text()
    assert "is a new one, made of noise by a DiffusionFERSNet" in card and "synthesize(None, expression," in card
    assert "edited by" not in card and "their source" not in card and "still show them" not in card
    if format == "imagefolder":
        records = [json.loads(line) for line in (out / "train/metadata.jsonl").read_text().splitlines()]
        assert all(r["source_file"] is None and r["synthetic"] for r in records)
        assert not any("source_file" in Image.open(path).text for path in (out / "train").rglob("*.png"))
        read = read_image_folder(out, image_size=32, channels=1, classes=job.CLASSES)["train"]
        assert torch.equal(read.images, result.table.images) and (read.subject == -1).all()
