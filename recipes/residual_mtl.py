r"""Landmarks and expression in one network that exchanges residuals (Chen et al., Pattern Recognition 115, 2021).

A reconstruction, see ``synthmtl.models.ResidualMTL``. Does the residual path help beyond the extra labels, and does
association help data sets that carry one kind of label? Every variant is trained by the same seeds on the same faces:

    residual_mtl         residual modules both ways, association learning
    without_residual     the same without residual modules: what is common is the first stages
    without_association  the same without association learning
    single_expression, single_landmarks    one task, one branch

    accelerate launch recipes/residual_mtl.py --config recipes/configs/residual_mtl_rendered_cpu.yaml --out runs/rmtl

Data sets with one kind of label each, as in the paper: ``residual_mtl_mixture.yaml`` (FER2013, the London set and
rendered faces) and ``residual_mtl_published.yaml``. ``--model.sharing NAME`` takes any sharing unit. On a machine
without GPU, several processes need ``accelerate launch --multi_gpu --num_processes 2``. ``--resume`` continues an
interrupted run; ``--preset smoke`` proves the installation. Scores and times: recipes/RESULTS.md.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.options import recipe_options, recipe_parser
from synthmtl.commands.systems import say_system
from synthmtl.data import FaceTable
from synthmtl.models import ResidualMTL
from synthmtl.systems import LossOptions, System, SystemModel, SystemOptions, build_objective, run_system

VARIANTS = {
    "residual_mtl": {},
    "without_residual": {"model.sharing": "none"},
    "without_association": {"losses.association": 0.0},
    "single_expression": {"model.tasks": ["expression"], "losses.association": 0.0},
    "single_landmarks": {"model.tasks": ["landmarks"], "losses.association": 0.0},
}


@dataclass
class Model(SystemModel):
    """The network.

    Attributes:
        shared_stages: stages that the tasks have in common; null = those of the size.
    """

    tasks: list[str] = field(default_factory=lambda: ["expression", "landmarks"])
    sharing: str = "residual"
    shared_stages: int | None = None


@dataclass
class Options(SystemOptions):
    """The recipe's options.

    Attributes:
        model: the network.
    """

    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(VARIANTS))
    losses: LossOptions = field(default_factory=lambda: LossOptions(association=0.5))
    model: Model = field(default_factory=Model)


def build(options: Options, faces: FaceTable) -> System:
    """A row's network and what it minimizes."""
    chosen = options.model
    stages = {} if chosen.shared_stages is None else {"shared_stages": chosen.shared_stages}
    model = ResidualMTL.sized(
        chosen.size,
        classes=faces.classes,
        **chosen.arguments(),
        association=options.losses.association > 0,
        image_size=options.image_size,
        image_channels=faces.channels,
        **stages,
    )
    return System(model, build_objective(model, options.losses, faces))


def main() -> None:
    """Options from the command line and ``--config``."""
    given = recipe_parser(Options, prog="residual_mtl.py").parse_args()
    options = recipe_options(Options, given)
    results = run_system(
        options, build, Path(given.out), title="Residual multi-task learning",
        resume=given.resume, overwrite=given.overwrite,
    )  # fmt: skip
    say_system(results, given.out)


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
