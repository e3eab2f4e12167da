"""The protocol that every sharing unit follows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from inspect import Parameter, signature

from torch import Tensor, nn


class SharingUnit(nn.Module, ABC):
    """What sits between the branches after a stage: one feature map per task in, one per task out, shapes kept.

    Attributes:
        single_trunk: True if all tasks run through one trunk, so that a model builds its stages only once and hands
            the unit the same tensor for every task.
        stages: how many stages of the model call the unit, one after the other in each pass.
    """

    single_trunk = False
    stages = 1

    def __init__(self, channels: int, tasks: int = 2):
        super().__init__()
        if tasks < 2:
            raise ValueError(f"sharing needs at least two tasks, not {tasks}")
        self.channels = channels
        self.tasks = tasks

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Exchange ``features``, ``tasks`` tensors (B, channels, H, W), and return as many of the same shape."""

    @classmethod
    def options(cls) -> dict[str, Parameter]:
        """What the unit can be given beyond channels and tasks, by name; JSON-able, with defaults and annotations."""
        return arguments(cls)

    def penalty(self) -> Tensor | None:
        """What the last forward pass adds to the loss: a scalar, a mean over the batch; None if the unit has none."""
        return None


def own_first(features: Sequence[Tensor], task: int) -> list[Tensor]:
    """``features`` with those of ``task`` in front, the others in their order."""
    return [features[task], *features[:task], *features[task + 1 :]]


def arguments(function: Callable) -> dict[str, Parameter]:
    """The named arguments that have a default, without ``tasks``, which belongs to every unit."""
    parameters = signature(function, eval_str=True).parameters
    return {name: p for name, p in parameters.items() if p.default is not Parameter.empty and name != "tasks"}
