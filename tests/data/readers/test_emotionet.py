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
