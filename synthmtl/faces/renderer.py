"""A batched rasteriser for heads, made of ``warp`` kernels that run on the CPU and on CUDA.

Pose → normals → visibility → shading. The camera is orthographic with x to the right, y down and z away from the
viewer; lengths are pixels of the supersampled frame. Light is a direction plus ambient light, without cast shadows.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import warp as wp

from synthmtl.faces import kernels
from synthmtl.faces.head import Head, head
from synthmtl.faces.identity import Appearance
from synthmtl.faces.view import View

SUPERSAMPLING = 2
_CHUNK = 8
_GPU_LANES = 1024
_GPU_BANDS = 16


class _Device:
    """The head's constant arrays on one device."""

    _cache: dict[str, "_Device"] = {}

    def __init__(self, model: Head, device: str):
        def put(array, dtype):
            return wp.array(array, dtype=dtype, device=device)

        self.actions = put(model.actions, wp.vec3)
        self.triangles = put(model.triangles, wp.vec3i)
        self.kind = put(model.kind, int)
        self.cavity = put(model.cavity, float)
        self.uv = put(model.uv, wp.vec2)
        self.paint = put(model.paint.transpose(1, 2, 0), float)  # one cache line a lookup

    @classmethod
    def of(cls, device: str) -> "_Device":
        if device not in cls._cache:
            cls._cache[device] = cls(head(), device)
            wp.load_module(kernels, device=device)
        return cls._cache[device]


def _active(coefficients: np.ndarray) -> np.ndarray:
    """(B, 52) int32 indices of each face's non-zero actions in order, filled up with -1."""
    on = coefficients != 0
    order = np.argsort(~on, axis=1, kind="stable")
    return np.where(np.take_along_axis(on, order, 1), order, -1).astype(np.int32)


def _render_chunk(
    shapes: np.ndarray,
    coefficients: np.ndarray,
    looks: Sequence[Appearance],
    views: Sequence[View],
    size: int,
    device: str,
) -> tuple[np.ndarray, np.ndarray]:
    model, constant = head(), _Device.of(device)
    count, vertices = len(views), len(model.template)
    frame = size * SUPERSAMPLING

    def put(values, dtype):
        return wp.array(np.ascontiguousarray(values, np.float32), dtype=dtype, device=device)

    lanes, bands = (1, 1) if device == "cpu" else (_GPU_LANES, _GPU_BANDS)

    def launch(kernel, tasks, inputs):
        wp.launch(kernel, (count, tasks), inputs=inputs, device=device)

    points = wp.empty((count, vertices), dtype=wp.vec3, device=device)
    normals = wp.zeros((count, vertices), dtype=wp.vec3, device=device)
    launch(
        kernels.pose,
        lanes,
        [
            put(shapes, wp.vec3),
            wp.array(_active(coefficients), dtype=int, device=device),
            put(coefficients, float),
            constant.actions,
            put([view.rotation for view in views], wp.mat33),
            put([view.center for view in views], wp.vec3),
            put([view.scale * frame for view in views], float),
            put([(*(view.place * frame), 0.0) for view in views], wp.vec3),
            lanes,
            points,
        ],
    )
    launch(kernels.normals, lanes, [points, constant.triangles, lanes, normals])
    placed = points.numpy()[:, model.landmarks]
    # The gap between the lips decides how far teeth are lit: closed lips hide them altogether.
    scale = np.array([view.scale for view in views]) * frame
    gap = np.linalg.norm(placed[:, 62] - placed[:, 66], axis=-1) / scale * 1000
    rest = np.linalg.norm(shapes[:, model.landmarks[62]] - shapes[:, model.landmarks[66]], axis=-1) * 1000
    traits = [
        (view.ambient, look.specular, look.brow_thickness, look.brow_strength, look.hairline, openness)
        for view, look, openness in zip(views, looks, ((gap - rest - 0.8) / 2.0).clip(0, 1), strict=True)
    ]
    depth = wp.full((count, frame * frame), 1.0e9, dtype=float, device=device)
    seen = wp.full((count, frame * frame), -1, dtype=int, device=device)
    pixels = wp.empty((count, frame * frame), dtype=wp.vec3, device=device)
    launch(kernels.visibility, bands, [points, constant.triangles, constant.kind, frame, bands, depth, seen])
    launch(
        kernels.shade,
        lanes,
        [
            points,
            normals,
            constant.triangles,
            constant.kind,
            constant.cavity,
            constant.uv,
            constant.paint,
            seen,
            frame,
            put([(look.skin, look.lips, look.brow, look.hair, look.iris) for look in looks], wp.vec3),
            put(traits, float),
            put([view.light * (1, -1, -1) for view in views], wp.vec3),
            put([view.background for view in views], wp.vec3),
            lanes,
            pixels,
        ],
    )
    fine = pixels.numpy().reshape(count, size, SUPERSAMPLING, size, SUPERSAMPLING, 3)
    image = sum(fine[:, :, row, :, column] for row in range(SUPERSAMPLING) for column in range(SUPERSAMPLING))
    return image / SUPERSAMPLING**2, placed[..., :2] / frame


def render(
    shapes: np.ndarray,
    coefficients: np.ndarray,
    looks: Sequence[Appearance],
    views: Sequence[View],
    *,
    size: int,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Faces as a camera without noise and clipping sees them, anti-aliased.

    ``warp`` runs a launch on the CPU in one thread, so chunks of faces are given to ``torch.get_num_threads()`` of
    them; each face comes out the same whatever it is rendered with.

    Args:
        shapes: (B, V, 3) resting vertices (:func:`synthmtl.faces.identity.shapes`), in meters.
        coefficients: (B, 52) of :data:`synthmtl.faces.anatomy.ACTIONS`.
        looks: B appearances.
        views: B views.
        size: height = width in pixels.
        device: ``cpu`` or a CUDA device.

    Returns:
        (B, size, size, 3) float32 RGB, 0 = black, 1 = white, and (B, 68, 2) float32 landmarks in frame sizes, x to
            the right, y down.
    """
    device = str(device)
    _Device.of(device)

    def work(start: int):
        part = slice(start, start + _CHUNK)
        return _render_chunk(shapes[part], coefficients[part], looks[part], views[part], size, device)

    starts = range(0, len(views), _CHUNK)
    workers = torch.get_num_threads() if device == "cpu" else 1
    if min(workers, len(starts)) <= 1:
        parts = [work(start) for start in starts]
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(work, starts))
    images, landmarks = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(landmarks)
