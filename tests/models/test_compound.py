import pytest
import torch

from synthmtl.faces import anatomy
from synthmtl.labels import ACTION_UNITS, COMPOUND_EXPRESSIONS, COMPOUND_PARTS, EXPRESSIONS, EXPRESSIONS_7
from synthmtl.models import read_out
from synthmtl.models.compound import compound_prototypes


def shares(**values):
    """Probabilities (1, 8)."""
    return torch.tensor([[values.get(name, 0.0) for name in EXPRESSIONS]])


def best(scores):
    return [COMPOUND_EXPRESSIONS[i] for i in scores.argmax(1).tolist()]


def test_two_strongest_expressions_name_the_compound():
    for name, (first, second) in COMPOUND_PARTS.items():
        others = {each: 0.05 for each in EXPRESSIONS}
        scores = read_out(shares(**(others | {first: 0.45, second: 0.25})), None, EXPRESSIONS)
        assert best(scores) == [name]
        torch.testing.assert_close(scores.sum(1), torch.ones(1))


def test_known_scores():
    scores = read_out(shares(happiness=0.5, surprise=0.32, disgust=0.18), None, EXPRESSIONS)[0]
    pairs = {"happily_surprised": 0.16, "happily_disgusted": 0.09, "disgustedly_surprised": 0.0576}
    roots = {name: value**0.5 for name, value in pairs.items()}
    for name, score in zip(COMPOUND_EXPRESSIONS, scores.tolist(), strict=True):
        assert score == pytest.approx(roots.get(name, 0.0) / sum(roots.values()), abs=1e-6)


def test_prototypes_are_those_of_the_recipes():
    prototypes = compound_prototypes()
    assert prototypes.shape == (12, 22) and prototypes.min() >= 0 and prototypes.max() <= 1
    shown = dict(zip(ACTION_UNITS, prototypes[COMPOUND_EXPRESSIONS.index("happily_surprised")].tolist(), strict=True))
    assert min(shown[unit] for unit in ("AU1", "AU2", "AU12", "AU25")) > 0.5 and shown["AU4"] == shown["AU15"] == 0
    assert len(prototypes.unique(dim=0)) == 12


def test_action_units_decide_where_expressions_do_not():
    even = torch.full((12, 8), 1 / 8)
    units = compound_prototypes()
    assert best(read_out(even, units, EXPRESSIONS)) == list(COMPOUND_EXPRESSIONS)
    assert best(read_out(even, 0.3 * units, EXPRESSIONS)) == list(COMPOUND_EXPRESSIONS)  # however weakly shown
    sad = torch.from_numpy(anatomy.action_units(anatomy.recipe_vector(EXPRESSIONS.index("sadness"))))[None]
    happy = read_out(shares(happiness=0.5, surprise=0.2, disgust=0.2, neutral=0.1), sad, EXPRESSIONS)
    assert best(happy)[0].startswith("happily")


def test_unknown_action_units_are_left_out():
    p = torch.softmax(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), 1)
    units = torch.rand(4, 22, generator=torch.Generator().manual_seed(1))
    without = read_out(p, None, EXPRESSIONS)
    assert torch.equal(read_out(p, torch.full((4, 22), float("nan")), EXPRESSIONS), without)
    assert torch.equal(read_out(p, torch.zeros(4, 22), EXPRESSIONS), without)
    known = units.clone()
    known[:, 3] = float("nan")
    scores = read_out(p, known, EXPRESSIONS)
    assert scores.isfinite().all() and not torch.allclose(scores, read_out(p, units, EXPRESSIONS))
    units[0, 3] = 0.9
    units[:, 3] = float("nan")
    assert torch.equal(read_out(p, units, EXPRESSIONS), scores)


def test_classes_that_are_missing():
    seven = read_out(torch.full((2, 7), 1 / 7), None, EXPRESSIONS_7)
    torch.testing.assert_close(seven, torch.full((2, 12), 1 / 12))
    two = read_out(torch.tensor([[0.2, 0.8]]), None, ("surprise", "fear"))
    assert best(two) == ["fearfully_surprised"] and two.max() > 0.999
    torch.testing.assert_close(read_out(shares(neutral=1.0), None, EXPRESSIONS), torch.full((1, 12), 1 / 12))
