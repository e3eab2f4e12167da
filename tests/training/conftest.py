"""A small classification problem for the training loop."""

import dataclasses

import pytest
import torch
from torch import nn

from synthmtl.data.sampling import EpochSampler
from synthmtl.training import Player, TrainingConfig, build_accelerator, fit


@dataclasses.dataclass
class Points:
    """A batch of points and classes."""

    point: torch.Tensor
    label: torch.Tensor

    def to(self, device):
        return Points(self.point.to(device), self.label.to(device))


class Classification(nn.Module):
    """Cross-entropy of a net."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, batch):
        return {"loss": nn.functional.cross_entropy(self.net(batch.point).float(), batch.label)}


class Problem:
    """Sixty-four points in three classes, and a net that learns them."""

    def __init__(self, dropout=0.0):
        generator = torch.Generator().manual_seed(0)
        self.points = torch.randn(64, 5, generator=generator)
        self.labels = (self.points @ torch.randn(5, 3, generator=generator)).argmax(1)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Linear(5, 16), nn.LayerNorm(16), nn.Dropout(dropout), nn.Linear(16, 3))
        self.objective = Classification(self.net)

    def stream(self, size=16):
        sampler = EpochSampler(torch.arange(64), size, seed=0)

        def batch(step):
            rows = sampler.indices(step)
            return Points(self.points[rows], self.labels[rows])

        return batch

    def accuracy(self):
        with torch.no_grad():
            return {"accuracy": float((self.net(self.points).argmax(1) == self.labels).float().mean())}

    def weights(self):
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    def fit(self, directory=None, *, players=None, stream=None, accelerator=None, size=16, config=None, **options):
        settings = {"steps": 12, "batch_size": size, "precision": "no", "log_every": 4} | (config or {})
        return fit(
            players=players or [Player("net", self.objective)],
            stream=stream or self.stream(size),
            config=TrainingConfig(**settings),
            accelerator=accelerator or build_accelerator(),
            directory=directory,
            progress=False,
            **options,
        )


@pytest.fixture
def problem():
    return Problem()


@pytest.fixture
def make_problem():
    return Problem
