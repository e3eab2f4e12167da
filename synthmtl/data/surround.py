"""What all faces of a set have around them, such as the black about faces that were cut out by a mask.

Its edge is the strongest line in such pictures and the same in all of them, so that strangers would pass for copies.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from synthmtl.data.alignment import MARGIN, SIDE, reduced
from synthmtl.data.storage import FaceRows

_FACES = 50  # from which on it can be told what is common to all
_LOOKED_AT = 2000
_PART = 128
_STILL = 1.0  # gray levels of standard deviation over the faces up to which a pixel is the same in all of them
_BESIDE = 2  # pixels beside it whose slopes the edge is part of, by differences and by being reduced
_LEAST = 0.1  # of a picture that has to count; a set that has more in common is one of nearly empty pictures


def pixels_that_count(*sets: Tensor | FaceRows | None) -> Tensor | None:
    """Where faces are compared, since they differ there, at the size of :func:`~synthmtl.data.alignment.reduced`.

    Args:
        sets: (N, C, H, W) uint8, of all of which the surround is looked for; None is no set.

    Returns:
        (S, S) bool, symmetric, without the margin, without what is the same in all faces and without the pixels beside
        that; None if all pixels inside the margin count, as with less than 50 faces, of which nothing can be told.
    """
    given = [faces for faces in sets if faces is not None and len(faces)]
    count = sum(map(len, given))
    if count < _FACES:
        return None
    parts = [part for faces in given for part in _some(faces, _LOOKED_AT * len(faces) // count).split(_PART)]
    base = reduced(parts[0][:1])  # sums of differences from it lose nothing where all are alike
    total, squares, looked_at = torch.zeros_like(base), torch.zeros_like(base), 0
    for part in parts:
        change = reduced(part) - base
        total += change.sum(0, keepdim=True)
        squares += change.square().sum(0, keepdim=True)
        looked_at += len(part)
    still = squares / looked_at - (total / looked_at).square() <= _STILL**2
    inner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    if not (still[0, 0] & inner).any():
        return None
    beside = F.max_pool2d(still.float(), 2 * _BESIDE + 1, stride=1, padding=_BESIDE)[0, 0] > 0
    counts = inner & ~beside & ~beside.flip(-1)
    return counts if counts.sum() >= _LEAST * counts.numel() else None


def _some(faces: Tensor | FaceRows, count: int) -> FaceRows:
    """At most ``count`` of the faces, from the first to the last."""
    rows = torch.linspace(0, len(faces) - 1, max(1, min(count, len(faces)))).long()
    return FaceRows(faces, rows) if isinstance(faces, Tensor) else FaceRows(faces.images, faces.rows[rows])
