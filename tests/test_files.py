import errno
import os

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from synthmtl.files import replacing, write_tensors, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_it_is_whole(tmp_path):
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("new")
        assert names(tmp_path) == [partial.name] and partial.name.startswith(".")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path, error):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(error), replacing(tmp_path / "a.txt") as partial:
        partial.write_text("half of the n")
        raise error
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_processes_write_side_by_side(tmp_path):
    with replacing(tmp_path / "a", tag=".0") as first, replacing(tmp_path / "a", tag=".1") as second:
        first.write_text("first")
        second.write_text("second")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "first"


def test_tensors_in_any_memory_format(tmp_path):
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    write_tensors(tmp_path / "a.safetensors", {"image": image, "column": image[..., 0]})
    found = load_file(tmp_path / "a.safetensors")
    assert torch.equal(found["image"], image) and torch.equal(found["column"], image[..., 0])


def write_png(path):
    with replacing(path) as partial:
        Image.effect_noise((99, 99), 50).save(partial, "PNG")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "x" * 4000),
        lambda path: write_tensors(path, {"x": torch.zeros(1000)}),
        write_png,
    ],
)
def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path, files_of_at_most, write):
    path = tmp_path / "a"
    write_text(path, "old")
    with files_of_at_most(1000), pytest.raises(OSError) as caught:
        write(path)
    assert caught.value.errno == errno.EFBIG and caught.value.strerror == os.strerror(errno.EFBIG)
    assert caught.value.filename == str(path)
    assert names(tmp_path) == ["a"] and path.read_text() == "old"


def test_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write_text(tmp_path / "a", "x")
    with replacing(tmp_path / "b", flush=False) as partial:
        partial.write_text("x")
    assert order == ["fsync", "replace", "replace"]
