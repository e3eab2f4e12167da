"""A small adversarial run, started by the tests: launched.py OUT STEPS GLOBAL_BATCH [KILL_AT].

Five steps are an epoch of 50 faces in batches of ten. With WITHOUT_SHARED_MEMORY in the environment, processes talk
through collective operations alone.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from synthmtl import exchange
from synthmtl.data.augmentation import AugmentationConfig, augment
from synthmtl.data.randomness import StepRandom
from synthmtl.data.sampling import EpochSampler, shard
from synthmtl.files import write_tensors, write_text
from synthmtl.training import Player, TrainingConfig, build_accelerator, fit


class Faces:
    """A batch of images and classes."""

    def __init__(self, image, label):
        self.image, self.label = image, label

    def to(self, device):
        return Faces(self.image.to(device), self.label.to(device))


class Recognition(nn.Module):
    """Classification, and a term that wants the critic to say 1."""

    def __init__(self, net, critic):
        super().__init__()
        self.net, self.critic = net, critic

    def forward(self, batch):
        features = self.net(batch.image)
        fooling = (self.critic(features) - 1).square().mean()
        cross_entropy = nn.functional.cross_entropy(features, batch.label)
        return {"loss": cross_entropy + 0.1 * fooling, "fooling": fooling}


class Criticism(nn.Module):
    """The critic tells the features from zeros."""

    def __init__(self, net, critic):
        super().__init__()
        self.net, self.critic = net, critic

    def forward(self, batch):
        with torch.no_grad():
            features = self.net(batch.image)
        zeros = torch.zeros_like(features)
        return {"loss": self.critic(features).square().mean() + (self.critic(zeros) - 1).square().mean()}


def main(out: Path, steps: int, global_batch: int, kill_at: int | None = None, checkpoint_every: int = 5) -> None:
    accelerator = build_accelerator()
    if "WITHOUT_SHARED_MEMORY" in os.environ:
        exchange.mailbox = lambda: None
    rank, world = accelerator.process_index, accelerator.num_processes
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(50, 1, 12, 12, generator=generator) * 2 - 1
    labels = torch.randint(0, 4, (50,), generator=generator)
    torch.manual_seed(2 + rank)  # all begin with the main process's weights
    convolutions = [nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2)]
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(200, 4))
    critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    sampler = EpochSampler(torch.arange(50), global_batch, seed=3)

    def stream(step):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = shard(sampler.indices(step), rank, world)
        random = StepRandom(4, step, rank=rank, world=world)
        return Faces(augment(images[rows], random, AugmentationConfig()), labels[rows])

    def evaluate():
        with torch.no_grad():
            return {"score": -float(nn.functional.cross_entropy(net(images), labels))}

    # The critic comes second, and stands in both objectives.
    players = [
        Player("recognition", Recognition(net, critic), parameters=list(net.parameters())),
        Player("critic", Criticism(net, critic), repeats=2, parameters=list(critic.parameters())),
    ]
    config = TrainingConfig(
        steps=steps,
        batch_size=global_batch,
        precision="no",
        ema_decay=0.9,
        log_every=3,
        evaluate_every=4,
        checkpoint_every_steps=checkpoint_every,
        learning_rate=1e-2,
    )
    result = fit(
        players=players,
        stream=stream,
        config=config,
        accelerator=accelerator,
        directory=out,
        evaluate=evaluate,
        select_by="score",
    )
    in_memory = world > 1 and exchange.averages_in_memory(list(net.parameters()))
    if accelerator.is_main_process:
        write_tensors(out / "final.safetensors", net.state_dict())
        write_text(out / "result.json", json.dumps({"best": result.best, "processes": world, "in_memory": in_memory}))


if __name__ == "__main__":
    kill = int(sys.argv[4]) if len(sys.argv) > 4 else None
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), kill)
