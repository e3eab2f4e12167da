import logging

import pytest

from synthmtl.data.readers.rafdb import is_rafdb, read_rafdb
from synthmtl.errors import InputError
from synthmtl.labels import COMPOUND_EXPRESSIONS, RAFDB_CODES, RAFDB_COMPOUND_CODES


def read(root, **options):
    return read_rafdb(root, **{"image_size": 16, "channels": 1} | options)


def part(name, rows, aligned="_aligned", sep="\n"):
    files = {f"{name}/EmoLabel/list_patition_label.txt": sep.join(f"{file} {code}" for file, code in rows) + sep}
    return files | {
        f"{name}/Image/aligned/{file.replace('.jpg', aligned + '.jpg')}": i for i, (file, _) in enumerate(rows)
    }


BASIC = [(f"train_{code:05d}.jpg", code) for code in range(1, 8)] + [("test_0001.jpg", 4)]


def test_basic_with_byte_order_mark_and_crlf(lay_out):
    files = part("basic", BASIC, sep="\r\n")
    key = "basic/EmoLabel/list_patition_label.txt"
    root = lay_out(files | {key: "\ufeff" + files[key]})
    assert is_rafdb(root) and is_rafdb(root / "basic") and not is_rafdb(root / "basic" / "Image")
    for path in (root, root / "basic"):
        tables = read(path)
        assert {name: len(table) for name, table in tables.items()} == {"train": 7, "test": 1}
        train = tables["train"]
        assert [train.classes[i] for i in train.expression.tolist()] == list(RAFDB_CODES.values())
        assert train.classes[tables["test"].expression[0]] == "happiness"
        assert train.files[0].endswith("basic/Image/aligned/train_00001_aligned.jpg")
        assert (train.compound == -1).all()


def test_compound_alone_and_beside_basic(lay_out):
    rows = [(f"train_{code:04d}.jpg", code) for code in range(1, 12)]
    root = lay_out(part("basic", BASIC) | part("compound", rows))
    both = read(root)["train"]
    assert len(both) == 18
    assert ((both.expression < 0) != (both.compound < 0)).all()
    alone = read(root / "compound")["train"]
    assert [COMPOUND_EXPRESSIONS[i] for i in alone.compound.tolist()] == list(RAFDB_COMPOUND_CODES.values())
    assert alone.classes == () and (alone.expression == -1).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("train_2.jpg", 8), "expression is '8': use a code from 1 to 7"),
        (("train_2.jpg", 0), "expression is '0'"),
        (("train_2.jpg", "happy"), "expression is 'happy'"),
        (("train_2.jpg", "5 5"), "expression is '5 5'"),
        (("train_2.jpg", ""), "expression is ''"),
        (("dev_2.jpg", 5), "'dev_2.jpg' begins with neither train_ nor test_"),
        (("../train_2.jpg", 5), "'../train_2.jpg' is no path below the data folder"),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(lay_out, caplog, bad, message):
    root = lay_out(part("basic", [("train_1.jpg", 1), bad, ("train_3.jpg", 3)]))
    with pytest.raises(InputError, match=f"list_patition_label.txt:2: {message}"):
        read(root)
    with caplog.at_level(logging.WARNING, "synthmtl"):
        assert len(read(root, on_bad="skip")["train"]) == 2
    assert "list_patition_label.txt:2" in caplog.text


def test_pictures_that_are_not_aligned_are_missing(lay_out):
    root = lay_out(part("basic", BASIC, aligned=""))
    with pytest.raises(InputError, match="label.txt:1: no image .*train_00001_aligned.jpg"):
        read(root)
    with pytest.raises(InputError, match="no faces found: give the folder of RAF-DB"):
        read(root, on_bad="skip")
    with pytest.raises(InputError, match="on_bad must be error or skip"):
        read(root, on_bad="ignore")


def test_a_picture_has_one_row(lay_out):
    root = lay_out(part("basic", [("train_1.jpg", 1), ("train_1_aligned.jpg", 4), ("train_3.jpg", 3)]))
    with pytest.raises(InputError, match="label.txt:2: basic/Image/aligned/train_1_aligned.jpg has a row already .*:1"):
        read(root)
    table = read(root, on_bad="skip")["train"]
    assert [table.classes[i] for i in table.expression.tolist()] == [RAFDB_CODES[1], RAFDB_CODES[3]]
