r"""Expressions and action units from data that are labelled for some tasks only (Pons and Masip, arXiv 1802.06664).

One network with a head for each task, trained by a loss over the labels that each face carries; see
``synthmtl.models.SJMT`` and ``synthmtl.losses.HeterogeneousLoss`` for what is reconstruction. The three trainings that
the paper compares, by the same seeds:

    selective             every face trains the tasks that it is labelled for
    classical             only faces with the labels of all tasks
    single_expression, single_action_units    one task alone, on every face with its label

``compound_head`` adds a head for compound expressions; elsewhere they are read out from the two strongest basic
expressions and the action units.

    accelerate launch recipes/sjmt.py --config recipes/configs/sjmt_rendered_cpu.yaml --out runs/sjmt
    accelerate launch recipes/sjmt.py --config recipes/configs/sjmt_rendered_cpu.yaml --only "[classical]" --out runs/c

Further data: ``sjmt_mixture.yaml`` (FER2013, the London set and rendered faces) and ``sjmt_published.yaml``.
``--model.sharing NAME`` takes any sharing unit. On a machine without GPU, several processes need
``accelerate launch --multi_gpu --num_processes 2``. ``--resume`` continues an interrupted run; ``--preset smoke``
proves the installation. Scores and times: recipes/RESULTS.md.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.options import recipe_options, recipe_parser
from synthmtl.commands.systems import say_system
from synthmtl.data import FaceTable
from synthmtl.models import SJMT, read_out
from synthmtl.systems import System, SystemModel, SystemOptions, build_objective, run_system

VARIANTS = {
    "selective": {},
    "classical": {"labelled": "all"},
    "single_expression": {"model.tasks": ["expression"]},
    "single_action_units": {"model.tasks": ["action_units"]},
}


@dataclass
class Model(SystemModel):
    """The network.

    Attributes:
        shared_stages: stages that the tasks have in common, where the unit gives each its own branch.
    """

    tasks: list[str] = field(default_factory=lambda: ["expression", "action_units"])
    shared_stages: int = 0


@dataclass
class Options(SystemOptions):
    """The recipe's options.

    Attributes:
        model: the network.
    """

    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(VARIANTS))
    model: Model = field(default_factory=Model)


def build(options: Options, faces: FaceTable) -> System:
    """A row's network, what it minimizes, and how its compound expressions are read."""
    chosen = options.model
    model = SJMT.sized(
        chosen.size,
        classes=faces.classes,
        **chosen.arguments(),
        shared_stages=chosen.shared_stages,
        image_size=options.image_size,
        image_channels=faces.channels,
    )

    def read(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if "compound" in outputs or "expression" not in outputs:
            return outputs
        return outputs | {"compound": read_out(outputs["expression"], outputs.get("action_units"), model.classes)}

    return System(model, build_objective(model, options.losses, faces), read)


def main() -> None:
    """Options from the command line and ``--config``."""
    given = recipe_parser(Options, prog="sjmt.py").parse_args()
    options = recipe_options(Options, given)
    results = run_system(
        options, build, Path(given.out), title="Selective joint multi-task learning",
        resume=given.resume, overwrite=given.overwrite,
    )  # fmt: skip
    say_system(results, given.out)


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
