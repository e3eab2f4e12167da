"""How a face is seen: pose, framing, light and background, in the axes of the camera."""

from dataclasses import dataclass

import numpy as np

BACKGROUND_GRID = 6
"""Nodes of a background along each side of the frame."""


@dataclass(frozen=True)
class View:
    """How one face is seen.

    Attributes:
        rotation: (3, 3) applied to the head in camera axes.
        center: (3,) point of the head about which it turns and which lands on ``place``, in camera axes, in meters.
        scale: frame sizes per meter.
        place: (2,) of ``center`` in the frame, in [0, 1], x right, y down.
        light: (3,) unit vector toward the light; x right, y up, z toward the viewer.
        ambient: share of the light that comes from everywhere, in [0, 1].
        background: (6, 6, 3) RGB in [0, 1], interpolated over the frame.
    """

    rotation: np.ndarray
    center: np.ndarray
    scale: float
    place: np.ndarray
    light: np.ndarray
    ambient: float
    background: np.ndarray


def camera_axes(vertices: np.ndarray) -> np.ndarray:
    """``anny``'s axes (right, away, up) → the camera's (right, down, away)."""
    return np.stack([vertices[..., 0], -vertices[..., 2], vertices[..., 1]], -1)


def rotation_matrix(*, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) rotation in camera axes: first yaw, then pitch, then roll.

    Args:
        yaw: degrees; positive turns the face toward the image's right.
        pitch: degrees; positive looks up.
        roll: degrees; positive tips the head clockwise in the image.
    """
    (a, b, c) = np.deg2rad([yaw, pitch, roll])
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    tip = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return tip @ nod @ turn
