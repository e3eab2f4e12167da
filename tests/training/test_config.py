"""Settings, learning rate, optimizer."""

import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.training import TrainingConfig, learning_rate_factor
from synthmtl.training.config import build_optimizer


def curve(**settings):
    config = TrainingConfig(steps=100, **settings)
    return [learning_rate_factor(config, step) for step in range(100)]


def test_one_cycle_rises_and_falls():
    factors = curve(schedule="one_cycle", warmup=0.3)
    assert factors[0] == pytest.approx(1 / 25) and factors[-1] == pytest.approx(4e-6)
    assert factors[:31] == sorted(factors[:31]) and factors[30:] == sorted(factors[30:], reverse=True)
    assert max(factors) == pytest.approx(1, abs=2e-3)


def test_cosine_falls_to_zero_after_a_linear_rise():
    factors = curve(schedule="cosine", warmup=0.1)
    assert factors[4] == pytest.approx(5 / 11) and factors[-1] == pytest.approx(0, abs=1e-12)
    assert factors[54] == pytest.approx(0.5) and max(factors) <= 1


def test_multistep_falls_at_its_milestones():
    factors = curve(schedule="multistep", warmup=0.0, milestones=(0.5, 0.8), gamma=0.2)
    assert factors == pytest.approx([1.0] * 50 + [0.2] * 30 + [0.04] * 20)
    assert curve(schedule="constant", warmup=0.0) == [1.0] * 100


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant", "multistep"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_short_runs_have_a_learning_rate(schedule, steps):
    config = TrainingConfig(steps=steps, schedule=schedule)
    assert all(0 <= learning_rate_factor(config, step) <= 1 for step in range(steps))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_vectors_do_not_decay(optimizer):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    built = build_optimizer(net.parameters(), TrainingConfig(optimizer=optimizer, weight_decay=0.3), 0.1)
    decays = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in net.parameters()] == [0.3, 0.0, 0.0, 0.0]
    assert isinstance(built, {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "linear"},
        {"optimizer": "lion"},
        {"precision": "fp8"},
        {"steps": 0},
        {"accumulation": 0},
        {"evaluate_every": 0},
        {"warmup": 1.0},
        {"ema_decay": 1.0},
        {"learning_rate": -1e-3},
        {"weight_decay": float("nan")},
        {"clip_norm": float("inf")},
        {"clip_norm": 0.0},
        {"milestones": (150, 400)},
        {"milestones": (0.8, 0.5)},
        {"milestones": (0.0, 0.5)},
        {"gamma": -0.1},
        {"steps": 3.5},
        {"steps": True},
        {"steps": None},
        {"learning_rate": None},
        {"patience": "many"},
        {"betas": (0.9,)},
        {"aggregator_options": {"c": 0.5}},
        {"betas": (0.9, 1.0)},
    ],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        TrainingConfig(**settings)


def test_what_the_settings_allow():
    config = TrainingConfig(clip_norm=None, milestones=[], gamma=0, betas=[0.5, 0.999], aggregator_options={})
    assert config.milestones == () and config.betas == (0.5, 0.999)
    TrainingConfig(aggregator="famo", aggregator_options={"learning_rate": 1})


def test_checkpoints_are_due_by_steps_or_by_time():
    config = TrainingConfig(checkpoint_every_steps=5, checkpoint_every_minutes=2)
    assert config.checkpoint_due(10, 0) and not config.checkpoint_due(11, 119) and config.checkpoint_due(11, 120)
    never = TrainingConfig(checkpoint_every_steps=None, checkpoint_every_minutes=None)
    assert not never.checkpoint_due(10, 1e9)
