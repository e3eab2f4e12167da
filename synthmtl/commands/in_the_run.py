"""The data of a command as the run around its network read and split them."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from synthmtl.errors import InputError

log = logging.getLogger("synthmtl")


def as_in_the_run(options: Namespace) -> dict[str, Any]:
    """How the run around ``--model`` split its faces, so that what it held out is held out here, too; and how it read
    them, if ``--data`` is the same data.

    Raises:
        InputError: if the run's options are damaged.
    """
    run = _run_around(options)
    reading = ("format", "every", "peaks", "ferplus", "ferplus_rule") if run.same else ()
    names = ("split_seed", *reading)
    return {name: run.faces[name] for name in names if name in run.faces}


def load_as_in_the_run(
    options: Namespace,
    needed: Sequence[str],
    *,
    split_seed: int | None = None,
    on_leak: str | None = None,
    **wanted: Any,
) -> Any:
    """The ``Splits`` of ``--data``; what the run around ``--model`` split off the same data is split off as it did.

    One face more or less, and the same seed puts most faces into other splits. So what is split off is compared with
    what the run recorded; where it recorded nothing, a note says so.

    Args:
        options: with ``model`` and ``data``.
        needed: the splits that have to be the run's.
        split_seed: that of the user, whom a note tells of other splits than the run's; None = that of the run.
        on_leak: that of the user; None = that of the run.
        wanted: ``image_size``, ``channels`` and ``classes`` of the network, and what else ``load_splits`` takes.

    Raises:
        InputError: as ``load_splits``, if the run's files are damaged, or if splits that the data do not bring along
            are neither the run's nor by a seed of the user's.
    """
    from synthmtl.data.load import load_splits

    run = _run_around(options)
    how = as_in_the_run(options) | wanted | ({} if split_seed is None else {"split_seed": split_seed})
    recorded: Any = run.on_leak if run.same else on_leak or "drop"
    splits = load_splits(options.data, on_leak=recorded, **how)
    note = _other_than(run, splits.tables(), needed, wanted) if run.trained and splits.split_off else None
    if note and split_seed is None and run.known(wanted):
        cure = "restore the data, or name splits of your own by folders train, validation and test"
        cure += ", or choose a --split_seed all the same" if "split_seed" in options else ""
        raise InputError(f"{options.data}: {note}; {cure}")
    if on_leak not in (None, recorded):
        del splits  # these are what the run recorded, and need not wait in memory
        splits = load_splits(options.data, on_leak=on_leak, **how)  # type: ignore[arg-type]  # checked by the loader
    splits.notes += _warned(note)
    return splits


def note_changes(options: Namespace, split: str, table: Any) -> list[str]:
    """A note, if a split (a ``FaceTable``) that ``--data`` bring along is not the one which the run recorded."""
    run = _run_around(options)
    wanted = {"image_size": table.image_size, "channels": table.channels, "classes": table.classes}
    known = run.trained and split in run.known(wanted)
    return _warned(_other_than(run, {split: table}, [split], wanted)) if known else []


def _warned(note: str | None) -> list[str]:
    if note:
        log.warning(note)
    return [note] if note else []


@dataclass(frozen=True)
class _Run:
    """The run around ``--model``.

    Attributes:
        folder: of the run; None = there is none.
        faces: its options of ``--data``, or of its faces if these are others.
        same: whether ``--data`` are its data.
        record: what it recorded of them by split, as ``describe_data`` says it; nothing of others.
    """

    folder: Path | None = None
    faces: Mapping[str, Any] = field(default_factory=dict)
    same: bool = False
    record: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether it trained on ``--data``; sets of a mixture may be scored only."""
        return self.same and self.faces.get("train") is not False

    @property
    def on_leak(self) -> str:
        """What its record lacks; ``error`` lets a run begin that has nothing to leave out."""
        return "warn" if self.faces.get("on_leak") == "warn" else "drop"

    def known(self, wanted: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The record, if it is of faces of this ``image_size``, with these ``channels`` and ``classes``."""
        size, color = self.faces.get("image_size"), self.faces.get("color")
        if size not in (None, wanted["image_size"]) or color not in (None, wanted["channels"] == 3):
            return {}
        classes = list(wanted["classes"])
        return {split: told for split, told in self.record.items() if list(told["counts"]) == classes}


def _run_around(options: Namespace) -> _Run:
    """The run that ``--model`` is or lies in, as it concerns ``--data``; InputError if its files are damaged."""
    from synthmtl.experiment.workspace import DATA, OPTIONS

    model = Path(options.model).resolve()  # RUN, or down to RUN/cells/NAME/seedN/model
    folder = next((folder for folder in (model, *model.parents[:4]) if (folder / OPTIONS).is_file()), None)
    if folder is None:
        return _Run()
    file, defaults = folder / OPTIONS, "read the data by the defaults"
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        sources = told.get("data")
        sources = sources if isinstance(sources, Mapping) else {}  # of a recipe; one folder of a command
        each = {"": told.get("faces") or {}, **sources}
        name = next((name for name, faces in each.items() if _is_of(faces, options.data)), None)
        if name is None:
            return _Run(folder, each[""])
        common = {key: told[key] for key in ("image_size", "color") if key in told}  # of all data sets of a recipe
        faces, record = common | each[name], {}
        if (folder / DATA).is_file():
            file, defaults = folder / DATA, "go on without"
            record = _record_of(name, faces, json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, AttributeError, TypeError):
        raise InputError(f"{file}: damaged; restore it, or delete it to {defaults}") from None
    return _Run(folder, faces, True, record)


def _is_of(faces: Mapping[str, Any], data: str) -> bool:
    return faces.get("path") is not None and Path(faces["path"]).resolve() == Path(data).resolve()


def _record_of(name: str, faces: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By split, what a run recorded of its faces, or a mixture of those of one ``name``."""
    keys = {split: f"{name}/{split}" if name else split for split in ("train", "validation", "test")}
    keys["train"] = name or "train"
    if faces.get("labels") is not None:  # all others were taken from its training faces
        del keys["train"]
    return {split: read[key] for split, key in keys.items() if key in read}


def _other_than(run: _Run, tables: Mapping[str, Any], needed: Sequence[str], wanted: Mapping[str, Any]) -> str | None:
    """What speaks against it that these tables are the splits of the run; None = nothing."""
    known = run.known(wanted)
    if not known:
        return f"{run.folder} has no record of these faces: whether it trained on some held-out ones is not known"
    compared = [split for split in needed if split in known] or list(known)
    if all(known[split]["fingerprint"] in _fingerprints(tables[split]) for split in compared):
        return None
    then, now = Counter[str](), Counter[str]()
    for split in known.keys() & tables.keys():
        then.update(known[split]["counts"])
        now.update(tables[split].counts())
    what = f"{then.total()} faces with an expression then, {now.total()} now"
    moved = [f"{name} {then[name]} and {now[name]}" for name in wanted["classes"] if then[name] != now[name]]
    what += f": {', '.join(moved)}" if moved else ", some of them others, or with other pixels or labels"
    return f"not split as in {run.folder} ({what}), which may have trained on some faces that are held out here"


def _fingerprints(table: Any) -> Iterator[str]:
    """Of a table, and of it without what may join it and moves no photograph: further attributes, edits."""
    yield table.fingerprint()
    table = table.replace(attributes={}, words={})
    yield table.fingerprint()
    if table.synthetic.any():
        yield table.select(~table.synthetic).fingerprint()
