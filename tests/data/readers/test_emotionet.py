import numpy as np
import pytest

from synthmtl.data.readers.emotionet import is_emotionet, read_emotionet
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS


def read(root, **options):
    return read_emotionet(root, **{"image_size": 16, "channels": 1} | options)


def units(table, *names):
    return table.action_units[:, [ACTION_UNITS.index(name) for name in names]]


def test_urls_and_unknown_units(lay_out):
    rows = [
        "\ufeffURL,AU 1,AU 2,AU12,AU 60",
        "http://example.org/x/y/a.png?size=1,1,999,0,1",
        '"http://example.org/b.png" , 0, 1, ,0',
        "http://example.org/none.png,999,999,999,1",
    ]
    root = lay_out({"labels.csv": "\r\n".join(rows), "images/a.png": 1, "b.png": 2})
    assert is_emotionet(root) and is_emotionet(root / "labels.csv")
    for path in (root, root / "labels.csv"):
        table = read(path)["all"]
        assert len(table) == 2 and table.classes == ()  # the third face has no known unit of ours
        np.testing.assert_array_equal(units(table, "AU1", "AU2", "AU12"), [[1, np.nan, 0], [0, 1, np.nan]])
        assert int((~table.action_units.isnan()).sum()) == 4
        assert table.files[0] == (root / "images/a.png").as_posix()


def test_file_names_tabs_and_splits(lay_out):
    def rows(name):
        return f"URL\tfile name\t1\t12\nhttp://example.org/z.png\t{name}\t1\t0\n"

    root = lay_out(
        {"train.txt": rows("s/a.png"), "val.txt": rows("s/b.png"), "s/a.png": 1, "s/b.png": 2, "notes.txt": "none"}
    )
    tables = read(root)
    assert {name: table.files for name, table in tables.items()} == {
        "train": [(root / "s/a.png").as_posix()],
        "validation": [(root / "s/b.png").as_posix()],
    }
    assert units(tables["train"], "AU1", "AU12").tolist() == [[1, 0]]
    lay_out({"more.txt": rows("s/a.png")})
    with pytest.raises(InputError, match="more.txt: in no split, though others are"):
        read(root)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("b.png,2,0", "AU1 is '2': use 0, 1, or 999"),
        ("b.png,0,yes", "AU12 is 'yes'"),
        ("../b.png,0,1", "'../b.png' is no path below the data folder"),
        ("http://example.org/..,0,1", "is no path below the data folder"),
        ("http://example.org,0,1", "is no path below the data folder"),
        (",0,1", "'' is no path below the data folder"),
        ("b.png,1", "2 cells where the header has 3"),
        ("c.png,0,1", "no image .*images/c.png"),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(lay_out, bad, message):
    root = lay_out({"all.csv": f"file_name,AU1,AU12\na.png,0,1\n{bad}\n", "a.png": 1, "b.png": 2})
    with pytest.raises(InputError, match=f"all.csv:3: .*{message}"):
        read(root)
    assert len(read(root, on_bad="skip")["all"]) == 1


def test_other_files_are_not_emotionets(lay_out):
    root = lay_out(
        {"a.csv": "name,size\nx,1\n", "metadata.csv": "file_name,AU1\na.png,1\n", "b.csv": b"\xff\xfe", "c.md": ""}
    )
    assert not is_emotionet(root)
    with pytest.raises(InputError, match="no faces found: give the folder of a csv"):
        read(root)
    with pytest.raises(InputError, match="a.csv:1: no column of action units"):
        read(root / "a.csv")


def test_a_picture_has_one_row(lay_out):
    rows = ["URL,AU 1", "http://example.org/x/a.png,1", "http://example.com/y/a.png,0", "http://example.org/b.png,1"]
    root = lay_out({"all.csv": "\n".join(rows), "images/a.png": 1, "images/b.png": 2})
    with pytest.raises(InputError, match="all.csv:3: images/a.png has a row already .*all.csv:2.: keep one of them"):
        read(root)
    assert units(read(root, on_bad="skip")["all"], "AU1").tolist() == [[1], [1]]


def test_empty_cells_at_the_end_of_a_row_between_tabs(lay_out):
    rows = ["URL\tAU1\tAU2\tAU12", "http://example.org/a.png\t1\t\t", "b.png\t\t\t1", "c.png\t\t\t", "d.png\t0\t0\t0\t"]
    root = lay_out({"all.txt": "\r\n".join(rows)} | {f"images/{name}.png": i for i, name in enumerate("abcd")})
    found = units(read(root)["all"], "AU1", "AU2", "AU12")
    np.testing.assert_array_equal(found, [[1, np.nan, np.nan], [np.nan, np.nan, 1], [0, 0, 0]])


def test_only_columns_that_spell_au_tell_whose_a_folder_is(lay_out, tmp_path):
    files = {"folds.csv": "file,1,2\na.png,0,1\n", "a.png": 1}
    root = lay_out(files)
    assert not is_emotionet(root) and not is_emotionet(root / "folds.csv") and len(read(root)["all"]) == 1
    lay_out({"units.csv": "file,AU1\na.png,1\n"})
    assert is_emotionet(root)
    for labels in ({"train/happy/b.png": 2}, {"metadata.csv": "file_name\na.png\n"}, {"images/metadata.jsonl": ""}):
        folder = lay_out(files | {"units.csv": "file,AU1\na.png,1\n"} | labels, tmp_path / next(iter(labels))[:5])
        assert not is_emotionet(folder) and is_emotionet(folder / "units.csv")
