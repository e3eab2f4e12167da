"""The protocol that every sharing unit follows."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class SharingUnit(nn.Module, ABC):
    """What sits between the branches after a stage: one feature map per task in, one per task out, shapes kept.

    Attributes:
        single_trunk: True if all tasks run through one trunk, so that a model builds its stages only once and hands
            the unit the same tensor for every task.
    """

    single_trunk = False

    def __init__(self, channels: int, tasks: int = 2):
        super().__init__()
        if tasks < 2:
            raise ValueError(f"sharing needs at least two tasks, not {tasks}")
        self.channels = channels
        self.tasks = tasks

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Exchange ``features``, ``tasks`` tensors (B, channels, H, W), and return as many of the same shape."""
