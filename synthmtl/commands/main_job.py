"""What ``synthmtl quickstart`` and ``synthmtl run`` take and do."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.options import ConfigFile, add_out_options, generator_of, path_of, preset_of, recipe_options
from synthmtl.commands.shared import DATA_HELP


def _main_job_options(parser: ArgumentParser, argv: Sequence[str], *, rendered: bool) -> None:
    """All options of the main job, with the defaults of the preset and generator that ``argv`` names."""
    from synthmtl.experiment import MainJobConfig, preset

    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of the options below")
    add_out_options(parser)
    parser.add_class_arguments(MainJobConfig, as_group=False)
    defaults = preset(preset_of(argv), rendered=rendered, generator=generator_of(argv))
    parser.set_defaults(dataclasses.asdict(defaults))


def main_job_parser(argv: Sequence[str], *, prog: str) -> ArgumentParser:
    """The parser of a recipe that runs the main job; ``faces.path``, in ``argv`` or its file, decides whose faces."""
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    _main_job_options(parser, argv, rendered=not path_of(argv))
    return parser


def main_job_config(options: Namespace) -> Any:
    """The options of a parsed command line as a ``MainJobConfig``."""
    from synthmtl.experiment import MainJobConfig

    return recipe_options(MainJobConfig, options)


def print_scores(report: dict) -> None:
    """One line a method: macro-F1 with its interval, and accuracy; from the main process only."""
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    for name, scores in report["methods"].items():
        low, high = scores["ci95"]["macro_f1"]
        print(
            f"{name:15s} macro-F1 {scores['macro_f1']:.3f} [{low:.3f}, {high:.3f}]  accuracy {scores['accuracy']:.3f}"
        )


def configure_quickstart(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the main job on rendered faces."""
    _main_job_options(parser, argv, rendered=True)


def configure_run(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the main job on the user's faces."""
    parser.add_argument("--data", type=str, required=True, help=DATA_HELP)
    _main_job_options(parser, argv, rendered=False)


def run_main_job_command(options: Namespace) -> None:
    """Run the main job of a parsed command line, and print its scores."""
    from synthmtl.experiment import run_main_job

    config = main_job_config(options)
    if "data" in options:
        config.faces.path = options.data
    report = run_main_job(config, Path(options.out), resume=options.resume, overwrite=options.overwrite)
    print_scores(report)
    print(f"report: {Path(options.out) / 'report.html'}")
