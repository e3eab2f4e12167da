import gc
import os

import numpy as np
import pytest
import torch

from synthmtl.data import storage
from synthmtl.data.storage import FaceRows, keep_faces, new_faces, take_faces
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


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("seed", range(5))
def test_faces_that_stay_move_to_the_front_of_their_own_memory(chunk, seed, monkeypatch):
    monkeypatch.setattr(storage, "_CHUNK", chunk)
    images = torch.arange(20, dtype=torch.uint8).repeat_interleave(4).view(20, 1, 2, 2)
    rows = torch.where(torch.rand(20, generator=torch.Generator().manual_seed(seed)) < 0.6)[0]
    place, wanted = images.data_ptr(), images[rows]
    kept = keep_faces(images, rows)
    assert torch.equal(kept, wanted) and kept.data_ptr() == place


def test_all_faces_one_and_none_may_stay_but_not_in_another_order():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    assert torch.equal(keep_faces(images.clone(), torch.arange(6)), images)
    assert keep_faces(images.clone(), torch.tensor([4])).item() == 4
    assert len(keep_faces(images.clone(), torch.tensor([], dtype=torch.int64))) == 0
    for rows in ([2, 1], [3, 3]):
        with pytest.raises(ValueError, match="must increase"):
            keep_faces(images, torch.tensor(rows))


def test_rows_of_faces_are_copied_as_they_are_asked_for():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    rows = torch.tensor([5, 0, 0, 3, 1])
    faces = FaceRows(images, rows)
    assert len(faces) == 5 and torch.equal(faces[torch.tensor([3, 0])], images[[3, 5]])
    assert torch.equal(torch.cat(list(faces.split(2))), images[rows])


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
