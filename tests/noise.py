"""Image folders of random pixels."""

import zlib

import numpy as np
from PIL import Image


def write_noise(path, mode="L", size=32):
    """A picture that depends on the name of its file only."""
    channels = {"L": (), "RGB": (3,), "CMYK": (4,), "I;16": ()}[mode]
    dtype, top = (np.uint16, 65536) if mode == "I;16" else (np.uint8, 256)
    random = np.random.default_rng(zlib.crc32(path.name.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, top, (size, size, *channels), dtype=dtype)
    Image.fromarray(pixels, mode="CMYK" if mode == "CMYK" else None).save(path)


def write_folder(root, **counts):
    """``root/NAME/0.png`` and so on, so many for each name."""
    for name, count in counts.items():
        for i in range(count):
            write_noise(root / name / f"{i}.png")
    return root
