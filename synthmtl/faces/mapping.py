"""Expressions of rendered people carried over to photographs: by how their landmarks move and how their skin changes.

A photograph has no partner that shows the same person with another expression. A rendered person has: where the two
look alike, the photograph's landmarks are moved as that person's are, its pixels follow, and what moving alone cannot
make (the opened mouth, the furrow beside the nose) is brought by the ratio of the rendered faces' pixels, after the
expression ratio images of Liu, Shan & Zhang, Expressive Expression Mapping with Ratio Images, SIGGRAPH 2001.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # which reads a part of itself when it is first named
import torch
from torch import Tensor
from torch.nn import functional as F

_EVEN = np.array([0.3] * 17 + [1.0] * 31 + [0.7] * 20)
"""How much each landmark says of where a face is: the jaw's lie on an outline without marks, the lips' move."""

_EDGE = np.array([(x, y) for x in np.linspace(-0.1, 1.1, 6) for y in np.linspace(-0.1, 1.1, 6)])
_EDGE = _EDGE[(np.abs(_EDGE - 0.5) > 0.55).any(1)]
"""Places around the picture that stay where they are."""

_STIFFNESS = 1e-3  # of the thin plate: a landmark that is a little off pulls less of the face along
_NODES = 33  # the plate is computed at as many places along each side, in between it is as good as straight
_DARKEST = 12.0  # gray levels added to both sides of a ratio, so that black divided by black is no noise
_RATIOS = (0.25, 2.2)  # what skin, lips and teeth do to each other
_TEETH = 40.0  # gray levels by which teeth may be brighter than the brightest twentieth of the skin

_LIDS = (([37, 38], [41, 40]), ([43, 44], [47, 46]))
"""Points of the upper and of the lower lid of each eye, one above the other."""

_LID_CHANGES = (0.3, 1.8)
"""How much narrower and wider eyes become at most: beyond, an iris is drawn out to a stripe."""


@dataclass(frozen=True)
class RenderedChange:
    """One rendered person, pose and light, with two expressions.

    Attributes:
        before, after: (C, S, S) float gray levels.
        places_before, places_after: (68, 2) landmarks in [0, 1] of the picture.
    """

    before: Tensor
    after: Tensor
    places_before: np.ndarray
    places_after: np.ndarray


@dataclass(frozen=True)
class Similarity:
    """A turn, a size and a shift: ``(points - center) @ turn.T + target``."""

    turn: np.ndarray
    center: np.ndarray
    target: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return (points - self.center) @ self.turn.T + self.target

    def inverse(self, points: np.ndarray) -> np.ndarray:
        return (points - self.target) @ np.linalg.inv(self.turn).T + self.center


def fit_similarity(points: np.ndarray, onto: np.ndarray) -> Similarity:
    """The similarity that brings 68 landmarks nearest to others, in weighted least squares (Umeyama, PAMI 1991).

    Args:
        points, onto: (68, 2).
    """
    weights = (_EVEN / _EVEN.sum())[:, None]
    center, target = (weights * points).sum(0), (weights * onto).sum(0)
    a, b = points - center, onto - target
    size = (weights * a**2).sum()
    cosine = (weights * a * b).sum() / size
    sine = (weights[:, 0] * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])).sum() / size
    return Similarity(np.array([[cosine, -sine], [sine, cosine]]), center, target)


def shape_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far landmarks (68, 2) are from each of (P, 68, 2), laid over them: (P,) root mean square distances.

    In units of ``points``, so that small is alike in shape and, seen from any side, in pose.
    """
    weights = _EVEN / _EVEN.sum()
    laid = np.stack([fit_similarity(other, points)(other) for other in others])
    return np.sqrt((weights * ((laid - points) ** 2).sum(2)).sum(1))


def map_expression(face: Tensor, places: np.ndarray, change: RenderedChange) -> tuple[Tensor, np.ndarray]:
    """A photograph with the expression that a rendered person changed to.

    One thin plate (Duchon 1977; scipy) tells for each pixel of the new face where it comes from in the photograph and
    in both rendered faces. The ratio of these two changes the photograph below the eyes and within the face; brows and
    eyes are moved alone, since the ratio of two painted brows that do not meet is a bright and a dark stripe.

    Args:
        face: (C, S, S) float gray levels, before the change; gray with a gray change, RGB with either.
        places: (68, 2) its landmarks in [0, 1] of the picture.
        change: the rendered person, pictures of the same size.

    Returns:
        The face (C, S, S) in [0, 255], and its landmarks (68, 2).
    """
    laid = fit_similarity(change.places_before, places)
    moved = _moved(places, change, laid)
    still = np.concatenate([_EDGE, _hairline(places)])
    there = laid.inverse(still)
    before, after = change.places_before, change.places_after
    origins = [np.concatenate(pair) for pair in ((places, still), (before, there), (after, there))]
    plate = scipy.interpolate.RBFInterpolator(
        np.concatenate([moved, still]),
        np.concatenate(origins, 1),
        kernel="thin_plate_spline",
        smoothing=_STIFFNESS,
    )
    along = np.linspace(0, 1, _NODES)
    nodes = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    found = torch.from_numpy(plate(nodes)).float().reshape(_NODES, _NODES, 3, 2)
    size = face.shape[-1]
    # Nodes lie on the picture's edges, pixels have their centers half a pixel inside.
    centers = (torch.arange(size) + 0.5) * 2 / size - 1
    at = torch.stack(torch.meshgrid(centers, centers, indexing="xy"), -1)[None]
    grids = F.grid_sample(found.permute(2, 3, 0, 1), at.expand(3, -1, -1, -1), align_corners=True)
    warped, first, second = (
        F.grid_sample(picture[None], 2 * grid.permute(1, 2, 0)[None] - 1, padding_mode="border", align_corners=False)[0]
        for picture, grid in zip((face, change.before, change.after), grids, strict=True)
    )
    ratio = F.avg_pool2d((second + _DARKEST) / (first + _DARKEST), 3, 1, padding=1, count_include_pad=False)
    mask = _lower_face(moved, size)
    changed = (warped + _DARKEST) * (1 + (ratio.clamp(*_RATIOS) - 1) * mask) - _DARKEST
    skin = warped[:, mask[0] > 0.5]
    if skin.numel():
        # Teeth twice as bright as the brightest skin are a lamp.
        changed = changed.minimum(warped.maximum(skin.quantile(0.95) + _TEETH))
    return changed.clamp(0, 255), moved


def _moved(places: np.ndarray, change: RenderedChange, laid: Similarity) -> np.ndarray:
    """Landmarks of the photograph after the change: moved alike, and lids opened or closed in proportion.

    Lids that were moved by as much as those of wider eyes would cross.
    """
    moved = places + (change.places_after - change.places_before) @ laid.turn.T
    for upper, lower in _LIDS:
        before, after = (
            np.linalg.norm(points[lower] - points[upper], axis=1).mean()
            for points in (change.places_before, change.places_after)
        )
        middle = (moved[upper] + moved[lower]) / 2
        half = np.clip(after / max(before, 1e-6), *_LID_CHANGES) * (places[lower] - places[upper]) / 2
        moved[upper], moved[lower] = middle - half, middle + half
    return moved


def _hairline(places: np.ndarray) -> np.ndarray:
    """Places (5, 2) above the brows that no expression moves: muscles pull the brows along under the scalp."""
    up = 0.9 * (places[27] - places[33])
    return places[[17, 19, 27, 24, 26]] + up * np.array([[0.7], [0.9], [1.3], [0.9], [0.7]])


def _lower_face(places: np.ndarray, size: int) -> Tensor:
    """(1, S, S) in [0, 1]: 1 from below the eyes down to the jaw, falling to 0 over a few pixels around."""
    lowest = places[[40, 41, 46, 47]].mean(0) + 0.35 * (places[33] - places[27])
    right, left = lowest + (places[36] - places[45]) * 0.75, lowest + (places[45] - places[36]) * 0.75
    corners = np.concatenate([places[2:15], [right, left]])
    hull = scipy.spatial.ConvexHull(corners)
    pixels = (np.arange(size) + 0.5) / size
    points = np.stack(np.meshgrid(pixels, pixels), -1).reshape(-1, 2)
    # Signed distance to the nearest side, positive inside.
    depth = -(points @ hull.equations[:, :2].T + hull.equations[:, 2]).max(1).reshape(size, size)
    fade = 0.04
    return torch.from_numpy(np.clip(depth / fade, 0, 1)).float()[None]
