"""One sitting of a subject: pose, light, framing, background and, in the wild, the camera's shortcomings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy  # which reads a part of itself when it is first named
from einops import rearrange

from synthmtl.faces.anatomy import ACTION_INDEX
from synthmtl.faces.head import CHIN_VERTEX, EYE_VERTICES, LIP_MIDDLE, Head
from synthmtl.faces.view import BACKGROUND_GRID, View, camera_axes, rotation_matrix

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Luminance of RGB."""

_MARGIN = 0.02
_OPEN_JAW = 0.6
_MEDIUM_SKIN = 0.56  # luminance


@dataclass(frozen=True)
class Session:
    """What the faces of a session share.

    Attributes:
        view: camera, light and background.
        yaw, pitch, roll: degrees, see :func:`synthmtl.faces.view.rotation_matrix`.
        exposure, gamma, contrast, brightness: of the camera, which records
            ``((exposure * x) ** gamma - 0.5) * contrast + 0.5 + brightness``.
        blur: standard deviation of its blur, of the frame's size.
        grain: factor on the configured sensor noise.
    """

    view: View
    yaw: float
    pitch: float
    roll: float
    exposure: float = 1.0
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    blur: float = 0.0
    grain: float = 1.0


def _background(rng: np.random.Generator, wild: bool) -> np.ndarray:
    """(6, 6, 3): flat, a vertical gradient or soft noise, nearly gray."""
    shape = (BACKGROUND_GRID, BACKGROUND_GRID, 3)
    tint = 0.03 * rng.standard_normal(3)
    top, bottom = rng.uniform(0.08, 0.92, 2)
    kind = rng.choice(3, p=(0.2, 0.3, 0.5) if wild else (0.4, 0.3, 0.3))
    ramp = np.linspace(top, bottom if kind else top, BACKGROUND_GRID)[:, None, None]
    soft = (0.16 if wild else 0.08) * rng.standard_normal((*shape[:2], 1)) * (kind == 2)
    return np.broadcast_to(ramp + soft + tint, shape).clip(0.0, 1.0)


def _light(rng: np.random.Generator, wild: bool, quantiles: Mapping[str, float]) -> np.ndarray:
    reach = 0.9 if wild else 0.7
    light = np.array([rng.uniform(-reach, reach), rng.uniform(-0.25, 0.8), 1.0])
    if quantiles:
        light[:2] = reach * (2 * quantiles["light_x"] - 1), -0.25 + 1.05 * quantiles["light_y"]
    return light / np.linalg.norm(light)


def session_of(
    shape: np.ndarray,
    skin: np.ndarray,
    model: Head,
    *,
    rng: np.random.Generator,
    pose_degrees: float,
    wild: bool,
    quantiles: Mapping[str, float] | None = None,
) -> Session:
    """Draw a session of the subject with resting vertices ``shape`` (V, 3) and ``skin`` color (3,).

    The face is framed by its eyes and chin; where a landmark of the resting or open-mouthed face would leave the
    frame, the face is made smaller and moved until none does. The exposure goes half of the way toward a medium skin.
    ``quantiles`` of ``yaw``, ``pitch``, ``roll``, ``light_x`` and ``light_y`` take the place of their draws.
    """
    standard = rng.standard_normal(3)
    if quantiles:
        standard = scipy.special.ndtri([quantiles[name] for name in ("yaw", "pitch", "roll")])
    spread = standard * (0.5, 0.35, 0.25) * pose_degrees
    yaw, pitch, roll = (float(angle) for angle in spread.clip(-pose_degrees, pose_degrees))
    rotation = rotation_matrix(yaw=yaw, pitch=pitch, roll=roll)
    seen = camera_axes(shape)
    eyes = np.mean([seen[list(eye)].mean(0) for eye in EYE_VERTICES], 0)
    chin = seen[CHIN_VERTEX]
    center = 0.5 * eyes + 0.25 * chin + 0.25 * seen[list(LIP_MIDDLE)].mean(0)
    center[2] = eyes[2] + 0.07
    tightness = rng.normal(0.60, 0.045) if wild else rng.normal(0.60, 0.02)
    scale = tightness / (chin[1] - eyes[1])
    place = np.array([0.5, 0.61]) + rng.standard_normal(2) * (0.03 if wild else 0.012)

    resting = seen[model.landmarks]
    gaping = resting + _OPEN_JAW * camera_axes(model.actions[ACTION_INDEX["jawOpen"], model.landmarks])
    points = (np.concatenate([resting, gaping]) - center)[:, None] @ rotation.T
    points = points[:, 0, :2]
    low, high = points.min(0), points.max(0)
    scale = min(scale, float(((1 - 2 * _MARGIN) / (high - low)).min()))
    place = place.clip(_MARGIN - scale * low, 1 - _MARGIN - scale * high)

    view = View(
        rotation=rotation,
        center=center,
        scale=scale,
        place=place,
        light=_light(rng, wild, quantiles or {}),
        ambient=rng.uniform(0.25, 0.60) if wild else rng.uniform(0.30, 0.50),
        background=_background(rng, wild),
    )
    session = Session(view=view, yaw=yaw, pitch=pitch, roll=roll, exposure=float(np.sqrt(_MEDIUM_SKIN / (skin @ LUMA))))
    if not wild:
        return session
    return replace(
        session,
        gamma=float(np.exp(0.2 * np.clip(rng.standard_normal(), -1.5, 1.5))),
        contrast=float(rng.uniform(0.9, 1.7)),
        brightness=float(rng.uniform(-0.06, 0.12)),
        blur=float(rng.uniform(0.0, 0.009)),
        grain=float(rng.uniform(0.0, 1.2)),
    )


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of (C, H, W) by ``sigma`` pixels, edges repeated."""
    reach = int(np.ceil(2.5 * sigma))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).astype(image.dtype)
    for axis in (1, 2):
        padding = [(reach, reach) if index == axis else (0, 0) for index in range(3)]
        padded = np.pad(image, padding, mode="edge")
        size = image.shape[axis]
        image = sum(
            weight * np.take(padded, np.arange(start, start + size), axis) for start, weight in enumerate(weights)
        )
    return image


def sensor(image: np.ndarray, session: Session, *, rng: np.random.Generator, channels: int, noise: float) -> np.ndarray:
    """What the session's camera records of a clean (H, W, 3) image: (channels, H, W) uint8.

    Blur, gamma, contrast and brightness are the session's, the noise is the face's own.
    """
    image = rearrange(image, "h w c -> c h w") if channels == 3 else (image @ LUMA)[None]
    image = image * np.float32(session.exposure)
    sigma = session.blur * image.shape[-1]
    if sigma > 0.25:
        image = _blurred(image, sigma)
    if session.gamma != 1.0:
        image = image**session.gamma
    image = (image - 0.5) * session.contrast + 0.5 + session.brightness
    image = image + noise * session.grain * rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(image.clip(0.0, 1.0) * 255.0).astype(np.uint8)
