import zipfile

import pytest

from synthmtl.data import sources
from synthmtl.data.sources import Source, decode_faces
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
