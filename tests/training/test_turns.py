"""A player's turn: what it may change, and what it leaves as it was."""

import copy

import pytest
import torch
from torch import nn

from synthmtl.training import Player, TrainingConfig, build_accelerator, fit


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
