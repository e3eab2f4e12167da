import pytest

from synthmtl.errors import InputError
from synthmtl.labels import (
    ACTION_UNITS,
    CIRCUMPLEX,
    EXPRESSION_ALIASES,
    EXPRESSIONS,
    EXPRESSIONS_7,
    FER2013_CODES,
    canonical_expression,
    class_index,
    ordered_classes,
)


def test_vocabularies_agree():
    assert tuple(name for name in EXPRESSIONS if name != "contempt") == EXPRESSIONS_7
    assert sorted(FER2013_CODES) == sorted(EXPRESSIONS_7)
    assert set(CIRCUMPLEX) == set(EXPRESSIONS)
    assert all(-1 <= value <= 1 for point in CIRCUMPLEX.values() for value in point)
    assert len(set(ACTION_UNITS)) == len(ACTION_UNITS)


def test_fer2013_codes():
    assert dict(enumerate(FER2013_CODES)) == {
        0: "anger",
        1: "disgust",
        2: "fear",
        3: "happiness",
        4: "sadness",
        5: "surprise",
        6: "neutral",
    }


@pytest.mark.parametrize(
    ("spelling", "expression"),
    [
        ("happy", "happiness"),
        ("HAPPY", "happiness"),
        (" Joy ", "happiness"),
        ("sad", "sadness"),
        ("Surprised", "surprise"),
        ("suprise", "surprise"),
        ("fearful", "fear"),
        ("disgusted", "disgust"),
        ("angry", "anger"),
        ("no-expression", "neutral"),
        ("No Expression", "neutral"),
        ("contemptuous", "contempt"),
        ("bored", None),
        ("", None),
    ],
)
def test_aliases(spelling, expression):
    assert canonical_expression(spelling) == expression


def test_every_alias_is_found_in_its_own_spelling():
    for alias, expression in EXPRESSION_ALIASES.items():
        assert expression in EXPRESSIONS
        assert canonical_expression(alias) == expression == canonical_expression(alias.upper().replace("_", "-"))


def test_ordered_classes_sorts_and_drops_repeats():
    assert ordered_classes(["anger", "neutral", "anger", "fear"]) == ("neutral", "fear", "anger")
    assert ordered_classes(reversed(EXPRESSIONS)) == EXPRESSIONS
    with pytest.raises(InputError, match="'angry'.*use one of neutral"):
        ordered_classes(["angry"])


def test_class_index():
    classes = ("neutral", "happiness", "anger")
    assert [class_index(classes, name) for name in ("anger", "Angry", "happy", "neutral")] == [2, 2, 1, 0]
    for name in ("fear", "bored"):
        with pytest.raises(InputError, match=f"'{name}': use one of neutral, happiness, anger"):
            class_index(classes, name)
