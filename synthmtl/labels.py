"""Vocabularies: expressions, action units, and the maps from the codes of published data sets to them.

Sources: the eight expressions of AffectNet (Mollahosseini et al., 2017) in its order; action units of the Facial
Action Coding System (Ekman, Friesen, Hager, 2002); the FER2013 codes of Goodfellow et al. (2013); valence-arousal
after the circumplex model (Russell, 1980).
"""

from collections.abc import Iterable, Sequence

from synthmtl.errors import InputError

EXPRESSIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""The eight expressions, in AffectNet's order. Class tuples of data sets keep this order."""

EXPRESSIONS_7 = EXPRESSIONS[:7]
"""The seven expressions of FER2013 and RAF-DB: all but contempt."""

_ALIASES = {
    "neutral": ("neutrality", "natural", "normal", "calm", "no_expression"),
    "happiness": ("happy", "joy", "smile", "smiling", "happily"),
    "sadness": ("sad", "sorrow", "sadly"),
    "surprise": ("surprised", "suprise", "surprisingly", "amazement"),
    "fear": ("fearful", "afraid", "scared", "fearfully"),
    "disgust": ("disgusted", "disgusting"),
    "anger": ("angry", "angrily", "mad"),
    "contempt": ("contemptuous", "scorn"),
}
EXPRESSION_ALIASES = {name: name for name in EXPRESSIONS} | {
    alias: name for name, aliases in _ALIASES.items() for alias in aliases
}
"""Spelling found in the wild (lower case, ``_`` for spaces and hyphens) → expression."""

FER2013_CODES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""Expression of each code 0-6 in FER2013's official csv."""

CIRCUMPLEX = {
    "neutral": (0.0, 0.0),
    "happiness": (0.85, 0.45),
    "sadness": (-0.70, -0.40),
    "surprise": (0.20, 0.85),
    "fear": (-0.65, 0.75),
    "disgust": (-0.70, 0.35),
    "anger": (-0.65, 0.65),
    "contempt": (-0.55, 0.15),
}
"""Valence and arousal, each in [-1, 1], of an expression at full intensity."""

ACTION_UNITS = (
    "AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15",
    "AU16", "AU17", "AU18", "AU20", "AU22", "AU24", "AU25", "AU26", "AU28", "AU34", "AU43",
)  # fmt: skip
"""The action units this suite knows, as columns of ``FaceBatch.action_units``."""


def canonical_expression(name: str) -> str | None:
    """The expression that ``name`` means (any case, common aliases), or None when it means none of them."""
    key = str(name).strip().lower().replace("-", "_").replace(" ", "_")
    return EXPRESSION_ALIASES.get(key)


def ordered_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Canonical expression names without repeats, in the order of :data:`EXPRESSIONS`.

    Raises:
        InputError: if a name is not canonical.
    """
    wanted = set(names)
    unknown = sorted(wanted - set(EXPRESSIONS))
    if unknown:
        raise InputError(f"unknown expression {unknown[0]!r}: use one of {', '.join(EXPRESSIONS)}")
    return tuple(name for name in EXPRESSIONS if name in wanted)


def class_index(classes: Sequence[str], name: str) -> int:
    """Index of an expression, given by any alias, among ``classes``.

    Raises:
        InputError: if ``name`` is unknown or not one of ``classes``.
    """
    expression = canonical_expression(name)
    if expression is None or expression not in classes:
        raise InputError(f"unknown expression {name!r}: use one of {', '.join(classes)}")
    return list(classes).index(expression)
