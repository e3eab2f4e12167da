import gc
import os

import numpy as np
import pytest
import torch

from synthmtl.data import storage
from synthmtl.data.storage import new_faces, take_faces
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError


def test_small_ones_are_memory_and_large_ones_a_file_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert not isinstance(new_faces((3, 1, 4, 4), in_memory=48), np.memmap)
    faces = new_faces((3, 1, 4, 4), in_memory=47)
    assert isinstance(faces, np.memmap) and faces.shape == (3, 1, 4, 4) and not faces.any()
    assert list(tmp_path.iterdir()) == []
    tensor = torch.from_numpy(faces)
    tensor[1] = 7
    del faces
    gc.collect()
    assert tensor.sum() == 7 * 16


def test_rows_that_follow_on_each_other_are_shared_and_others_copied(monkeypatch):
    images = torch.arange(6 * 4, dtype=torch.uint8).view(6, 1, 2, 2)
    part = take_faces(images, torch.tensor([2, 3, 4]))
    assert torch.equal(part, images[2:5]) and part.data_ptr() == images[2:].data_ptr()
    rows = torch.tensor([5, 0, 0, 3, 1])
    monkeypatch.setattr(storage, "_CHUNK", 2)
    assert torch.equal(take_faces(images, rows), images[rows])
    monkeypatch.setattr(storage, "IN_MEMORY", 8)
    large = take_faces(images, rows)
    assert torch.equal(large, images[rows]) and large.data_ptr() != images.data_ptr()
    assert len(take_faces(images, rows[:0])) == 0
    with pytest.raises(IndexError):
        take_faces(images, torch.tensor([5, 6]))


def test_a_table_keeps_the_pixels_of_a_large_set_once(monkeypatch):
    monkeypatch.setattr(storage, "IN_MEMORY", 100)
    images = torch.from_numpy(new_faces((20, 1, 4, 4)))
    images += torch.arange(20, dtype=torch.uint8)[:, None, None, None]
    table = FaceTable(images, ("neutral",), expression=torch.zeros(20, dtype=torch.int64))
    mask = torch.arange(20) >= 5
    assert table.select(mask).images.data_ptr() == images[5:].data_ptr()
    shuffled = table.select(torch.arange(20).flip(0))
    assert torch.equal(shuffled.images, images.flip(0))


def test_a_disk_without_room_is_named(monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="no room for .* of faces .*TMPDIR"):
        new_faces((4, 4), in_memory=1)
