import pytest

from synthmtl.data.readers.hugging_face_columns import files_by_split, told_splits
from synthmtl.data.readers.metadata import Record
from synthmtl.errors import InputError


def test_files_go_with_the_split_that_their_names_tell():
    names = ["faces-train-00000-of-00002", "faces-train-00001-of-00002", "fer_test", "val0"]
    files = [f"data/{name}.parquet" for name in names]
    assert files_by_split(files) == {"train": files[:2], "test": files[2:3], "val": files[3:]}
    assert files_by_split(["a.parquet", "b.parquet"]) == {"rows": ["a.parquet", "b.parquet"]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train", "faces"],
            "faces.parquet: its name tells no split, but train.parquet does: put train, validation or",
        ),
        (["train-test-00000"], "train-test-00000.parquet: its name tells two splits, train and test: rename it"),
    ],
)
def test_names_that_tell_no_one_split(names, message):
    with pytest.raises(InputError, match=message):
        files_by_split([f"{name}.parquet" for name in names])


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
