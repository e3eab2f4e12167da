"""Vocabularies: expressions, action units, and the maps from the codes of published data sets to them.

Sources: the eight expressions of AffectNet (Mollahosseini et al., 2017) in its order; action units of the Facial
Action Coding System (Ekman, Friesen, Hager, 2002); the codes of FER2013 (Goodfellow et al., 2013), AffectNet, RAF-DB,
Aff-Wild2 (Kollias and Zafeiriou, 2019) and CK+ (Lucey et al., 2010), as their publishers give them; valence-arousal
after the circumplex model (Russell, 1980); compound expressions of Du, Tao and Martinez, "Compound facial expressions
of emotion" (PNAS 2014), the eleven of RAF-DB (Li, Deng, Du, 2017) first and in its order.
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
    "disgust": ("disgusted", "disgusting", "disgustedly"),
    "anger": ("angry", "angrily", "mad"),
    "contempt": ("contemptuous", "scorn"),
}
EXPRESSION_ALIASES = {name: name for name in EXPRESSIONS} | {
    alias: name for name, aliases in _ALIASES.items() for alias in aliases
}
"""Spelling found in the wild (lower case, ``_`` for spaces and hyphens) → expression."""

FER2013_CODES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""Expression of each code 0-6 in FER2013's official csv."""

AFFECTNET_CODES = {
    0: "neutral", 1: "happiness", 2: "sadness", 3: "surprise", 4: "fear", 5: "disgust", 6: "anger", 7: "contempt",
    8: None, 9: None, 10: None,
}  # fmt: skip
"""Expression of each code of AffectNet; 8 "none", 9 "uncertain" and 10 "no face" are no expression of a face."""

RAFDB_CODES = {
    1: "surprise", 2: "fear", 3: "disgust", 4: "happiness", 5: "sadness", 6: "anger", 7: "neutral",
}  # fmt: skip
"""Expression of each code of RAF-DB's basic set."""

AFFWILD2_CODES = {
    -1: None, 0: "neutral", 1: "anger", 2: "disgust", 3: "fear", 4: "happiness", 5: "sadness", 6: "surprise", 7: None,
}  # fmt: skip
"""Expression of each code of Aff-Wild2; -1 is missing and 7 "other"."""

CKPLUS_CODES = {
    0: "neutral", 1: "anger", 2: "contempt", 3: "disgust", 4: "fear", 5: "happiness", 6: "sadness", 7: "surprise",
}  # fmt: skip
"""Expression of each code of the extended Cohn-Kanade set (CK+)."""

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

COMPOUND_PARTS = {
    "happily_surprised": ("happiness", "surprise"),
    "happily_disgusted": ("happiness", "disgust"),
    "sadly_fearful": ("sadness", "fear"),
    "sadly_angry": ("sadness", "anger"),
    "sadly_surprised": ("sadness", "surprise"),
    "sadly_disgusted": ("sadness", "disgust"),
    "fearfully_angry": ("fear", "anger"),
    "fearfully_surprised": ("fear", "surprise"),
    "angrily_surprised": ("anger", "surprise"),
    "angrily_disgusted": ("anger", "disgust"),
    "disgustedly_surprised": ("disgust", "surprise"),
    "fearfully_disgusted": ("fear", "disgust"),
}
"""The two basic expressions that a compound expression is made of."""

COMPOUND_EXPRESSIONS = tuple(COMPOUND_PARTS)
"""The compound expressions; ``FaceBatch.compound`` indexes them."""

RAFDB_COMPOUND_CODES = dict(enumerate(COMPOUND_EXPRESSIONS[:11], 1))
"""Compound expression of each code 1-11 of RAF-DB's compound set."""

TASKS = ("expression", "compound", "action_units", "landmarks", "valence_arousal")
"""What a network can predict of a face, by the column of ``FaceBatch`` that holds its label."""

ACTION_UNITS = (
    "AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15",
    "AU16", "AU17", "AU18", "AU20", "AU22", "AU24", "AU25", "AU26", "AU28", "AU34", "AU43",
)  # fmt: skip
"""The action units this suite knows, as columns of ``FaceBatch.action_units``."""


def canonical_expression(name: str) -> str | None:
    """The expression that ``name`` means (any case, common aliases), or None when it means none of them."""
    return EXPRESSION_ALIASES.get(_key(name))


def canonical_compound(name: str) -> str | None:
    """The compound expression that ``name`` means (any case, spaces or hyphens for ``_``), or None."""
    key = _key(name)
    return key if key in COMPOUND_PARTS else None


def _key(name: str) -> str:
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")


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
