"""Who is rendered: the shape and the colors of a subject, from the subject's number.

Shapes are symmetric and drawn in ranges that look like people; every value comes from a generator seeded by
(seed, subject), so that a subject is the same in whatever company it is rendered.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from synthmtl.faces.head import body_model, evaluate, head, with_teeth

BLOCK = 16
"""Subjects are evaluated in blocks of consecutive numbers, so that rounding does not depend on who is asked for."""

_FIXED = {"height": 0.5, "proportions": 0.5, "cupsize": 0.5, "firmness": 0.5}
_RANGES = {"gender": (0.0, 1.0), "age": (0.5, 0.92), "muscle": (0.3, 0.7), "weight": (0.25, 0.85)}
_SPREAD = {
    "eye": 0.20, "mouth": 0.22, "head": 0.22, "nose": 0.28, "ear": 0.25, "forehead": 0.20, "cheek": 0.28,
    "chin": 0.28, "eyebrows": 0.30,
}  # fmt: skip
_NARROW = {"eye-trans-up", "mouth-trans-up", "head-trans-up", "head-trans-forward", "mouth-angles-up"}
_ASYMMETRIC = {"nose-trans-out", "head-trans-out", "mouth-trans-out", "head-angle-out", "nose-septumangle-incr"}

# Display-referred RGB, from light to dark.
_SKIN_TONES = np.array(
    [(0.92, 0.76, 0.67), (0.83, 0.64, 0.52), (0.70, 0.50, 0.38), (0.52, 0.35, 0.26), (0.36, 0.24, 0.18)]
)
_HAIR = np.array([(0.06, 0.05, 0.05), (0.18, 0.11, 0.07), (0.32, 0.21, 0.12), (0.62, 0.48, 0.28), (0.55, 0.54, 0.53)])
_IRISES = np.array([(0.20, 0.12, 0.07), (0.30, 0.20, 0.11), (0.32, 0.38, 0.24), (0.34, 0.45, 0.55)])


@dataclass(frozen=True)
class Appearance:
    """Colors of a subject: RGB triples in [0, 1] and how they are laid on."""

    skin: np.ndarray
    lips: np.ndarray
    brow: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    brow_thickness: float  # mm added to the painted brow's half thickness
    brow_strength: float  # opacity in [0, 1]
    hairline: float  # mm by which the hairline is lowered; -1000 = bald
    specular: float


def _between(rng: np.random.Generator, palette: np.ndarray, quantile: float | None = None) -> np.ndarray:
    place = rng.uniform(0, len(palette) - 1)
    if quantile is not None:
        place = quantile * (len(palette) - 1)
    low = min(int(place), len(palette) - 2)
    return palette[low] + (place - low) * (palette[low + 1] - palette[low])


def appearance(seed: int, subject: int, *, skin_quantile: float | None = None) -> Appearance:
    """The colors of a subject; its skin at ``skin_quantile`` from light (0) to dark (1) if that is given."""
    rng = np.random.default_rng((seed, subject, 1))
    skin = (_between(rng, _SKIN_TONES, skin_quantile) * rng.uniform(0.92, 1.06)).clip(0, 1)
    hair = _between(rng, _HAIR[:4]) if rng.random() < 0.85 else _HAIR[4]
    return Appearance(
        skin=skin,
        lips=skin * np.array([0.86, 0.58, 0.58]) * rng.uniform(0.75, 1.05),
        brow=np.minimum(hair * rng.uniform(0.6, 1.0), skin * 0.6),
        hair=hair,
        iris=_between(rng, _IRISES),
        brow_thickness=rng.uniform(-0.7, 0.6),
        brow_strength=rng.uniform(0.65, 1.0),
        hairline=rng.uniform(-6.0, 12.0) if rng.random() < 0.75 else -1000.0,
        specular=rng.uniform(0.0, 0.10),
    )


def _parameters(seed: int, subject: int, changes: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    rng = np.random.default_rng((seed, subject, 0))
    phenotypes = {name: rng.uniform(*limits) for name, limits in _RANGES.items()} | _FIXED
    phenotypes |= dict(zip(("african", "asian", "caucasian"), rng.dirichlet((0.7, 0.7, 0.7)), strict=True))
    local = {}
    for name in changes:
        one_sided = name.startswith(("l-", "r-"))
        base = name[2:] if one_sided else name
        part = base.split("-")[0]
        if part not in _SPREAD or base in _ASYMMETRIC or name.startswith("r-"):
            continue
        spread = 0.06 if base in _NARROW else _SPREAD[part]
        value = float(np.clip(spread * rng.standard_normal(), -2.2 * spread, 2.2 * spread))
        for side in ("l-", "r-") if one_sided else ("",):
            local[side + base] = value
    return phenotypes, local


@functools.lru_cache(maxsize=128)
def _block(seed: int, block: int) -> np.ndarray:
    changes = list(body_model().local_change_labels)
    drawn = [_parameters(seed, block * BLOCK + index, changes) for index in range(BLOCK)]
    phenotypes, local = (
        {name: torch.tensor([row[part][name] for row in drawn], dtype=torch.float32) for name in drawn[0][part]}
        for part in (0, 1)
    )
    return with_teeth(evaluate(phenotypes, local), head().template)


def shapes(seed: int, subjects: list[int]) -> np.ndarray:
    """(len(subjects), V, 3) float32 resting vertices of subjects, in meters."""
    return np.stack([_block(seed, subject // BLOCK)[subject % BLOCK] for subject in subjects])
