"""Two tasks on one trunk, for the tests of aggregators; as a script, trains them: two_tasks.py OUT AGGREGATOR..."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from synthmtl.data.sampling import EpochSampler, shard
from synthmtl.training import Player, TrainingConfig, build_accelerator, fit

STEPS = 10


class Samples:
    """A batch of images, classes and angles."""

    def __init__(self, image, label, angle):
        self.image, self.label, self.angle = image, label, angle

    def to(self, device):
        return Samples(self.image.to(device), self.label.to(device), self.angle.to(device))


class TwoTasks(nn.Module):
    """Classification and regression on shared convolutions, and a layer that no task reaches.

    Args:
        tasks: those whose losses are returned beside the loss, which is their sum; none = both, not returned.
        dropout: behind the convolutions.
    """

    def __init__(self, tasks=("classes", "angle"), dropout=0.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            convolutions = [nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2)]
            self.trunk = nn.Sequential(*convolutions, nn.Flatten(), nn.Dropout(dropout))
            self.classes = nn.Linear(54, 4)
            self.angle = nn.Sequential(nn.Linear(54, 8), nn.Tanh(), nn.Linear(8, 1))
            self.idle = nn.Linear(3, 3)
        self.tasks = tasks

    def forward(self, batch):
        features = self.trunk(batch.image)
        losses = {
            "classes": F.cross_entropy(self.classes(features).float(), batch.label),
            "angle": 5 * (self.angle(features).float()[:, 0] - batch.angle).square().mean(),
        }
        named = {f"task/{name}": losses[name] for name in self.tasks}
        return {"loss": sum((named or losses).values())} | named


def make_stream(size=20, rank=0, world=1):
    """Batches of ``size`` over all processes, out of 60 samples that can be learned."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(60, 2, 8, 8, generator=generator)
    labels = (images.flatten(1) @ torch.randn(128, 4, generator=generator)).argmax(1)
    angles = torch.tanh(images.flatten(1) @ torch.randn(128, generator=generator) / 8)
    sampler = EpochSampler(torch.arange(60), size, seed=3)

    def stream(step):
        rows = shard(sampler.indices(step), rank, world)
        return Samples(images[rows], labels[rows], angles[rows])

    return stream


def train(objective, aggregator, *, others=(), directory=None, stream=None, size=20, accelerator=None, **settings):
    """Train with an aggregator, other objectives in turn; returns what ``fit`` does."""
    accelerator = accelerator or build_accelerator()
    world = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    options = {"steps": STEPS, "learning_rate": 1e-2, "log_every": 1} | settings
    return fit(
        players=[Player("net", objective), *(Player(f"other{i}", other) for i, other in enumerate(others))],
        stream=stream or make_stream(size, **world),
        config=TrainingConfig(batch_size=size, aggregator=aggregator, **options),
        accelerator=accelerator,
        directory=directory,
        progress=False,
    )


def main(out, aggregators):
    accelerator = build_accelerator()
    for aggregator in aggregators:
        objective = TwoTasks()
        train(objective, aggregator, directory=out / aggregator, accelerator=accelerator, steps=6)
        if accelerator.is_main_process:
            save_file(objective.state_dict(), out / aggregator / f"{accelerator.num_processes}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
