"""A player's turn: what it may change, and what it leaves as it was."""

import copy
import math

import pytest
import torch
from torch import nn

from synthmtl.training import Player, TrainingConfig, build_accelerator, fit
from synthmtl.training.turns import FIRST_SCALE


class Normalized(nn.Module):
    """Two tasks on features that a normalization makes."""

    def __init__(self, layer):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.heads = layer, nn.Linear(2, 2)

    def forward(self, images):
        one, other = self.heads(self.layer(images).flatten(2).mean(2) + 1).square().mean(0)
        return {"loss": one + other, "task/one": one, "task/other": other}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2, momentum=None),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(2)),
    ],
)
def test_looking_back_leaves_no_trace_in_running_statistics(layer, accumulation):
    objectives = {}
    for aggregator in ("sum", "famo"):
        objectives[aggregator] = Normalized(copy.deepcopy(layer))
        fit(
            players=[Player("net", objectives[aggregator])],
            stream=lambda step: 2 + torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(step)),
            config=TrainingConfig(steps=3, accumulation=accumulation, aggregator=aggregator),
            accelerator=build_accelerator(precision="no"),
            progress=False,
        )
    for name, value in objectives["sum"].layer.named_buffers():
        assert torch.equal(objectives["famo"].layer.get_buffer(name), value), name


class Overflow(torch.autograd.Function):
    """Zero, with a gradient that is infinite."""

    @staticmethod
    def forward(context, value):
        return value * 0

    @staticmethod
    def backward(context, gradient):
        return gradient * math.inf


class Overflowing(nn.Module):
    """A linear map whose gradient overflows in some steps; a batch is (step, images)."""

    def __init__(self, steps=()):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.steps = nn.Linear(3, 2), steps

    def forward(self, batch):
        loss = self.layer(batch[1:].view(-1, 3)).float().square().mean()
        if int(batch[0]) in self.steps:
            loss = loss + Overflow.apply(self.layer.weight.sum())
        return {"loss": loss}


def scales(monkeypatch, *objectives):
    """By what the losses were multiplied in each step of six, in fp16."""
    accelerator, seen = build_accelerator(precision="no"), []
    monkeypatch.setattr(type(accelerator), "mixed_precision", "fp16")
    accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", growth_interval=1000)

    def stream(step):
        seen.append(accelerator.scaler.get_scale() / FIRST_SCALE)
        return torch.cat([torch.tensor([float(step)]), torch.randn(12, generator=torch.Generator().manual_seed(step))])

    players = [Player(f"player{i}", objective) for i, objective in enumerate(objectives)]
    fit(players=players, stream=stream, config=TrainingConfig(steps=6), accelerator=accelerator, progress=False)
    return seen


def test_an_overflow_halves_the_scale_once_whoever_else_plays(monkeypatch):
    expected = [1, 1, 1, 0.5, 0.5, 0.5]
    assert scales(monkeypatch, Overflowing({2})) == expected
    first, second = Overflowing({2}), Overflowing()
    assert scales(monkeypatch, first, second) == expected
    assert scales(monkeypatch, Overflowing(), Overflowing({2})) == expected
    assert all(p.isfinite().all() for p in (*first.parameters(), *second.parameters()))
