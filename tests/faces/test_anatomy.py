import numpy as np
import pytest

from synthmtl.faces import anatomy
from synthmtl.faces.anatomy import ACTION_INDEX, ACTIONS
from synthmtl.labels import ACTION_UNITS, CIRCUMPLEX, COMPOUND_EXPRESSIONS, COMPOUND_PARTS, EXPRESSIONS


def units_of(**coefficients):
    vector = np.zeros(len(ACTIONS), np.float32)
    for name, value in coefficients.items():
        vector[ACTION_INDEX[name]] = value
    return dict(zip(ACTION_UNITS, anatomy.action_units(vector).tolist(), strict=True))


def test_every_action_unit_has_a_facial_action():
    assert set(anatomy.UNIT_ACTIONS) == set(ACTION_UNITS)
    assert len(ACTIONS) == 52


def test_one_side_counts_as_much_as_both():
    one = units_of(mouthSmileLeft=0.6)
    both = units_of(mouthSmileLeft=0.6, mouthSmileRight=0.4)
    assert one == both
    assert one["AU12"] == pytest.approx(0.6)
    assert sum(one.values()) == pytest.approx(0.6)


def test_a_dropped_jaw_parts_the_lips():
    units = units_of(jawOpen=0.4)
    assert units["AU26"] == pytest.approx(0.5)
    assert units["AU25"] == pytest.approx(1.0)
    assert units_of(noseSneerRight=5.0)["AU9"] == 1.0  # clipped


@pytest.mark.parametrize(
    ("expression", "units"),
    [
        ("happiness", {"AU6", "AU12"}),
        ("sadness", {"AU1", "AU15", "AU17"}),
        ("surprise", {"AU1", "AU2", "AU5", "AU26"}),
        ("fear", {"AU1", "AU5", "AU20", "AU25"}),
        ("disgust", {"AU9", "AU10"}),
        ("anger", {"AU4", "AU7", "AU24"}),
        ("contempt", {"AU12", "AU14"}),
    ],
)
def test_recipes_show_the_units_that_emfacs_names(expression, units):
    vector = anatomy.recipe_vector(EXPRESSIONS.index(expression))
    shown = dict(zip(ACTION_UNITS, anatomy.action_units(vector), strict=True))
    assert min(shown[unit] for unit in units) >= 0.4


@pytest.mark.parametrize(
    ("compound", "units", "absent"),
    [
        ("happily_surprised", {"AU1", "AU2", "AU12", "AU25"}, {"AU4", "AU43"}),
        ("happily_disgusted", {"AU10", "AU12", "AU25"}, {"AU15"}),
        ("sadly_fearful", {"AU1", "AU15", "AU25"}, {"AU17"}),
        ("sadly_angry", {"AU4", "AU15"}, {"AU1"}),
        ("sadly_surprised", {"AU1", "AU15", "AU25", "AU26"}, {"AU17"}),
        ("sadly_disgusted", {"AU9", "AU10", "AU15"}, {"AU12"}),
        ("fearfully_angry", {"AU4", "AU5", "AU25"}, {"AU1", "AU2", "AU24"}),
        ("fearfully_surprised", {"AU1", "AU2", "AU5", "AU20", "AU25"}, {"AU43"}),
        ("angrily_surprised", {"AU4", "AU25", "AU26"}, {"AU1", "AU2", "AU24", "AU28"}),
        ("angrily_disgusted", {"AU4", "AU10", "AU17"}, {"AU1", "AU2"}),
        ("disgustedly_surprised", {"AU1", "AU2", "AU5", "AU10"}, {"AU4", "AU17"}),
        ("fearfully_disgusted", {"AU1", "AU5", "AU10", "AU20", "AU25"}, {"AU7", "AU17"}),
    ],
)
def test_compounds_show_the_units_of_both_parts_but_no_contradiction(compound, units, absent):
    vector = anatomy.recipe_vector(anatomy.KINDS.index(compound))
    shown = dict(zip(ACTION_UNITS, anatomy.action_units(vector), strict=True))
    assert min(shown[unit] for unit in units) >= 0.4
    assert max(shown[unit] for unit in absent) <= 0.1


def test_a_blend_takes_every_action_from_one_of_its_parts():
    assert anatomy.KINDS == EXPRESSIONS + COMPOUND_EXPRESSIONS
    for index, parts in enumerate(COMPOUND_PARTS.values(), len(EXPRESSIONS)):
        first, second = (anatomy.recipe_vector(EXPRESSIONS.index(part)) for part in parts)
        blended = anatomy.recipe_vector(index)
        assert ((blended == first) | (blended == second)).all()
        assert np.array_equal(blended, anatomy.blend(second, first))
        assert np.array_equal(blended, blended[anatomy.MIRRORED])
        assert not np.array_equal(blended, first) and not np.array_equal(blended, second)
    assert np.array_equal(anatomy.blend(first, first), first)
    assert np.array_equal(anatomy.blend(first, np.zeros_like(first)), first)


def test_contempt_is_one_sided_and_the_others_are_not():
    for index, name in enumerate(EXPRESSIONS):
        vector = anatomy.recipe_vector(index)
        assert np.array_equal(vector, vector[anatomy.MIRRORED]) == (name != "contempt")
    assert np.array_equal(anatomy.MIRRORED[anatomy.MIRRORED], np.arange(52))


def test_samples_vary_but_stay_in_range_and_follow_their_generator():
    draws = [anatomy.sample_actions(4, rng=np.random.default_rng(seed)) for seed in range(40)]
    again, strength = anatomy.sample_actions(4, rng=np.random.default_rng(7))
    assert np.array_equal(again, draws[7][0]) and strength == draws[7][1]
    values = np.stack([draw[0] for draw in draws])
    assert values.min() >= 0 and values.max() <= 1.9
    assert values[:, ACTION_INDEX["jawOpen"]].max() <= 0.75
    assert all(0.55 <= draw[1] <= 1.15 for draw in draws)
    assert len({draw[1] for draw in draws}) == 40
    assert anatomy.sample_actions(0, rng=np.random.default_rng(1))[1] == 0.0


def test_valence_and_arousal_follow_the_circumplex_and_intensity():
    nothing = np.zeros(len(ACTION_UNITS))
    for index, name in enumerate(EXPRESSIONS):
        place = anatomy.valence_arousal(index, 0.5, nothing)
        assert place == pytest.approx(0.5 * np.array(CIRCUMPLEX[name]), abs=1e-6)
    for name, (first, second) in COMPOUND_PARTS.items():
        between = (np.array(CIRCUMPLEX[first]) + np.array(CIRCUMPLEX[second])) / 2
        assert anatomy.valence_arousal(anatomy.KINDS.index(name), 1.0, nothing) == pytest.approx(between, abs=1e-6)
    smiling = nothing.copy()
    smiling[ACTION_UNITS.index("AU12")] = 1.0
    assert anatomy.valence_arousal(0, 0.0, smiling) == pytest.approx([0.1, 0.0])
    assert np.abs(anatomy.valence_arousal(1, 1.5, smiling)).max() <= 1.0
