"""Memory for the pixels of many faces: beyond a size they live in a file that vanishes with them."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from synthmtl.errors import InputError

IN_MEMORY = 2**30
"""Bytes of faces up to which they are kept in memory."""

_CHUNK = 4096


def new_faces(shape: Sequence[int], *, in_memory: int | None = None) -> np.ndarray:
    """Zeros of ``shape``, uint8; larger ones than ``in_memory`` bytes (None = :data:`IN_MEMORY`) on the disk.

    The system then holds in memory what is in use and there is room for. The file has no name from the start, in the
    folder for temporary files (``TMPDIR``), so that it goes with the process, however that ends.

    Raises:
        InputError: if that disk has no room for it.
    """
    size = math.prod(shape)
    if size <= (IN_MEMORY if in_memory is None else in_memory):
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a full disk would otherwise kill the process when a page is written
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for {size / 2**30:.1f} GiB of faces ({error.strerror}): "
                "set TMPDIR to a folder on a larger disk"
            ) from None
        return np.memmap(file, np.uint8, mode="w+", shape=tuple(shape))


def join_faces(parts: Sequence[Tensor]) -> Tensor:
    """All faces of at least one (N_i, C, H, W) uint8, as :func:`new_faces`; one alone is not copied."""
    if len(parts) == 1:
        return parts[0]
    joined = torch.from_numpy(new_faces((sum(map(len, parts)), *parts[0].shape[1:])))
    start = 0
    for part in parts:
        joined[start : start + len(part)] = part
        start += len(part)
    return joined


def take_faces(images: Tensor, rows: Tensor) -> Tensor:
    """Faces ``images[rows]``, (M, C, H, W) uint8, as :func:`new_faces`; a view where rows follow on each other.

    Args:
        images: (N, C, H, W) uint8.
        rows: (M,) int64, from 0.
    """
    if len(rows) and bool((rows[1:] - rows[:-1] == 1).all()) and rows[0] >= 0 and rows[-1] < len(images):
        return images[rows[0] : rows[-1] + 1]
    if len(rows) * math.prod(images.shape[1:]) <= IN_MEMORY:
        return images[rows]
    taken = torch.from_numpy(new_faces((len(rows), *images.shape[1:])))
    for start in range(0, len(rows), _CHUNK):
        taken[start : start + _CHUNK] = images[rows[start : start + _CHUNK]]
    return taken


def keep_faces(images: Tensor, rows: Tensor) -> Tensor:
    """Faces ``images[rows]``, (M, C, H, W) uint8, moved to the front of their own memory: what a large set keeps is not
    held twice while it is picked out. ``images``, and whatever shares their memory, must not be used any more.

    Args:
        images: (N, C, H, W) uint8.
        rows: (M,) int64, each larger than the one before.

    Raises:
        ValueError: if the rows do not increase.
    """
    if len(rows) > 1 and not bool((rows[1:] > rows[:-1]).all()):
        raise ValueError("rows must increase: each face moves to the front, over faces that are kept no more")
    for start in range(0, len(rows), _CHUNK):
        kept = images[rows[start : start + _CHUNK]]
        images[start : start + len(kept)] = kept
    return images[: len(rows)]


class FaceRows:
    """Faces ``images[rows]`` that are copied only where they are asked for.

    Args:
        images: (N, C, H, W) uint8.
        rows: (M,) int64.
    """

    def __init__(self, images: Tensor, rows: Tensor):
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images[self.rows[index]]

    def split(self, size: int) -> Iterator[Tensor]:
        """All of them, ``size`` at a time, as (size, C, H, W) uint8."""
        return (self.images[rows] for rows in self.rows.split(size))
