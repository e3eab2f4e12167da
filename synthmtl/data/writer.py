"""A face table → Hugging Face's ``imagefolder``: ``<split>/<expression>/<name>.png`` and ``<split>/metadata.jsonl``."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from synthmtl.data.images import pillow_image
from synthmtl.data.readers.columns import SOURCE_KEY, known_key, plain_key
from synthmtl.data.readers.published import unit_name
from synthmtl.data.table import FaceTable, attribute_words
from synthmtl.errors import InputError
from synthmtl.files import replacing
from synthmtl.labels import ACTION_UNITS, COMPOUND_EXPRESSIONS

UNLABELED = "unlabeled"
"""Folder of faces without an expression."""


def write_image_folder(
    table: FaceTable,
    root: str | Path,
    split: str = "train",
    *,
    names: Sequence[str] | None = None,
    extra: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write every face and every label that is there, so that reading it gives the same table to the bit.

    The metadata file comes last and in one piece: a folder without it is unfinished and may be written again.
    Labels that no face of the table has are left out; a label that one face lacks is ``null`` there. The splits of one
    root should have the same labels and extra columns, or Hugging Face's loader refuses them (this suite's does not).

    Args:
        table: N faces.
        root: folder of the data set, made if need be; other splits in it are not touched.
        split: ``train``, ``validation`` or ``test``.
        names: N file names without suffix, unique; None = six-digit row numbers.
        extra: N further columns by name, such as provenance, that JSON can hold. All-number columns are read back as
            attributes.

    Returns:
        The path of ``metadata.jsonl``.

    Raises:
        InputError: if the split is there already, names repeat or are no plain file names, or an attribute or a column
            of ``extra`` has the name of a label, however it is spelled.
    """
    folder = Path(root) / split
    metadata = folder / "metadata.jsonl"
    if metadata.exists():
        raise InputError(f"{metadata}: exists already: choose another folder or delete this one")
    if names is None:
        names = [f"{i:06d}" for i in range(len(table))]
    if len(names) != len(table) or len(set(names)) != len(names):
        raise InputError(f"{len(names)} file names ({len(set(names))} different) for {len(table)} faces: give one each")
    for name in names:
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise InputError(f"{name!r} is no plain file name: give names without folders that do not start with a dot")
    if extra is not None and len(extra) != len(table):
        raise InputError(f"{len(extra)} rows of extra columns for {len(table)} faces: give one each")
    rows = list(metadata_rows(table))
    classes = [UNLABELED if index < 0 else table.classes[index] for index in table.expression.tolist()]
    for name in set(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(metadata) as partial, partial.open("w", encoding="utf-8") as stream:
        for i, (row, name, expression) in enumerate(zip(rows, names, classes, strict=True)):
            file_name = f"{expression}/{name}.png"
            further = dict(extra[i]) if extra is not None else {}
            taken = sorted(key for key in further if key in row or _is_label(key))
            if taken:
                raise InputError(f"extra column {taken[0]!r} has the name of a label: choose another name")
            with replacing(folder / file_name, flush=False) as face:
                pillow_image(table.images[i]).save(face, "PNG")
            stream.write(json.dumps({"file_name": file_name} | row | further, allow_nan=False) + "\n")
        stream.flush()
        os.sync()  # the faces must be on the disk before the metadata that vouch for them
    return metadata


def metadata_rows(table: FaceTable) -> Iterator[dict[str, Any]]:
    """The labels of each face as JSON values, under the names that the reader of image folders knows.

    Raises:
        InputError: if an attribute has the name of a label, and would be read back as it.
    """
    columns: dict[str, list] = {
        "expression": [None if index < 0 else table.classes[index] for index in table.expression.tolist()],
        "synthetic": table.synthetic.tolist(),
    }
    if bool((table.compound >= 0).any()):
        columns["compound"] = [None if i < 0 else COMPOUND_EXPRESSIONS[i] for i in table.compound.tolist()]
    for name in ("subject", "session"):
        column = getattr(table, name)
        if bool((column >= 0).any()):
            columns[name] = [None if value < 0 else value for value in column.tolist()]
    for i, name in enumerate(("valence", "arousal")):
        _add(columns, name, table.valence_arousal[:, i])
    for i, name in enumerate(ACTION_UNITS):
        _add(columns, name, table.action_units[:, i])
    if not bool(table.landmarks.isnan().all()):
        columns["landmarks"] = [
            None if bool(points.isnan().all()) else [_json(point) for point in points.tolist()]
            for points in table.landmarks
        ]
    if not bool(table.expression_distribution.isnan().all()):
        columns["expression_distribution"] = [
            None if any(map(math.isnan, shares)) else dict(zip(table.classes, shares, strict=True))
            for shares in table.expression_distribution.tolist()
        ]
    if bool((table.weight != 1).any()):
        columns["weight"] = table.weight.tolist()
    if bool((table.domain != 0).any()):
        columns["domain"] = table.domain.tolist()
    for name, column in table.attributes.items():
        if name in columns or _is_label(name):
            raise InputError(f"attribute {name!r} has the name of a label: rename it")
        if name in table.words:  # an empty text is a missing one, so that the column is text all through
            words = [word or "" for word in attribute_words(table, name)]
            columns |= {name: words} if any(words) else {}
        else:
            _add(columns, name, column)
    for i in range(len(table)):
        yield {name: column[i] for name, column in columns.items()}


def _is_label(name: str) -> bool:
    """Whether the reader takes a column for a label, or for the source of an edit under another spelling."""
    unit = unit_name(name) if plain_key(name).startswith("au") else None
    return unit in ACTION_UNITS or (known_key(name) is not None and name != SOURCE_KEY)


def _add(columns: dict[str, list], name: str, values: Tensor) -> None:
    if not bool(values.isnan().all()):
        columns[name] = _json(values.tolist())


def _json(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]
