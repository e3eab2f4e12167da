"""Options of the command line as dataclasses: what commands and recipes share."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from synthmtl.commands.talk import add_quiet_option, heed_quiet
from synthmtl.errors import InputError


class ConfigFile(ActionConfigFile):
    """``--config FILE.yaml``, which says it if the file is no text."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        try:
            super().__call__(parser, cfg, values, option_string)
        except UnicodeDecodeError:
            raise InputError(f"{values}: not UTF-8 text: give a YAML file") from None


def add_out_options(parser: ArgumentParser, what: str = "folder for everything that is made") -> None:
    """``--out``, ``--resume`` and ``--overwrite``."""
    parser.add_argument("--out", type=str, required=True, help=what)
    parser.add_argument("--resume", action="store_true", help="continue what an earlier call left in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --out")


def preset_of(argv: Sequence[str]) -> str:
    """The preset in ``argv``, or in the file that its ``--config`` names, before either is parsed.

    Presets set the defaults of every other option. What is wrong with the file is left for the parser to say.
    """
    return _early(argv, "preset", "quick")


def generator_of(argv: Sequence[str], default: str = "gan") -> str:
    """The ``model.generator``, on which defaults depend too, as :func:`preset_of` finds the preset."""
    return _early(argv, "model.generator", default)


def path_of(argv: Sequence[str]) -> str:
    """The ``faces.path``, which decides between the presets for rendered and for other faces; empty = rendered."""
    return _early(argv, "faces.path", "")


def _early(argv: Sequence[str], name: str, default: str) -> str:
    given = _given(argv, f"--{name}")
    config = _given(argv, "--config")
    if given is None and config is not None and Path(config).is_file():
        try:
            given = yaml.safe_load(Path(config).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            given = None
        for key in name.split("."):
            given = given.get(key) if isinstance(given, dict) else None
    return default if given is None else str(given)


def _given(argv: Sequence[str], option: str) -> str | None:
    for i, part in enumerate(argv):
        if part == option and i + 1 < len(argv):
            return argv[i + 1]
        if part.startswith(f"{option}="):
            return part.split("=", 1)[1]
    return None


def recipe_parser(kind: type, *, prog: str) -> ArgumentParser:
    """The parser of a recipe whose options are a dataclass, beside ``--config``, ``--out``, ``--resume``, ..."""
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of the options below")
    add_out_options(parser)
    add_quiet_option(parser)
    parser.add_class_arguments(kind, as_group=False)
    return parser


def recipe_options(kind: type, options: Namespace) -> Any:
    """The options of a parsed command line as the recipe's dataclass; ``--quiet`` takes effect from here on."""
    heed_quiet(options)
    return instantiate(kind, {f.name: options[f.name] for f in dataclasses.fields(kind)})


def instantiate(kind: type, values: Any) -> Any:
    """A dataclass from nested namespaces; a value that it refuses is the user's to put right."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "it")
    plain = values.as_dict() if isinstance(values, Namespace) else values
    plain = {key: value.as_dict() if isinstance(value, Namespace) else value for key, value in plain.items()}
    return parser.instantiate(parser.parse_object({"it": plain})).it
