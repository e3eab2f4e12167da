import logging
import shutil
import zipfile

import pytest

from synthmtl.data import sources
from synthmtl.data.load import read_tables
from synthmtl.data.sources import Source, decode_faces, refuse_bad, report_bad
from synthmtl.errors import InputError


def test_names_are_sorted_and_hidden_files_left_out(tmp_path):
    for name in ("b/2.png", "a/1.png", ".git/x.png", "__MACOSX/a/._1.png", "a/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    with Source(tmp_path) as source:
        assert source.names == ["a/1.png", "b/2.png"]
        assert source.read("b/2.png") == b"b/2.png" and source.size("b/2.png") == 7


def test_a_link_to_a_folder_above_is_walked_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with Source(tmp_path) as source:
        assert source.names == ["a/1.png"]


def test_a_damaged_member_of_a_zip_names_itself(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("anger/1.png", b"0123456789" * 10)
    data = bytearray(path.read_bytes())
    data[data.index(b"0123456789") + 5] ^= 0xFF
    path.write_bytes(bytes(data))
    with Source(path) as source, pytest.raises(InputError, match="set.zip/anger/1.png: cannot be read .*CRC"):
        source.read("anger/1.png")


def test_too_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 10)
    (tmp_path / "big.png").write_bytes(b"x" * 11)
    with Source(tmp_path) as source, pytest.raises(InputError, match="big.png: .*limit"):
        source.read("big.png")


def test_threads_and_loop_give_the_same(folder, monkeypatch):
    root = folder({"anger": 5})
    with Source(root) as source:
        few = decode_faces(source, source.names, image_size=8, channels=1)
        monkeypatch.setattr(sources, "_LARGE", 0)
        many = decode_faces(source, source.names, image_size=8, channels=1)
    assert (few[0] == many[0]).all() and (few[1] == many[1]).all() and (few[1] == 16).all()


def decode(source, **options):
    return decode_faces(source, source.names, image_size=8, channels=1, **options)


def test_bad_files_are_counted_and_the_first_ten_named(folder):
    root = folder({"anger": 14})
    files = sorted(root.rglob("*.png"))
    for file in files[:12]:
        file.write_bytes(b"")
    with Source(root) as source:
        with pytest.raises(InputError) as caught:
            decode(source)
        message = str(caught.value)
        assert message.startswith("12 of 14 images cannot be read: ") and message.endswith("; and 2 more")
        assert [str(file) in message for file in files] == [True] * 10 + [False] * 4 and "\n" not in message
        assert sorted(decode(source, on_bad="skip")[2]) == list(range(12))


def test_one_bad_file_speaks_for_itself(caplog):
    with pytest.raises(InputError, match="^a.png: broken$"):
        refuse_bad(["a.png: broken"], 9)
    refuse_bad([], 9)
    with caplog.at_level(logging.WARNING, "synthmtl"):
        report_bad([], 9)
        assert not caplog.records
        report_bad(["a.png: broken", "b.png: empty"], 9)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "left out 2 of 9 images, which cannot be read:", "left out: a.png: broken", "left out: b.png: empty",
    ]  # fmt: skip


def test_a_file_that_vanished_since_it_was_listed(folder):
    root = folder({"anger": 3})
    with Source(root) as source:
        (root / source.names[1]).unlink()
        with pytest.raises(InputError, match="cannot be read .*No such file"):
            decode(source)
        assert list(decode(source, on_bad="skip")[2]) == [1]


def test_links_are_followed_and_names_may_not_leave_the_folder(folder, tmp_path):
    root = folder({"anger": 3})
    first, second, third = sorted(root.rglob("*.png"))
    disk = tmp_path / "disk"
    disk.mkdir()
    shutil.move(first, disk / "0.png")
    first.symlink_to(disk / "0.png")
    second.unlink()
    second.symlink_to(third)
    (root / "fear").symlink_to(disk, target_is_directory=True)
    with Source(root) as source:
        assert source.names == [f"anger/{path.name}" for path in (first, second, third)] + ["fear/0.png"]
        assert decode(source)[2] == {}
        for name in ("../disk/0.png", "anger/../../disk/0.png", str(disk / "0.png"), ".."):
            with pytest.raises(InputError, match="leads out of the data folder"):
                source.read(name)


def test_names_that_merely_begin_with_dots(tmp_path):
    (tmp_path / "..face.png").write_bytes(b"x")
    with Source(tmp_path) as source:
        assert source.read("..face.png") == b"x"


def test_a_linked_folder_may_be_given_itself(folder, tmp_path):
    root = folder({"anger": 2})
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    with Source(tmp_path / "link") as source:
        assert decode(source)[2] == {}


@pytest.mark.parametrize("given", ["abc", "abc/train"])
def test_snapshots_of_the_hub_link_to_their_store(folder, tmp_path, given):
    root = folder({"anger": 2})
    store, snapshot = tmp_path / "datasets--x" / "blobs", tmp_path / "datasets--x" / "snapshots" / "abc"
    store.mkdir(parents=True)
    for i, file in enumerate(sorted(root.rglob("*.png"))):
        shutil.move(file, store / f"{i}")
        link = snapshot / "train" / "anger" / f"{i}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../../../blobs/{i}")
    with Source(tmp_path / "datasets--x" / "snapshots" / given) as source:
        assert len(source.names) == 2 and decode(source)[2] == {}


def test_two_links_to_one_folder_are_both_read_and_loops_end(tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder / "fear").mkdir(parents=True)
        (tmp_path / folder / "fear/0.png").write_bytes(b"")
    (tmp_path / "validation").symlink_to("test")
    (tmp_path / "test/fear/again").symlink_to(tmp_path / "test")
    names = Source(tmp_path).names
    assert names == ["test/fear/0.png", "train/fear/0.png", "validation/fear/0.png"]


def test_a_zip_whose_list_of_files_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("fear/0.png", b"x")
    content = (tmp_path / "faces.zip").read_bytes().replace(b"PK\x01\x02", b"XX\x01\x02", 1)
    (tmp_path / "faces.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"faces\.zip: damaged zip archive .*download or pack it again"):
        Source(tmp_path / "faces.zip")


def test_a_zip_with_backslashes_is_read_as_one_with_slashes(folder, tmp_path):
    """Some tools of Windows write them between folders."""
    root = folder({"train/anger": 2, "test/fear": 1})
    (root / "metadata.csv").write_text("file_name,subject\ntrain\\anger\\000.png,7\n")
    read = {}
    for separator in ("/", "\\"):
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.writestr(f"train{separator}", b"")
            for file in sorted(root.rglob("*.*")):
                archive.writestr(file.relative_to(root).as_posix().replace("/", separator), file.read_bytes())
        with Source(tmp_path / "set.zip") as source:
            read[separator] = {name: (source.read(name), source.size(name)) for name in source.names}
        tables = read_tables(tmp_path / "set.zip", image_size=16, channels=1)
        assert {name: table.subject.tolist() for name, table in tables.items()} == {"train": [7, -1], "test": [-1]}
    assert read["/"] == read["\\"] and "train/anger/001.png" in read["/"]


def test_two_files_of_a_zip_stay_two(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("a/b.png", "a\\b.png"):
            archive.writestr(name, name)
    with Source(tmp_path / "set.zip") as source:
        assert [source.read(name).decode() for name in source.names] == source.names == ["a/b.png", "a\\b.png"]


@pytest.mark.parametrize("packed", [False, True])
def test_first_lines(tmp_path, packed):
    contents = {"a.csv": b"\xef\xbb\xbfx,y\r\n1,2\n", "b.csv": b"z" * 10_000, "c.csv": b"", "d.csv": b"\xff\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in contents:
            archive.write(tmp_path / name, name)
    with Source(tmp_path / "set.zip" if packed else tmp_path) as source:
        lines = [source.first_line(name) for name in contents]
    assert lines == ["x,y\r\n", "z" * 4096, "", "\ufffd\n"]
