"""A judge of brightness, whose answers are known."""

import torch
from torch import nn


class Meter(nn.Module):
    """A judge whose probability of its second class is the face's mean brightness."""

    classes = ("neutral", "fear")

    def recognize(self, images):
        bright = (images.mean((1, 2, 3)) + 1) / 2
        return torch.stack([1 - bright, bright], 1)


def flat(*values):
    """Faces of one gray value each."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()


def bright_faces(job, neutral, fear):
    table = job.make_faces({"neutral": len(neutral), "fear": len(fear)}, size=8)
    return table.replace(images=flat(*neutral, *fear))
