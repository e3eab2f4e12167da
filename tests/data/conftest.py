"""Made faces: smooth random pictures, so that perceptual hashes mean something, and folders of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.data.table import FaceTable
from synthmtl.labels import ordered_classes


def _faces(count: int, size: int = 16, channels: int = 1, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic", align_corners=True)
    return smooth.mul(255).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture
def faces():
    """faces(count, size=16, channels=1, seed=0) → (count, channels, size, size) uint8 smooth random pictures."""
    return _faces


@pytest.fixture
def save():
    """save(path, image) writes one (C, H, W) uint8 picture and the folders above it."""

    def write(path: Path, image: torch.Tensor) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()).save(path)
        return path

    return write


@pytest.fixture
def folder(tmp_path, save):
    """folder({"train/anger": 3, ...}) → root of a folder with so many different gray pictures in each folder."""

    def make(counts: dict[str, int], root: Path | None = None, size: int = 16) -> Path:
        root = root or tmp_path / "set"
        pictures = iter(_faces(sum(counts.values()), size, seed=1))
        root.mkdir(parents=True, exist_ok=True)
        for name, count in counts.items():
            for i in range(count):
                save(root / name / f"{i:03d}.png", next(pictures))
        return root

    return make


@pytest.fixture
def table():
    """table({"anger": 5, ...}, subjects=None) → a table; subject = row number modulo ``subjects``."""

    def make(counts: dict[str, int], subjects: int | None = None, size: int = 16, seed: int = 0) -> FaceTable:
        classes = ordered_classes(counts)
        names = [name for name, count in counts.items() for _ in range(count)]
        return FaceTable(
            images=_faces(len(names), size, seed=seed),
            classes=classes,
            expression=torch.tensor([classes.index(name) for name in names], dtype=torch.int64),
            subject=torch.arange(len(names)) % subjects if subjects else None,
        )

    return make


@pytest.fixture
def lay_out(tmp_path, save):
    """lay_out({name: content}) → root of a published set made of these files.

    A text or bytes are written as they are, an array as npy, a picture (C, H, W) as an image; a number stands for a
    gray picture of 32 px, different for each number.
    """

    def make(files: dict, root: Path | None = None) -> Path:
        root = root or tmp_path / "set"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8", newline="")
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif isinstance(content, np.ndarray):
                np.save(path, content, allow_pickle=content.dtype == object)
            else:
                save(path, _faces(1, 32, seed=content)[0] if isinstance(content, int) else content)
        return root

    return make


@pytest.fixture
def points():
    """points(low, high) → (68, 2) landmarks spread over [low, high] in pixels, both ends taken in x and y."""

    def make(low: float, high: float) -> np.ndarray:
        steps = np.linspace(low, high, 68)
        return np.stack([steps, np.roll(steps, 20)], 1)

    return make
