import pytest

from synthmtl.errors import InputError
from synthmtl.labels import (
    ACTION_UNITS,
    AFFECTNET_CODES,
    AFFWILD2_CODES,
    CIRCUMPLEX,
    CKPLUS_CODES,
    COMPOUND_EXPRESSIONS,
    COMPOUND_PARTS,
    EXPRESSION_ALIASES,
    EXPRESSIONS,
    EXPRESSIONS_7,
    FER2013_CODES,
    RAFDB_CODES,
    RAFDB_COMPOUND_CODES,
    canonical_compound,
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


def test_compound_expressions_are_named_after_their_parts():
    assert len(COMPOUND_EXPRESSIONS) == len({frozenset(parts) for parts in COMPOUND_PARTS.values()}) == 12
    for name, parts in COMPOUND_PARTS.items():
        first, second = name.split("_")
        assert (canonical_expression(first), canonical_expression(second)) == parts
        assert parts[0] != parts[1] and "neutral" not in parts


@pytest.mark.parametrize("spelling", ["Sadly Angry", "SADLY-ANGRY", " sadly_angry "])
def test_compound_spellings(spelling):
    assert canonical_compound(spelling) == "sadly_angry"
    assert canonical_compound("angry") is canonical_compound("4") is canonical_compound("") is None


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
    ("codes", "first", "names"),
    [
        # The publishers' own words, in the order of their codes.
        (AFFECTNET_CODES, 0, "Neutral Happiness Sadness Surprise Fear Disgust Anger Contempt None Uncertain No-Face"),
        (RAFDB_CODES, 1, "Surprise Fear Disgust Happiness Sadness Anger Neutral"),
        (AFFWILD2_CODES, -1, "missing Neutral Anger Disgust Fear Happiness Sadness Surprise Other"),
        (CKPLUS_CODES, 0, "neutral anger contempt disgust fear happy sadness surprise"),
    ],
)
def test_codes_of_publishers(codes, first, names):
    assert codes == {code: canonical_expression(name) for code, name in enumerate(names.split(), first)}


def test_compound_codes_of_rafdb():
    names = [
        "Happily Surprised", "Happily Disgusted", "Sadly Fearful", "Sadly Angry", "Sadly Surprised", "Sadly Disgusted",
        "Fearfully Angry", "Fearfully Surprised", "Angrily Surprised", "Angrily Disgusted", "Disgustedly Surprised",
    ]  # fmt: skip
    assert {code: canonical_compound(name) for code, name in enumerate(names, 1)} == RAFDB_COMPOUND_CODES


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
