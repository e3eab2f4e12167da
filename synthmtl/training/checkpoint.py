"""Checkpoints as directories that are either whole or not there.

``checkpoints/step-000123/`` holds ``weights.safetensors`` (all players), ``training.pt`` (optimizers, moving average,
gradient scaler; tensors and numbers only, read with ``weights_only``), ``state.json`` (progress, configuration and its
fingerprint) and, once a model was chosen, ``best.safetensors``.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.files import replacing, write_tensors, write_text

_NAME = re.compile(r"step-(\d+)")


def fingerprint(configuration: Mapping[str, Any]) -> str:
    """Hash of a configuration, 16 hex digits; the order of its keys plays no role."""
    return hashlib.sha256(_canonical(configuration).encode()).hexdigest()[:16]


def latest(directory: Path | str) -> Path | None:
    """The whole checkpoint of the highest step in ``directory``, or None."""
    found = _checkpoints(Path(directory))
    return found[-1] if found else None


def distinct_state(modules: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once: a network that stands in several objectives counts under the first."""
    names: dict[int, str] = {}
    state = modules.state_dict(keep_vars=True)
    for name, tensor in state.items():
        names.setdefault(id(tensor), name)
    return {name: state[name].detach() for name in names.values()}


def load_distinct_state(modules: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy what :func:`distinct_state` gave back into the same modules.

    Raises:
        ValueError: if the names differ.
    """
    own = distinct_state(modules)
    if own.keys() != state.keys():
        raise ValueError(f"the weights differ in {', '.join(sorted(own.keys() ^ state.keys()))}")
    for name, tensor in own.items():
        tensor.copy_(state[name])


def save_checkpoint(
    directory: Path | str,
    step: int,
    *,
    modules: nn.Module,
    training: Mapping[str, Any],
    progress: Mapping[str, Any],
    configuration: Mapping[str, Any],
    best: Mapping[str, Tensor] | None = None,
    keep: int = 2,
) -> Path:
    """Write ``step-<step>``; call it in one process only.

    Everything goes to a temporary sibling that takes its name in one move at the end, so that a writer killed at any
    moment leaves the older checkpoints and nothing that could be taken for a new one.

    Args:
        directory: where the checkpoints lie.
        step: optimizer steps done.
        modules: all weights.
        training: states of tensors and plain numbers (``state_dict()`` of optimizers, ...).
        progress: what JSON can hold.
        configuration: what JSON can hold; a run with another one cannot resume from here.
        best: weights of the chosen model.
        keep: how many checkpoints stay; the oldest go.

    Returns:
        The checkpoint's directory.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    temporary, final = directory / f".step-{step:06d}", directory / f"step-{step:06d}"
    state = {
        "step": step,
        "fingerprint": fingerprint(configuration),
        "configuration": json.loads(_canonical(configuration)),
        "progress": dict(progress),
    }
    try:
        temporary.mkdir()
        write_tensors(temporary / "weights.safetensors", distinct_state(modules))
        with replacing(temporary / "training.pt") as partial:
            # Through memory, since torch's own writer does not say that the disk is full.
            buffer = io.BytesIO()
            torch.save(dict(training), buffer)
            partial.write_bytes(buffer.getbuffer())
        if best is not None:
            write_tensors(temporary / "best.safetensors", best)
        write_text(temporary / "state.json", json.dumps(state, indent=1))
    except OSError:  # what there is of it would only fill the disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _remove(final)
    os.replace(temporary, final)
    tidy(directory, keep=keep)
    return final


def tidy(directory: Path | str, *, keep: int) -> None:
    """Remove the oldest checkpoints and what a killed writer or remover left; call it in one process only.

    Args:
        directory: where the checkpoints lie.
        keep: how many checkpoints stay.
    """
    for old in _checkpoints(Path(directory))[:-keep]:
        _remove(old)
    _remove_leftovers(Path(directory))


def load_checkpoint(
    path: Path | str, *, modules: nn.Module, configuration: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor] | None]:
    """Put the weights of a checkpoint into ``modules`` and return ``(training, progress, best)`` as they were saved.

    Raises:
        InputError: if the checkpoint belongs to a run with another configuration, or is damaged.
    """
    path = Path(path)
    try:
        state = json.loads((path / "state.json").read_text())
        saved, given = state["configuration"], json.loads(_canonical(configuration))
        if state["fingerprint"] != fingerprint(configuration):
            changes = "; ".join(_changes(saved, given)) or "other versions of the settings"
            raise InputError(
                f"{path} was made with another configuration ({changes}); "
                "resume with the same settings, or start anew in another directory"
            )
        training = torch.load(path / "training.pt", map_location="cpu", weights_only=True)
        best = load_file(path / "best.safetensors") if (path / "best.safetensors").exists() else None
        load_distinct_state(modules, load_file(path / "weights.safetensors"))
    except InputError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"checkpoint {path} cannot be read ({reason}); delete it to go on from the one before"
        ) from error
    return training, state["progress"], best


def _checkpoints(directory: Path) -> list[Path]:
    found = [(int(match[1]), path) for path in directory.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / "state.json").is_file()]


def _remove_leftovers(directory: Path) -> None:
    for leftover in directory.glob(".step-*"):
        shutil.rmtree(leftover)


def _canonical(configuration: Mapping[str, Any]) -> str:
    return json.dumps(configuration, sort_keys=True, default=str)


def _changes(saved: Any, given: Any, name: str = "") -> list[str]:
    """``name: saved -> given`` of each setting that differs."""
    if isinstance(saved, dict) and isinstance(given, dict):
        keys = sorted(saved.keys() | given.keys())
        parts = [_changes(saved.get(k), given.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [change for part in parts for change in part]
    return [] if saved == given else [f"{name}: {saved} there, {given} here"]


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint, if it is there; killed meanwhile, it leaves none that looks whole."""
    if checkpoint.exists():
        hidden = checkpoint.with_name(f".{checkpoint.name}-old")
        os.replace(checkpoint, hidden)
        shutil.rmtree(hidden)
