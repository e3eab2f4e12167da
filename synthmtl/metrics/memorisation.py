"""Whether synthesized faces are copies of the faces that the generator learned from.

Two ways of looking: distances in features, judged by how far real faces are from each other (authenticity), and
pixels, judged by how well a real face, mirrored, cropped or turned if need be, lies on the synthesized one (copies).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthmtl.data.alignment import WHOLE, best_match, reduced, unit, windows
from synthmtl.data.duplicates import MIN_CORRELATION, MIN_MATCH, near_duplicates, perceptual_hash
from synthmtl.data.surround import pixels_that_count
from synthmtl.errors import InputError
from synthmtl.metrics.generation import nearest

COPIES = ("exact", "near", "mirrored", "cropped")
"""How a copy was found, the first that holds: equal in every pixel; a look-alike in place
(``MIN_CORRELATION``), as after another compression; equal or a look-alike once mirrored; one lies on a part of the
other, mirrored or not, turned by up to 10° or not (``MIN_MATCH``)."""

_EXACT, _NEAR, _MIRRORED, _CROPPED = range(len(COPIES))
_THUMB = 16
_TRIED = 3  # candidates for each synthesized face and orientation
_CHUNK = 128
_STEPS = 5  # of the search for a window
_TURN = 0.12  # sine of the angle that is tried, 7°


@dataclass(frozen=True)
class FeatureNeighbors:
    """The real face that is nearest to each of M synthesized ones.

    Attributes:
        row: (M,) int64, row of the real face.
        distance: (M,) double, from it.
        spacing: (M,) double, from it to the real face next to it.
    """

    row: Tensor
    distance: Tensor
    spacing: Tensor

    @property
    def authentic(self) -> Tensor:
        """(M,) bool: farther from its nearest real face than that one is from its own nearest real neighbor.

        The share of these is the authenticity of Alaa et al. (How Faithful is your Synthetic Data?, ICML 2022). Faces
        drawn from the real distribution are authentic about half of the time, copies never.
        """
        return self.distance > self.spacing

    @property
    def closeness(self) -> Tensor:
        """(M,) double, distance over spacing: 0 for a copy, above 1 for authentic faces."""
        return self.distance / self.spacing.clamp(min=1e-12)


def feature_neighbors(real: Tensor, synthetic: Tensor) -> FeatureNeighbors:
    """Nearest real faces by features (N, D) and (M, D).

    Raises:
        InputError: if there are fewer than 2 real faces or no synthesized one.
    """
    if not len(synthetic):
        raise InputError("0 synthesized faces, at least 1 is needed")
    spacing = nearest(real, None)[0][:, 0]
    distance, row = (found[:, 0] for found in nearest(synthetic, real))
    return FeatureNeighbors(row, distance, spacing[row])


def hash_neighbors(real: Tensor, synthetic: Tensor) -> tuple[Tensor, Tensor]:
    """Row (M,) of the real face whose perceptual hash is nearest, and in how many of 64 bits they differ, (M,) int64.

    Args:
        real, synthetic: (N, C, H, W) and (M, C, H, W) uint8, N at least 1.
    """
    signs = [perceptual_hash(images).float().mul_(2).sub_(1) for images in (real, synthetic)]
    best = [(part @ signs[0].T).max(1) for part in signs[1].split(_CHUNK)]
    agreement = torch.cat([part.values for part in best])
    return torch.cat([part.indices for part in best]), ((64 - agreement) / 2).round().long()


@dataclass(frozen=True)
class Copies:
    """What M faces are copies of.

    Attributes:
        kind: (M,) int64, index into :data:`COPIES`, -1 = no copy.
        row: (M,) int64, the real face that fits best, copied or not.
        match: (M,) float, correlation of its pixels with the face, after mirroring, cropping and turning.
    """

    kind: Tensor
    row: Tensor
    match: Tensor

    @property
    def flagged(self) -> Tensor:
        """(M,) bool, is a copy."""
        return self.kind >= 0


def find_copies(real: Tensor, faces: Tensor, *, own: Tensor | None = None) -> Copies:
    """Faces that show the same picture as a real one, by :data:`COPIES`.

    People photographed twice in one pose, light and framing look like copies too: compare with the share that is
    flagged among the real faces themselves (``own``).

    Args:
        real: (N, C, H, W) uint8.
        faces: (M, C, H, W) uint8 of the same size.
        own: (M,) int64, for faces out of ``real``: their own rows, which do not count.

    Raises:
        InputError: if there is no real face, or the sizes differ.
    """
    if not len(real) or real.shape[1:] != faces.shape[1:]:
        raise InputError(f"{tuple(faces.shape)} faces cannot be compared with {tuple(real.shape)}: read them alike")
    own = torch.full((len(faces),), -1) if own is None else own
    kind, row = torch.full((len(faces),), -1), torch.zeros(len(faces), dtype=torch.int64)
    match = torch.full((len(faces),), -1.0)
    pairs = near_duplicates(real, faces)
    alike = pairs.first != own[pairs.second]
    alike &= pairs.exact | (pairs.correlation > MIN_CORRELATION)
    order = (pairs.correlation + 2.0 * pairs.exact + ~pairs.mirrored).argsort(descending=True, stable=True)
    order = order[alike[order]]
    faces_of, place = np.unique(pairs.second[order].numpy(), return_index=True)  # the first of each face is its best
    at, best = torch.from_numpy(faces_of), order[torch.from_numpy(place)]
    kind[at] = torch.where(pairs.exact[best], _EXACT, torch.where(pairs.mirrored[best], _MIRRORED, _NEAR))
    row[at], match[at] = pairs.first[best], pairs.correlation[best]
    left = torch.where(kind < 0)[0]
    both = torch.cat([faces[left], faces[left].flip(-1)])
    found, fit = (part.view(2, -1) for part in best_crop(real, both, own=own[left].repeat(2)))
    match[left], way = fit.max(0)
    row[left] = found.gather(0, way[None])[0]
    kind[left[match[left] >= MIN_MATCH]] = _CROPPED
    return Copies(kind, row, match)


def best_crop(real: Tensor, faces: Tensor, *, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Row (M,) of the real face of which a part fits best, and the correlation (M,) of the gray pixels at 32×32.

    The real faces that fit best as a whole, upright or turned by 7°, or by one of nine windows of 90 % are moved,
    turned and scaled, along each side by itself (:func:`~synthmtl.data.alignment.best_match`).

    Args:
        real, faces: (N, C, H, W) and (M, C, H, W) uint8.
        own: (M,) int64, rows that do not count, -1 = all count.
    """
    shifts = (-0.1, 0.0, 0.1)
    parts = ((x, y, 0.9, 0.9, 0.0) for x in shifts for y in shifts)
    starts = torch.tensor([WHOLE, (0, 0, 1, 1, -_TURN), (0, 0, 1, 1, _TURN), *parts])
    counts = pixels_that_count(real, faces)
    real, faces = reduced(real), reduced(faces)
    bank = torch.stack([_thumbnails(windows(real, start.expand(len(real), -1))) for start in starts], 1)
    rows, matches = [torch.empty(0, dtype=torch.int64)], [torch.empty(0)]
    for start in range(0, len(faces), _CHUNK):
        part = faces[start : start + _CHUNK]
        fits, window = (_thumbnails(part) @ bank.flatten(0, 1).T).view(len(part), *bank.shape[:2]).max(2)
        if own is not None:
            known = torch.where(own[start : start + _CHUNK] >= 0)[0]
            fits[known, own[start : start + _CHUNK][known]] = -1
        row = fits.topk(min(_TRIED, len(real)), 1).indices
        which = starts[window.gather(1, row).flatten()]
        fit = best_match(
            real[row.flatten()], part.repeat_interleave(row.shape[1], 0), which, steps=_STEPS, counts=counts
        )
        fit = fit.view(row.shape)
        if own is not None:
            fit[row == own[start : start + _CHUNK, None]] = -1
        match, best = fit.max(1)
        rows.append(row.gather(1, best[:, None])[:, 0])
        matches.append(match)
    return torch.cat(rows), torch.cat(matches)


def _thumbnails(pictures: Tensor) -> Tensor:
    return unit(reduced(pictures, _THUMB))
