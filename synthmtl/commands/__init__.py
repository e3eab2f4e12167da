"""What each command of ``synthmtl`` takes and does; the work itself is done by the rooms.

Rooms are imported where they are needed, so that help and bad usage answer at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.balance import configure_balance, run_balance
from synthmtl.commands.faces import configure_inspect, configure_render, run_inspect, run_render
from synthmtl.commands.main_job import configure_quickstart, configure_run, run_main_job_command
from synthmtl.commands.networks import (
    configure_evaluate,
    configure_predict,
    configure_synthesize,
    run_evaluate,
    run_predict,
    run_synthesize,
)
from synthmtl.commands.score import configure_score, run_score
from synthmtl.commands.study import configure_study, run_study_command


@dataclass(frozen=True)
class Command:
    """A command: one sentence for the help, its options, and the call, which may return an exit code."""

    about: str
    configure: Callable[[ArgumentParser, Sequence[str]], None]
    call: Callable[[Namespace], int | None]


COMMANDS = {
    "quickstart": Command("the main job on rendered faces, to a report", configure_quickstart, run_main_job_command),
    "run": Command("the main job on your faces, to a report", configure_run, run_main_job_command),
    "balance": Command("write a balanced data set with a trained generator", configure_balance, run_balance),
    "evaluate": Command("score a trained network on a split", configure_evaluate, run_evaluate),
    "predict": Command("recognize expressions, one JSON line an image", configure_predict, run_predict),
    "synthesize": Command("edit faces to another expression", configure_synthesize, run_synthesize),
    "render": Command("write rendered faces with every label", configure_render, run_render),
    "inspect": Command(
        "counts, sizes, missing labels, corrupt files, duplicates, leaks", configure_inspect, run_inspect
    ),
    "score": Command("the quality card of a synthesized set", configure_score, run_score),
    "study": Command("which sharing helps, which harms, and what a gate filters", configure_study, run_study_command),
}
"""Commands by name, in the order of the help."""
