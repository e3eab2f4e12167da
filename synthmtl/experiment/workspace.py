"""A run's folder: what is finished, and that it is continued by the same configuration only."""

import json
import os
import shutil
from pathlib import Path

from synthmtl.errors import InputError

OPTIONS = "options.json"
"""The file by which a folder is known as ours: the options that its content belongs to."""


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a killed process leaves the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def check_out(out: str | Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Check that :func:`open_out` may open a folder, and leave the disk as it is.

    Raises:
        InputError: if it exists and neither is asked for, both are, it is not ours, or a file is in its place.
    """
    out = Path(out)
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder")
    if out.exists() and any(out.iterdir()):
        if not resume and not overwrite:
            raise InputError(f"{out}: exists; --resume continues it, --overwrite replaces it")
        if not (out / OPTIONS).is_file():
            what = "continued" if resume else "replaced"
            raise InputError(f"{out}: exists and was not made by synthmtl, so it is not {what}; give another --out")
    return out


def open_out(out: str | Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """The folder of a run, created; an existing one is continued or replaced only on request.

    Raises:
        InputError: as :func:`check_out`, or if it cannot be made.
    """
    out = check_out(out, resume=resume, overwrite=overwrite)
    try:
        if overwrite and out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); give another --out") from None
    return out


def claim(out: Path, config: dict) -> None:
    """Record the configuration of a run, or check that it is the one recorded.

    Raises:
        InputError: if the folder belongs to another configuration; names the first option that differs.
    """
    path = out / OPTIONS
    config = json.loads(json.dumps(config))
    if path.is_file():
        recorded = json.loads(path.read_text())
        if recorded != config:
            name = _first_difference(recorded, config)
            raise InputError(f"{out}: belongs to a run with another {name}; give its options, or another --out")
    else:
        write_json(path, config)


def _first_difference(a: object, b: object, name: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *b]:
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    return f"{name} ({a} there, {b} now)"


class Unit:
    """One resumable part of a run: a folder that is finished once its ``result.json`` is there."""

    def __init__(self, out: Path, name: str):
        self.name = name
        self.directory = out / name
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def result(self) -> dict | None:
        """What :meth:`finish` recorded, or None."""
        path = self.directory / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def finish(self, result: dict) -> dict:
        """Record the result; the checkpoints that led to it are not needed any more."""
        shutil.rmtree(self.directory / "checkpoints", ignore_errors=True)
        write_json(self.directory / "result.json", result)
        return result
