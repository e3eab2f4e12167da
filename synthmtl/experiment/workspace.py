"""A run's folder: what is finished, and that it is continued by the same configuration only."""

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.files import write_text
from synthmtl.training.config import SAVING

logger = logging.getLogger("synthmtl")

OPTIONS = "options.json"
"""The file by which a folder is known as ours: the options that its content belongs to."""

DATA = "data.json"
"""The faces that its content belongs to, in short."""

FACES = ("data", "path", "balanced")
"""Options of commands and recipes that name folders of faces, in which everything is read."""


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a killed process leaves the old file or the new one, never half of it."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def check_out(out: str | Path, *, resume: bool = False, overwrite: bool = False, options: object = None) -> Path:
    """Check that :func:`open_out` may open a folder, and leave the disk as it is.

    Args:
        out: the folder.
        resume: whether it is continued.
        overwrite: whether it is replaced.
        options: dictionaries and lists of what the command was given; nothing of what they name is replaced, and
            nothing put into the folders of faces among them (:data:`FACES`).

    Raises:
        InputError: if it exists and neither is asked for, both are, it is not ours, holds what is read or lies in a
            folder of faces that is, a file is in its place, or it may not be written.
    """
    out = Path(out)
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder")
    _refuse_among_faces(out, options)
    # A process that was killed while it claimed the folder leaves the file that was to become its options.
    if out.exists() and any(path.name != f".{OPTIONS}.part" for path in out.iterdir()):
        if not resume and not overwrite:
            raise InputError(f"{out}: exists; --resume continues it, --overwrite replaces it")
        if not (out / OPTIONS).is_file():
            what = "continued" if resume else "replaced"
            raise InputError(f"{out}: exists and was not made by synthmtl, so it is not {what}; give another --out")
        if overwrite:
            for _, path in _named_paths(options):
                if path.resolve().is_relative_to(out.resolve()):
                    raise InputError(f"{out}: holds {path}, which is read, so it is not replaced; give another --out")
    _check_writable(out)
    return out


def _refuse_among_faces(out: Path, options: object) -> None:
    """Refuse a folder in a folder of faces: the next reader would take what is in it for faces, or for a class."""
    for name, path in _named_paths(options):
        if name in FACES and path.resolve() in out.resolve().parents:
            raise InputError(f"{out}: lies in {path}, where all is read as faces; give another --out")


def _named_paths(options: object, name: str = "") -> Iterator[tuple[str, Path]]:
    """Files and folders that exist of those that may be named in options, with the name of the option."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _named_paths(value, key)
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _named_paths(value, name)
    elif isinstance(options, str | Path) and options:
        with suppress(OSError, ValueError):  # what is no path at all
            if (path := Path(options)).exists():
                yield name, path


def check_file(out: str | Path, *, overwrite: bool = False, kind: str = "JSON") -> Path:
    """Check that a file of results may be written when there are some, and leave the disk as it is.

    Raises:
        InputError: if it exists and is not to be replaced, a folder is in its place, or its folder may not be written.
    """
    out = Path(out)
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give the name of a {kind} file")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; --overwrite replaces it")
    _check_writable(out.parent)
    return out


def _check_writable(folder: Path) -> None:
    """Refuse a folder that may not be written, or made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder}: cannot be made, {there} is a file; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: may not be written, {there} is read-only; give another --out")


def open_out(out: str | Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """The folder of a run, created; an existing one is continued or replaced only on request.

    Raises:
        InputError: as :func:`check_out`, or if it cannot be made.
    """
    out = check_out(out, resume=resume, overwrite=overwrite)
    try:
        if overwrite and out.exists():
            _empty(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); give another --out") from None
    return out


def _empty(out: Path) -> None:
    """Remove what is in a folder; killed meanwhile, it is still known as ours."""
    for path in sorted(out.iterdir(), key=lambda path: path.name == OPTIONS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def claim(
    out: Path,
    config: dict,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    may_grow: Collection[str] = (),
    record: bool = True,
) -> None:
    """Record the configuration of a run and the faces that it reads, or check that they are those recorded.

    Args:
        out: the run's folder.
        config: its options.
        data: its faces, from :func:`describe_data`; None where they have not been read yet, or are rendered, which the
            options decide.
        may_grow: names (``grid.seeds``) of options with several values, in a list or by name, of which a later call may
            give more: what was made for the others stays good. What was recorded has to be among them.
        record: False only checks, and leaves the disk as it is.

    Raises:
        InputError: if the folder belongs to another configuration, of which the first option that differs is named, or
            to other faces, of which the first split that has changed is; or if what is recorded cannot be read.
    """
    path, config = out / OPTIONS, _that_matter(json.loads(json.dumps(config)))
    recorded = _that_matter(_recorded(path))
    grown = recorded
    for name in may_grow if recorded is not None else ():
        grown = _grow(grown, config, name.split("."))
    if grown not in (None, config):
        name = _first_difference(grown, config)
        raise InputError(f"{out}: belongs to a run with another {name}; give its options, or another --out")
    known = None if data is None else _recorded(out / DATA)
    if known is not None and data is not None:
        if recorded != config:  # what has grown may read further tables, or not all
            known, data = dict(data) | known, known | dict(data)
        _refuse_changes(out, known, data)
    if record and recorded != config:
        write_json(path, config)
    if record and data is not None and (known is None or recorded != config):
        write_json(out / DATA, data)


def _that_matter(options: Any) -> Any:
    """Options without those that may change when a run is continued: where curves are shown, what runs side by side,
    and, at any depth, how often trainings are saved.

    The number of workers decides how many threads a training has, as the number of cores does, and with it in which
    order sums are rounded: continued with another, a run is the same only up to rounding.
    """
    if not isinstance(options, dict):
        return options
    return _without_saving({name: value for name, value in options.items() if name not in ("tracker", "workers")})


def _without_saving(options: Any) -> Any:
    if not isinstance(options, dict):
        return options
    # Variants name options by the dots that lead to them.
    kept = {name: value for name, value in options.items() if name.rpartition(".")[2] not in SAVING}
    return {name: _without_saving(value) for name, value in kept.items()}


def describe_data(tables: Mapping[str, FaceTable]) -> dict[str, dict[str, Any]]:
    """What :func:`claim` compares of the faces that a run reads.

    Returns:
        {split: ``faces``, how many; ``counts``, of each expression; ``fingerprint``, of all pixels and labels}.
    """
    return {
        name: {"faces": len(table), "counts": table.counts(), "fingerprint": table.fingerprint()}
        for name, table in tables.items()
    }


def _refuse_changes(out: Path, before: Mapping[str, Mapping], now: Mapping[str, Mapping]) -> None:
    for name in [*before, *now]:
        old, new = before.get(name, {}), now.get(name, {})
        if old.get("fingerprint") == new.get("fingerprint"):
            continue
        what = f"{old.get('faces', 0)} faces then, {new.get('faces', 0)} now"
        then, counts = old.get("counts", {}), new.get("counts", {})
        moved = [c for c in {**then, **counts} if then.get(c, 0) != counts.get(c, 0)]
        if moved:
            what += f" ({', '.join(f'{c} {then.get(c, 0)} and {counts.get(c, 0)}' for c in moved)})"
        elif old.get("faces") == new.get("faces"):
            what += ", some with other pixels or labels"
        raise InputError(
            f"{out}: the data have changed since this run was begun: {name}: {what}; restore them, or start anew with "
            "--overwrite"
        )


def _recorded(path: Path) -> Any:
    """The JSON in a file, None if there is no file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: damaged; give another --out, or --overwrite") from None


def _grow(recorded: Any, config: Any, path: Sequence[str]) -> Any:
    """``recorded`` with the value at ``path`` of ``config``, if that holds all that was recorded there."""
    key = path[0]
    if not (isinstance(recorded, dict) and isinstance(config, dict) and key in recorded and key in config):
        return recorded
    old, new = recorded[key], config[key]
    if len(path) > 1:
        return recorded | {key: _grow(old, new, path[1:])}
    if isinstance(old, dict) and isinstance(new, dict):
        holds = all(name in new and new[name] == value for name, value in old.items())
    elif isinstance(old, list):  # None stands for all there are
        holds = new is None or (isinstance(new, list) and all(value in new for value in old))
    else:
        holds = False
    return recorded | {key: new} if holds else recorded


def _first_difference(a: object, b: object, name: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *b]:
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    return f"{name} ({a} there, {b} now)"


class Unit:
    """One resumable part of a run: a folder that is finished once its ``result.json`` is there, and whole."""

    def __init__(self, out: Path, name: str):
        self.name = name
        self.directory = out / name
        self.directory.mkdir(parents=True, exist_ok=True)
        if (self.directory / "result.json").is_file():  # killed while it finished, it left them
            shutil.rmtree(self.directory / "checkpoints", ignore_errors=True)

    @property
    def result(self) -> dict | None:
        """What :meth:`finish` recorded, or None."""
        path = self.directory / "result.json"
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except ValueError:
            logger.warning("%s: damaged, made again", path)
            return None

    @property
    def finished(self) -> dict:
        """The result of a part that is finished."""
        result = self.result
        assert result is not None, f"{self.directory} is not finished"
        return result

    def finish(self, result: dict) -> dict:
        """Record the result, and only then remove the checkpoints that led to it."""
        write_json(self.directory / "result.json", result)
        shutil.rmtree(self.directory / "checkpoints", ignore_errors=True)
        return result
