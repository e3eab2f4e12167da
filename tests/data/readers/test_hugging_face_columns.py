from pathlib import Path

import pytest

from synthmtl.data.readers.hugging_face_columns import files_by_split, told_splits
from synthmtl.data.readers.metadata import Record
from synthmtl.errors import InputError

ROOT = Path("of", "a", "test")  # of the folder's own name nothing follows


def by_split(*names):
    files = files_by_split([ROOT / f"{name}.parquet" for name in names], ROOT)
    return {
        split: [Path(file).relative_to(ROOT).with_suffix("").as_posix() for file in those]
        for split, those in files.items()
    }


def test_files_go_with_the_split_that_their_names_tell():
    names = ["faces-train-00000-of-00002", "data/training1", "fer_test", "val0"]
    assert by_split(*names) == {"train": names[:2], "test": names[2:3], "validation": names[3:]}
    assert by_split("a", "b") == {"rows": ["a", "b"]}


def test_files_go_with_the_split_that_their_folder_is_called():
    names = ["default/train/0000", "default/train/0001", "data/Dev/faces", "test/test-0"]
    assert by_split(*names) == {"train": names[:2], "validation": names[2:3], "test": names[3:]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train", "faces"],
            "faces.parquet: its name tells no split, but train.parquet does: put train, validation or",
        ),
        (["val/0", "0"], "0.parquet: its name tells no split, but val/0.parquet does: put train, validation or"),
        (["train-test-00000"], "train-test-00000.parquet: its name tells two splits, train and test: rename it"),
        (["train/val-0"], "train/val-0.parquet: its name tells two splits, train and val: rename it"),
    ],
)
def test_names_that_tell_no_one_split(names, message):
    with pytest.raises(InputError, match=message):
        by_split(*names)


def told(splits, part, only=True):
    return told_splits([Record({"split": name}, "rows", i) for i, name in enumerate(splits, 1)], part, only=only)


@pytest.mark.parametrize("part", ["all", "train"])
def test_the_column_divides_what_has_no_splits(part):
    assert told(["Training", "dev", " test"], part) == ["train", "validation", "test"]
    assert told([None, "NA"], part) == [part] * 2
    with pytest.raises(InputError, match="rows:2: in no split, though other rows are"):
        told(["train", None], part)


@pytest.mark.parametrize(("part", "only"), [("test", True), ("train", False), ("test", False)])
def test_the_column_may_not_contradict_the_part(part, only):
    assert told([part, None], part, only) == [part] * 2
    with pytest.raises(InputError, match=f"rows:2: split 'dev', but the row is in {part}: correct the column"):
        told([part, "dev"], part, only)
    with pytest.raises(InputError, match="rows:1: unknown split 'fold 3': use train, validation or test"):
        told(["fold 3"], part, only)
