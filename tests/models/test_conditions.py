import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.faces.anatomy import action_units, recipe_vector
from synthmtl.labels import ACTION_UNITS, CIRCUMPLEX
from synthmtl.models.conditions import (
    CONDITIONS,
    SourceAdapter,
    TargetCondition,
    code_width,
    read_target,
    target_code,
)
from synthmtl.models.encoder import Encoded

CLASSES = ("neutral", "happiness", "anger")


def targets(kind):
    """Three different targets."""
    if kind == "expression":
        return torch.tensor([0, 1, 2])
    return torch.rand(3, 22 if kind == "action_units" else 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", CONDITIONS)
def test_missing_left_out_and_null_are_the_same(kind):
    torch.manual_seed(0)
    condition, given = TargetCondition(kind, 3, 8), targets(kind)
    embedded = condition(given)
    assert embedded.shape == (3, 8) and len(embedded.unique(dim=0)) == 3
    null = condition(condition.missing(1, torch.device("cpu")))
    assert null.isfinite().all() and not (embedded == null).all(1).any()
    kept = condition(given, torch.tensor([True, False, True]))
    torch.testing.assert_close(kept, torch.stack([embedded[0], null[0], embedded[2]]))


def test_an_unknown_action_unit_is_not_an_absent_one():
    torch.manual_seed(0)
    condition, given = TargetCondition("action_units", 3, 8), targets("action_units")
    absent, unknown = given.clone(), given.clone()
    absent[:, 3], unknown[:, 3] = 0.0, float("nan")
    assert not torch.allclose(condition(absent), condition(unknown))
    condition(unknown).sum().backward()
    assert all(p.grad.isfinite().all() for p in condition.parameters())


@pytest.mark.parametrize("kind", CONDITIONS)
def test_codes_tell_every_target_from_every_other(kind):
    given = targets(kind)
    code = target_code(kind, 3, given)
    assert code.shape == (3, code_width(kind, 3)) and len(code.unique(dim=0)) == 3
    missing = TargetCondition(kind, 3, 8).missing(1, torch.device("cpu"))
    assert (target_code(kind, 3, missing) == 0).all()
    if kind == "expression":
        assert torch.equal(code, torch.eye(3))
    else:
        values, known = code.chunk(2, 1)
        assert torch.equal(values, given) and (known == 1).all()


def test_targets_that_users_mean():
    def read(kind, wanted):
        return read_target(kind, CLASSES, wanted).tolist()

    assert read("expression", "angry") == [2] and read("expression", 1) == [1]
    assert read("expression", ["happiness", 0]) == [1, 0]
    assert read("expression", torch.tensor(2)) == [2] and read("expression", torch.tensor([2, 0])) == [2, 0]
    assert read("valence_arousal", (0.5, -0.5)) == [[0.5, -0.5]]
    torch.testing.assert_close(
        read_target("valence_arousal", CLASSES, ["surprise", [0.0, 1.0]]),
        torch.tensor([CIRCUMPLEX["surprise"], (0.0, 1.0)]),
    )
    smile = read_target("action_units", CLASSES, {"AU12": 1.0, "AU6": 0.5})
    assert smile.shape == (1, 22) and smile.sum() == 1.5 and smile[0, ACTION_UNITS.index("AU12")] == 1
    happy = read_target("action_units", CLASSES, "happiness")
    torch.testing.assert_close(happy, torch.from_numpy(action_units(recipe_vector(1)))[None])
    assert torch.equal(read_target("action_units", CLASSES, smile[0]), smile)
    joyful, gasp, both = read_target("action_units", CLASSES, ["happiness", "surprise", "happily surprised"])
    assert (both[(joyful > 0.5) & (gasp > 0.5)] > 0.5).all() and not torch.equal(both, joyful)


@pytest.mark.parametrize(
    ("kind", "wanted", "message"),
    [
        ("expression", "fear", "no expression 'fear' here: use one of neutral, happiness, anger"),
        ("expression", 3, "no expression 3 here"),
        ("expression", [0.7, 1.9], "expressions are names or whole numbers, not"),
        ("expression", torch.tensor([0.0, 1.0]), "expressions are names or whole numbers, not"),
        ("expression", torch.tensor([3]), "numbered from 0 to 2 here, not"),
        ("expression", {"AU12": 1.0}, "conditioned on expression, it takes no action units"),
        ("action_units", {"AU99": 1.0}, "no action unit 'AU99': use one of AU1, AU2"),
        ("action_units", torch.zeros(3, 5), r"has shape \('B', 22\), not \(3, 5\)"),
        ("valence_arousal", "bored", "no expression 'bored'"),
    ],
)
def test_targets_that_nobody_can_mean(kind, wanted, message):
    with pytest.raises(InputError, match=message):
        read_target(kind, CLASSES, wanted)


def test_unknown_condition():
    with pytest.raises(InputError, match="unknown condition 'mood': use one of expression, action_units"):
        TargetCondition("mood", 3, 8)


@pytest.mark.parametrize(
    ("input_size", "levels", "sizes", "chosen"),
    [
        (48, 3, [48, 24, 12, 12], [[0], [0], [1], [2, 3]]),
        (48, 4, [48, 24, 12, 6, 6], [[0], [0], [1], [2], [3]]),
        (48, 5, [48, 24, 12, 6, 3, 3], [[0], [0], [1], [2], [3], [3]]),
        (24, 3, [24, 12, 6, 6], [[0], [1], [2], [3]]),
        (24, 1, [24, 24], [[0], [1, 2, 3]]),
    ],
)
def test_every_feature_finds_a_place(input_size, levels, sizes, chosen):
    widths = range(5, 6 + levels)
    adapter = SourceAdapter((4, 6, 8, 10), image_size=48, input_size=input_size, widths=widths)
    assert adapter.sizes == sizes and adapter.chosen == chosen
    maps = [torch.randn(2, c, 24 >> i, 24 >> i) for i, c in enumerate((4, 6, 8, 10))]
    encoded = Encoded(maps[-1], maps[-1], maps[-2::-1])
    added = adapter(encoded)
    assert [tuple(x.shape) for x in added] == [(2, w, s, s) for w, s in zip(widths, sizes, strict=True)]
    assert not any(x.any() for x in added)
    for p in adapter.parameters():
        torch.nn.init.ones_(p)
    kept = adapter(encoded, torch.tensor([True, False]))
    assert all(x[0].any() and not x[1].any() for x in kept)
