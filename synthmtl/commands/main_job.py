"""What ``synthmtl quickstart`` and ``synthmtl run`` take and do."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.options import (
    ConfigFile,
    add_out_options,
    generator_of,
    new_parser,
    path_of,
    preset_of,
    recipe_options,
)
from synthmtl.commands.shared import DATA_HELP
from synthmtl.commands.talk import add_json_option, add_quiet_option, tell
from synthmtl.errors import InputError


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
    parser = new_parser(prog=prog)
    add_quiet_option(parser)
    _main_job_options(parser, argv, rendered=not path_of(argv))
    return parser


def main_job_config(options: Namespace) -> Any:
    """The options of a parsed command line as a ``MainJobConfig``.

    Raises:
        InputError: if two options say where the faces are, or one is for other faces than these.
    """
    from synthmtl.experiment import MainJobConfig, preset
    from synthmtl.experiment.checks import check_faces

    config = recipe_options(MainJobConfig, options)
    if "data" in options:
        if config.faces.path not in (None, options.data):
            raise InputError(f"--faces.path is {config.faces.path}, --data is {options.data}: leave --faces.path out")
        config.faces.path = options.data
    check_faces(config.faces, preset(config.preset, rendered=config.faces.path is None).faces)
    return config


def print_scores(report: dict, out: Path | None = None) -> None:
    """One line a method: macro-F1 with its interval, and accuracy; then the page in ``out``; from one process only."""
    if _first():
        print("\n".join(_lines(report) + ([] if out is None else [_where(out)])))


def _where(out: Path) -> str:
    return f"report: {out / 'report.html'}"


def _first() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process


def _lines(report: dict) -> list[str]:
    lines = []
    for name, scores in report["methods"].items():
        low, high = scores["ci95"]["macro_f1"]
        said = f"macro-F1 {scores['macro_f1']:.3f} [{low:.3f}, {high:.3f}]  accuracy {scores['accuracy']:.3f}"
        lines.append(f"{name:15s} {said}")
    return lines


def configure_quickstart(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the main job on rendered faces, or, with a ``faces.path``, on those."""
    add_json_option(parser)
    _main_job_options(parser, argv, rendered=not path_of(argv))


def configure_run(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the main job on the user's faces."""
    parser.add_argument("--data", type=str, required=True, help=DATA_HELP)
    add_json_option(parser)
    _main_job_options(parser, argv, rendered=False)


def run_main_job_command(options: Namespace) -> None:
    """Run the main job of a parsed command line, and print its scores."""
    from synthmtl.experiment import run_main_job

    config = main_job_config(options)
    out = Path(options.out)
    report = run_main_job(config, out, resume=options.resume, overwrite=options.overwrite)
    if not _first():
        return
    scores = ("macro_f1", "accuracy", "balanced_accuracy", "ci95", "seeds")
    methods = {name: {key: entry[key] for key in scores} for name, entry in report["methods"].items()}
    files = {"out": str(out), "report": str(out / "report.html"), "json": str(out / "report.json")}
    tell(options, files | {"methods": methods, "notes": report["notes"]}, *_lines(report), _where(out))
