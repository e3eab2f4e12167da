"""What a study pits against each other: recognition and synthesis, or tasks that heads of one network predict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthmtl.metrics.multitask import HEADLINES

HEADS = ("expression", "action_units", "landmarks", "valence_arousal")
"""Tasks of which any two or more can be studied."""

EDITING = ("expression", "synthesis")
"""The tasks of a network with two branches and a decoder; all others are heads."""


@dataclass(frozen=True)
class StudyTask:
    """A task of a study.

    Attributes:
        name: by which gains and losses are called.
        metric: its score among a cell's metrics.
        lower_is_better: whether that is an error.
    """

    name: str
    metric: str
    lower_is_better: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As results state it."""
        return {"task": self.name, "metric": self.metric, "lower_is_better": self.lower_is_better}


def study_tasks(tasks: Sequence[str]) -> tuple[StudyTask, ...]:
    """The tasks by the names that ``StudyConfig.tasks`` gives them."""
    if is_editing(tasks):
        return StudyTask("recognition", "macro_f1"), StudyTask("synthesis", "synthesis_error", lower_is_better=True)
    return tuple(StudyTask(task, HEADLINES[task], lower_is_better=task == "landmarks") for task in tasks)


def is_editing(tasks: Sequence[str]) -> bool:
    """Whether they are recognition and synthesis."""
    return tuple(tasks) == EDITING


NEEDED = {"landmarks": ("expression", "yaw")}
"""What of expression, subject, yaw and light a task needs, for the filtering ratio; the others need the expression."""


def needed_by(task: str) -> tuple[str, ...]:
    """What probes should still be able to read where ``task`` is predicted."""
    return NEEDED.get(task, ("expression",))
