"""Our reader of image folders against torchvision's ImageFolder with a transform to faces of one size."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Grayscale, PILToTensor, Resize

from synthmtl.data.readers.image_folder import read_image_folder

from .timing import Row, compare, in_turn


def write_faces(root: Path, count: int, size: int, suffix: str) -> None:
    """Smooth random pictures in folders of two expressions."""
    random = np.random.default_rng(0)
    for i in range(count):
        path = root / ("fear", "happiness")[i % 2] / f"{i:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        rough.resize((size, size), Image.Resampling.BICUBIC).save(path)


def rows(tiny: bool) -> list[Row]:
    """Milliseconds a face by the clock, since large pictures are read by several threads."""
    found = []
    cases = [(48, "png", 8)] if tiny else [(48, "png", 2000), (224, "jpg", 600), (640, "jpg", 150)]
    for size, suffix, count in cases:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_faces(root, count, size, suffix)
            transform = Compose([Grayscale(), Resize(48), CenterCrop(48), PILToTensor()])

            def plain(root: Path = root, transform: Compose = transform) -> torch.Tensor:
                return torch.stack([face for face, _ in ImageFolder(root, transform)])

            calls = {"ours": lambda root=root: read_image_folder(root, image_size=48, channels=1), "plain": plain}
            seconds = in_turn(calls, rounds=1 if tiny else 5, clock=time.perf_counter)
        found.append(compare(f"{count} {suffix} of {size} px to 48 px", *seconds.values(), wanted=1.0, per=count))
    return found
