"""Invariants of every sharing unit."""

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.sharing import SHARING_UNITS, HardSharing, LeakySharing, NoSharing, sharing_class


def features(tasks=2, channels=6, size=5):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, channels, size, size, generator=generator, requires_grad=True) for _ in range(tasks)]


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("unit", SHARING_UNITS.values(), ids=SHARING_UNITS)
def test_one_feature_map_a_task_of_the_same_shape(unit, tasks):
    given = features(tasks)
    out = unit(6, tasks)(given)
    assert isinstance(out, list) and len(out) == tasks
    assert all(o.shape == x.shape and o.isfinite().all() for o, x in zip(out, given, strict=True))


@pytest.mark.parametrize("unit", SHARING_UNITS.values(), ids=SHARING_UNITS)
def test_sharing_needs_two_tasks(unit):
    with pytest.raises(ValueError, match="at least two tasks, not 1"):
        unit(6, 1)


@pytest.mark.parametrize("unit", [NoSharing, HardSharing])
def test_units_without_parameters_pass_features_on(unit):
    given = features()
    module = unit(6)
    assert all(o is x for o, x in zip(module(given), given, strict=True))
    assert sum(p.numel() for p in module.parameters()) == 0


def test_only_hard_sharing_has_a_single_trunk():
    assert [name for name, unit in SHARING_UNITS.items() if unit.single_trunk] == ["hard"]


def test_units_by_name():
    assert sharing_class("leaky") is LeakySharing
    with pytest.raises(InputError, match="unknown sharing unit 'soft': use one of none, hard, leaky"):
        sharing_class("soft")
