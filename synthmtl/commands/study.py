"""What ``synthmtl study`` takes and does."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.options import ConfigFile, add_out_options, new_parser, preset_of, recipe_options
from synthmtl.commands.talk import add_json_option, add_quiet_option, tell

SAID = {
    "macro_f1": "macro-F1",
    "synthesis_error": "synthesis error",
    "mean_f1": "action units F1",
    "nme": "NME",
    "ccc": "CCC",
}
"""Scores as a line of the terminal names them."""


def configure_study(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the study, with the defaults of the preset that ``argv`` names."""
    from synthmtl.study import StudyConfig, preset

    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of the options below")
    add_out_options(parser)
    add_json_option(parser)
    parser.add_class_arguments(StudyConfig, as_group=False)
    parser.set_defaults(dataclasses.asdict(preset(preset_of(argv))))


def study_parser(argv: Sequence[str], *, prog: str) -> ArgumentParser:
    """The parser of a recipe that runs a study."""
    parser = new_parser(prog=prog)
    add_quiet_option(parser)
    configure_study(parser, argv)
    return parser


def run_study_command(options: Namespace) -> int:
    """Run the study of a parsed command line; the exit code of :func:`say_results`."""
    from synthmtl.study import StudyConfig, run_study

    config, out = recipe_options(StudyConfig, options), Path(options.out)
    return say_results(options, run_study(config, out, resume=options.resume, overwrite=options.overwrite))


def say_results(options: Namespace, results: dict | None) -> int:
    """Print what came out, and the cells that failed on stderr; 1 if any did, else 0.

    Args:
        options: of the parsed command line.
        results: of ``run_study``; None in a process whose launcher has another one that says it.
    """
    if results is None:
        return 0
    out = Path(options.out)
    files = {"out": str(out), "report": str(out / "report.html"), "json": str(out / "results.json")}
    summary = files | {key: results[key] for key in ("summary", "comparisons", "failed", "notes")}
    tell(options, summary, *_lines(results), f"report: {files['report']}")
    failed = results["failed"]
    for cell in failed:
        print(f"synthmtl: cell {cell['name']} failed: {cell['error']}", file=sys.stderr)
    if failed:
        total = len(failed) + len(results["cells"])
        print(f"synthmtl: {len(failed)} of {total} cells failed; --resume tries them again", file=sys.stderr)
    return 1 if failed else 0


def _lines(results: dict) -> list[str]:
    """One for each method and condition: the tasks' scores with their intervals, and the gain."""
    lines = []
    for entry in results["summary"]:
        labels = "" if entry["labels_per_class"] is None else f"  labels {entry['labels_per_class']}"
        first = "" if entry["schedule"] == "joint" else f"  {entry['schedule']}"
        said = [f"rho {entry['rho']:g}{labels}{first}  {entry['method']:15s}"]
        for metric in (task["metric"] for task in results["tasks"]):
            if (value := entry["metrics"].get(metric)) is not None:
                name = SAID.get(metric, metric)
                said.append(f"{name} {value['mean']:.3f} [{value['ci95'][0]:.3f}, {value['ci95'][1]:.3f}]")
        if entry["gain"] is not None and entry["gain"]["overall"]["delta"] is not None:
            said.append(f"gain {100 * entry['gain']['overall']['delta']:+.1f} %")
        lines.append("  ".join(said))
    return lines
