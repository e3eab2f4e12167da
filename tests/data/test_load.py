import logging

import pytest
import torch

from synthmtl.data.load import load_splits
from synthmtl.data.table import FaceTable, attribute_words
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.labels import ordered_classes


def load(path, **options):
    return load_splits(path, **{"image_size": 16, "channels": 1} | options)


def sizes(splits):
    return {name: len(table) for name, table in splits.tables().items()}


def pictures(table):
    return {image.numpy().tobytes() for image in table.images}


def test_without_splits(folder, caplog):
    with caplog.at_level(logging.INFO, "synthmtl"):
        splits = load(folder({"anger": 40, "fear": 60}))
    assert sizes(splits) == {"train": 70, "validation": 15, "test": 15}
    assert splits.classes == ("fear", "anger") == splits.test.classes
    assert splits.notes[0].startswith("split 100 faces by image") and splits.notes[0] in caplog.text


def test_seed_decides(folder):
    root = folder({"anger": 20, "fear": 20})
    one, same, other = (pictures(load(root, split_seed=seed).test) for seed in (0, 0, 1))
    assert one == same != other


def test_by_subject_when_known(table, tmp_path):
    faces = table({"anger": 50, "fear": 50}, subjects=20)
    write_image_folder(faces, tmp_path, "train")
    splits = load(tmp_path)
    assert "by subject" in splits.notes[0]
    people = [set(part.subject.tolist()) for part in splits.tables().values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 20


@pytest.mark.parametrize(("given", "absent"), [("validation", "test"), ("test", "validation")])
def test_a_missing_part_is_split_off_train_and_never_borrowed(folder, given, absent):
    root = folder({"train/anger": 50, "train/fear": 50, f"{given}/anger": 6, f"{given}/fear": 4})
    splits = load(root)
    assert sizes(splits) == {"train": 90, given: 10, absent: 10}
    parts = [pictures(part) for part in splits.tables().values()]
    assert len(set.union(*parts)) == 110
    assert f"train 90, {absent} 10" in splits.notes[0]


@pytest.mark.parametrize(("validation", "test"), [(1, 5), (60, 15)])
def test_the_part_split_off_is_from_5_to_15_percent(folder, validation, test):
    root = folder({"train/anger": 50, "train/fear": 50, "validation/anger": validation, "validation/fear": validation})
    assert len(load(root).test) == pytest.approx(test, abs=1)


def test_three_splits_stay_as_they_are(folder):
    root = folder({"train/anger": 3, "train/fear": 2, "val/anger": 1, "test/fear": 2})
    splits = load(root)
    assert sizes(splits) == {"train": 5, "validation": 1, "test": 2}
    assert splits.notes == ["validation has no faces of fear", "test has no faces of anger"]


def test_synthesised_faces_stay_in_train(table, tmp_path):
    real, made = table({"anger": 30, "fear": 30}), table({"anger": 10, "fear": 0}, seed=1)
    made.synthetic[:] = True
    both = FaceTable.concatenate([real, made])
    write_image_folder(both, tmp_path / "train_only", "train")
    splits = load(tmp_path / "train_only")
    assert int(splits.train.synthetic.sum()) == 10
    assert not splits.validation.synthetic.any() and not splits.test.synthetic.any()
    for split in ("train", "validation", "test"):
        write_image_folder(both, tmp_path / "three", split)
    splits = load(tmp_path / "three", on_leak="warn")
    assert sizes(splits) == {"train": 70, "validation": 60, "test": 60}
    assert splits.notes[:2] == [f"left 10 synthesised faces out of {name}" for name in ("validation", "test")]
    write_image_folder(made, tmp_path / "made", "train", names=[f"m{i}" for i in range(10)])
    write_image_folder(both, tmp_path / "made", "test")
    with pytest.raises(InputError, match="one|only"):
        load(tmp_path / "made")


def test_edits_of_held_out_faces_stay_out_of_train(table, tmp_path):
    """A balanced set of people whom nobody knows, two edits of each photograph, split once more by its reader."""
    real, made = table({"anger": 60, "fear": 60}), table({"anger": 120, "fear": 120}, seed=1)
    made.synthetic[:] = True
    names = [f"faces/{i:03d}.png" for i in range(120)]
    codes = torch.cat([torch.arange(120), torch.arange(240) % 120]).float()
    both = FaceTable.concatenate([real, made])
    both.attributes["source_file"], both.words["source_file"] = codes, tuple(names)
    write_image_folder(both, tmp_path / "train_only", "train")
    splits = load(tmp_path / "train_only")
    sources = {name: set(attribute_words(part, "source_file")) for name, part in splits.tables().items()}
    assert sources["train"] | sources["validation"] | sources["test"] == set(names)
    assert not sources["train"] & (sources["validation"] | sources["test"])
    left = 2 * (len(splits.validation) + len(splits.test))
    assert int(splits.train.synthetic.sum()) == 240 - left > 0
    assert f"left {left} of 240 synthesised faces out: they are edits of faces that are held out" in splits.notes


@pytest.fixture
def put_edits(table):
    """put_edits(folder, sources) writes an edit of each of these photographs beside those in a folder."""

    def put(folder, sources):
        made = table({"anger": len(sources), "fear": 0}, seed=7)
        made.synthetic[:] = True
        names = [f"made-{i}" for i in range(len(sources))]
        extra = [{"source_file": source} for source in sources]
        write_image_folder(made, folder.parent, folder.name, names=names, extra=extra)

    return put


@pytest.mark.parametrize("called", ["set", "old"])
def test_edits_beside_their_photographs_stay_out_of_train_where_these_are_held_out(folder, put_edits, called):
    """What ``balance`` wrote without the originals, put beside them: the photographs name no source of their own."""
    root = folder({"anger": 40, "fear": 40})
    names = [f"{name}/{i:03d}.png" for name in ("anger", "fear") for i in range(40)]
    put_edits(root, [f"{called}/{name}" for name in names])
    for seed in range(3):
        splits = load(root, split_seed=seed)
        held_out = [file for part in (splits.validation, splits.test) for file in part.files]
        sources = attribute_words(splits.train, "source_file")
        kept = [source for source in sources if source is not None]
        assert len(kept) == int(splits.train.synthetic.sum()) == 80 - len(held_out) == 56
        assert not any(file.endswith(source.removeprefix(called)) for source in kept for file in held_out)
        assert "left 24 of 80 synthesised faces out: they are edits of faces that are held out" in splits.notes


@pytest.mark.parametrize("given", [("train", "validation", "test"), ("train", "test")])
def test_edits_of_faces_in_splits_that_the_data_bring_along_stay_out_of_train(folder, put_edits, given):
    root = folder({f"{part}/{name}": 20 for part in given for name in ("anger", "fear")})
    names = [f"{part}/anger/{i:03d}.png" for part in given for i in range(20)]
    put_edits(root / "train", [f"set/{name}" for name in names])
    splits = load(root)
    held_out = [file for part in (splits.validation, splits.test) for file in part.files]
    kept = [source for source in attribute_words(splits.train, "source_file") if source is not None]
    assert kept and not any(file.endswith(source) for source in kept for file in held_out)
    left = sum("/anger/" in file for file in held_out)
    assert f"left {left} of {20 * len(given)} synthesised faces out: they are edits of faces that are held out" in (
        splits.notes
    )
    assert int(splits.train.synthetic.sum()) == 20 * len(given) - left


def test_new_faces_and_edits_of_photographs_elsewhere_stay_in_train(folder, put_edits):
    root = folder({"anger": 20, "fear": 20})
    put_edits(root, [None, None, "set/anger/999.png"])
    splits = load(root)
    assert int(splits.train.synthetic.sum()) == 3 and "3 synthesised faces stay in train" in splits.notes
    said = "1 of 3 synthesised faces name a photograph that is not among the faces: whether it is held out is not known"
    assert said in splits.notes


def test_the_parts_that_were_split_off_are_told(folder, tmp_path):
    parts = {}
    for given in (["train", "validation", "test"], ["train", "test"], ["train", "validation"], ["train"]):
        counts = {f"{part}/{name}": 20 for part in given for name in ("anger", "fear")}
        parts[*given] = load(folder(counts, tmp_path / "-".join(given))).split_off
    assert list(parts.values()) == [(), ("train", "validation"), ("train", "test"), ("train", "validation", "test")]
    assert load(folder({"anger": 20, "fear": 20}, tmp_path / "none")).split_off == ("train", "validation", "test")


def test_all_synthesised_or_an_evaluation_part_without_photographs(table, tmp_path):
    faces = table({"anger": 10, "fear": 10})
    faces.synthetic[:] = True
    write_image_folder(faces, tmp_path)
    with pytest.raises(InputError, match="all faces are synthesised"):
        load(tmp_path)
    write_image_folder(faces, tmp_path, "test")
    with pytest.raises(InputError, match="test holds synthesised faces only"):
        load(tmp_path)


def test_unlabelled_faces_are_kept(table, tmp_path):
    faces = table({"anger": 20, "fear": 20})
    faces.expression[:4] = -1
    write_image_folder(faces, tmp_path)
    splits = load(tmp_path)
    assert sum(sizes(splits).values()) == 40
    assert sum(int((part.expression < 0).sum()) for part in splits.tables().values()) == 4
    assert any("without an expression" in note for note in splits.notes)


def test_fer2013_csv(tmp_path):
    generator = torch.Generator().manual_seed(0)

    def row(code, usage):
        pixels = torch.randint(0, 256, (2304,), generator=generator).tolist()
        return f"{code},{' '.join(map(str, pixels))},{usage}"

    rows = [row(code, "Training") for code in (0, 3) * 20] + [row(code, "PublicTest") for code in (0, 3, 3)]
    (tmp_path / "fer.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    splits = load(tmp_path / "fer.csv", image_size=48)
    assert sizes(splits) == {"train": 38, "validation": 3, "test": 2}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"anger": 10}, "only .*anger.* expression"),
        ({"train/anger": 10}, "train: only .*anger.* expression"),
        ({"anger": 10, "fear": 1}, "class 'fear' has one image"),
        ({"train/anger": 10, "train/fear": 1, "validation/fear": 3, "test/fear": 3}, "class 'fear' has one image"),
        ({"train/anger": 9, "train/fear": 9, "test/sad": 3}, "class 'sadness' has no images"),
        ({"validation/anger": 10, "test/anger": 10}, "no train split, only validation, test"),
        ({}, "no faces found"),
    ],
)
def test_too_little_data_is_one_clear_line_with_the_path(folder, counts, message):
    root = folder(counts)
    with pytest.raises(InputError, match=message) as error:
        load(root)
    assert str(root) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("parts", [("train", "validation", "test"), ("train", "test"), ("train",), ()])
def test_classes_that_the_data_hardly_show_may_be_let_in(folder, parts):
    of = {"anger": 20, "fear": 12}
    counts = {f"{part}/{name}": count for part in parts for name, count in of.items()} or dict(of)
    root = folder(counts | {"train/sad" if parts else "sad": 1})
    wanted = ("anger", "fear", "sadness", "contempt")
    with pytest.raises(InputError, match="class 'sadness' has one image|class 'contempt' has no images"):
        load(root, classes=wanted)
    splits = load(root, classes=wanted, every_class=False)
    assert splits.classes == ordered_classes(wanted)
    assert (splits.train.counts()["sadness"], splits.train.counts()["contempt"]) == (1, 0)
    assert all(table.counts()["sadness"] == 0 for table in (splits.validation, splits.test))
    assert "train has no faces of contempt" in splits.notes


def test_splits_of_data_that_show_every_class_do_not_depend_on_whether_they_must(folder):
    root = folder({"anger": 20, "fear": 12, "sad": 2})
    one, other = (load(root, every_class=every_class) for every_class in (True, False))
    for name, table in one.tables().items():
        assert table.fingerprint() == other.tables()[name].fingerprint()


@pytest.mark.parametrize("counts", [{"anger": 10}, {"train/anger": 10, "test/anger": 3, "test/fear": 3}])
def test_two_classes_are_needed_in_any_case(folder, counts):
    with pytest.raises(InputError, match="only .*anger.* expression: add images of at least one more class"):
        load(folder(counts), classes=("anger", "fear"), every_class=False)


def test_paths_of_no_known_kind(tmp_path, folder):
    with pytest.raises(InputError, match="no such folder or file"):
        load(tmp_path / "none")
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="other.csv:1: not FER2013's csv"):
        load(tmp_path / "other.csv")
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        load(tmp_path / "note.txt")
    with pytest.raises(InputError, match="votes"):
        load(folder({"anger": 2}), ferplus=tmp_path / "votes.csv")


def test_bad_images(folder, caplog):
    root = folder({"anger": 20, "fear": 20})
    (root / "anger" / "000.png").write_bytes(b"")
    with pytest.raises(InputError, match="000.png: .*0 bytes"):
        load(root)
    assert sum(sizes(load(root, on_bad="skip")).values()) == 39
