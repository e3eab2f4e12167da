"""Options of the command line as dataclasses: what commands and recipes share."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from synthmtl.commands.talk import add_quiet_option, heed_quiet
from synthmtl.errors import InputError

_MISSING = object()


class ConfigFile(ActionConfigFile):
    """``--config FILE.yaml``, which says it if the file is no text."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        try:
            super().__call__(parser, cfg, values, option_string)
        except UnicodeDecodeError:
            raise InputError(f"{values}: not UTF-8 text: give a YAML file") from None


def new_parser(**about: Any) -> ArgumentParser:
    """A parser that raises instead of ending the process, and takes options by their whole name only.

    Defaults depend on options that are looked for before they are parsed, and abbreviations would be overlooked.
    """
    return ArgumentParser(exit_on_error=False, allow_abbrev=False, **about)


def add_out_options(parser: ArgumentParser, what: str = "folder for everything that is made") -> None:
    """``--out``, ``--resume`` and ``--overwrite``."""
    parser.add_argument("--out", type=str, required=True, help=what)
    parser.add_argument("--resume", action="store_true", help="continue what an earlier call left in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --out")


def preset_of(argv: Sequence[str]) -> str:
    """The preset in ``argv``, or in a file that it names, before either is parsed.

    Presets set the defaults of every other option. What is wrong with a file is left for the parser to say.
    """
    return _early(argv, "preset", "quick")


def generator_of(argv: Sequence[str], default: str = "gan") -> str:
    """The ``model.generator``, on which defaults depend too, as :func:`preset_of` finds the preset."""
    return _early(argv, "model.generator", default)


def path_of(argv: Sequence[str]) -> str:
    """The ``faces.path``, which decides between the presets for rendered and for other faces; empty = rendered."""
    return _early(argv, "faces.path", "")


def _early(argv: Sequence[str], name: str, default: str) -> str:
    """What the parser will find for ``name``: of all that sets it, options and files, the last."""
    found = None
    for option, text in _pairs(argv):
        if option == name:
            value: Any = None if text == "null" else text
        elif option == "config" or name.startswith(f"{option}."):
            value = _within(_loaded(text), name if option == "config" else name.removeprefix(f"{option}."))
        else:
            continue
        found = found if value is _MISSING else value
    return default if found is None else str(found)


def _pairs(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options with their values, from ``--name value`` and ``--name=value``."""
    for part, following in itertools.zip_longest(argv, argv[1:], fillvalue="--"):
        if part.startswith("--"):
            option, assigned, value = part.removeprefix("--").partition("=")
            if assigned or not following.startswith("--"):
                yield option, value if assigned else following


def _loaded(text: str) -> Any:
    """What is written in YAML, in ``text`` or in the file of that name; None if it is neither."""
    try:
        return yaml.safe_load(Path(text).read_text() if Path(text).is_file() else text)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _within(values: Any, name: str) -> Any:
    """The value at ``name``, whose parts may be keys of their own or one key; ``_MISSING`` if there is none."""
    if not isinstance(values, dict):
        return _MISSING
    if name in values:
        return values[name]
    head, _, rest = name.partition(".")
    return _within(values.get(head), rest) if rest else _MISSING


def recipe_parser(kind: type, *, prog: str) -> ArgumentParser:
    """The parser of a recipe whose options are a dataclass, beside ``--config``, ``--out``, ``--resume``, ..."""
    parser = new_parser(prog=prog)
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
