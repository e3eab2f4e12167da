"""A balancing set as a Hugging Face data set with provenance, data card and contact sheet."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

import synthmtl
from synthmtl.balance.card import data_card
from synthmtl.balance.formats import (
    FORMATS,
    Face,
    FaceFiles,
    folder_of,
    png_bytes,
    shortener,
    write_metadata,
    write_shards,
)
from synthmtl.balance.result import BalancingResult
from synthmtl.balance.sheet import contact_cells, draw_sheet, new_cells, sheet_rows
from synthmtl.data.readers.metadata import SOURCE_KEY
from synthmtl.data.table import FaceTable, attribute_words
from synthmtl.data.writer import metadata_rows
from synthmtl.errors import InputError
from synthmtl.files import write_text
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.sampling import SamplingOptions

LICENSE_NOTE = "that of the source data set applies to everything derived from it."

_TYPED_BY = 5

_Named = tuple[str, Tensor, dict | None, dict]

_PROVENANCE = (
    "source_file", "source_row", "source_expression", "seed", "attempt", "generator", "below_threshold", "filtered",
)  # fmt: skip
_FLAGS = ("below_threshold", "filtered")
_TOLD = (SOURCE_KEY, "source_expression", "generator", *_FLAGS)  # what is read back as words
_TRUTH = {"True": True, "False": False}


def write_balancing_set(
    result: BalancingResult,
    directory: str | Path,
    *,
    generator: FaceGenerator,
    table: FaceTable,
    originals: bool = False,
    format: str = "imagefolder",
    files: FaceFiles | None = None,
    license_note: str = LICENSE_NOTE,
    sheet_faces: int = 8,
    draw: Callable[[Tensor, Sequence[str], Path], object] = draw_sheet,
) -> Path:
    """Write a balancing set; ``datasets.load_dataset(format, data_dir=directory)`` loads it.

    ``README.md`` (data card), ``balance.json`` and ``contact_sheet.png`` beside the faces with their labels and, for
    each synthesized one, the records of :class:`BalancingResult`. Text chunks of every synthesized PNG say so, too:
    ``synthetic``, ``generator``, ``source_file`` and ``seed``. What makes the set complete comes last: writing that was
    interrupted is done again, writing that was finished does nothing.

    - ``imagefolder``: ``train/<expression>/<name>.png`` and ``train/metadata.jsonl``;
    - ``parquet``: ``data/train-00000-of-0000N.parquet`` with the column ``image`` {bytes, path};
    - ``webdataset``: ``data/train-000000.tar``, ... with ``<name>.png``, ``.json`` and ``.cls``, the number of the
      expression in ``table.classes``.

    Args:
        result: of :func:`~synthmtl.balance.synthesize.synthesize_balancing_set`.
        directory: made if missing; it may hold the chunks.
        generator: that made the faces, for the contact sheet.
        table: the training faces that were balanced.
        originals: write them too, and what had been synthesized among them, so that the folder is a balanced data set
            by itself. What the table says of how these were made is kept, but their seeds, which its numbers do not
            hold to the last digit; they name their photograph as it is called in this table.
        format: one of :data:`~synthmtl.balance.formats.FORMATS`.
        files: what has written faces of an ``imagefolder`` while they were made.
        license_note: the card's line on the license.
        sheet_faces: rows of the contact sheet.
        draw: draws the sheet from cells (uint8 (R, 1 + K, C, H, W)), column titles and path.

    Returns:
        The directory.

    Raises:
        InputError: if there is nothing to write, the directory holds another set, the format is unknown, or its
            library is missing.
    """
    directory = Path(directory)
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}: use one of {', '.join(FORMATS)}")
    real = table if originals else table.select([])
    if not len(result.table) + len(real):
        raise InputError("no synthesized face to write: the classes are balanced, or every candidate was rejected")
    if _claim(result, directory, originals, format):
        return directory
    card = data_card(result, table, originals=originals, format=format, license_note=license_note)
    write_text(directory / "README.md", card)
    settings = result.identity["settings"]
    spread, sampling = settings["spread"], SamplingOptions(**settings.get("sampling", {}))
    if result.plan.edits:
        cells = contact_cells(generator, table, sheet_rows(table, sheet_faces), spread=spread, sampling=sampling)
    else:
        cells = new_cells(generator, sheet_faces, spread=spread, sampling=sampling)
    if len(cells):
        heads = ["source"] if result.plan.edits else []
        draw(cells, [*heads, *table.classes], directory / "contact_sheet.png")
    faces = _faces(result, real, table)
    if format == "imagefolder":
        _write_folder(directory, faces, files or FaceFiles(directory, table))
    else:
        if format == "webdataset":
            first = _telling(faces)
            rest = (face for i, face in enumerate(_faces(result, real, table)) if i not in first)
            faces = itertools.chain(first.values(), rest)
        encoded = (Face(name, png_bytes(image, record), row) for name, image, record, row in faces)
        write_shards(directory, format, encoded, len(real) + len(result.table), table.classes)
    return directory


def _telling(faces: Iterable[_Named]) -> dict[int, _Named]:
    """The first faces that have a column which none before them has, by their places.

    The library ``datasets`` takes the types of an archive's columns from its first five samples.
    """
    told: set[str] = set()
    chosen: dict[int, _Named] = {}
    for i, face in enumerate(faces):
        known = {name for name, value in face[-1].items() if value is not None}
        if not known <= told and len(chosen) < _TYPED_BY:
            chosen[i] = face
            told |= known
    return chosen


def _write_folder(directory: Path, faces: Iterator[_Named], files: FaceFiles) -> None:
    def written() -> Iterator[dict]:
        for name, image, record, row in faces:
            file = f"{folder_of(row)}/{name}.png"
            files.write(f"train/{file}", partial(png_bytes, image, record))
            yield {"file_name": file} | row

    (directory / "train").mkdir(parents=True, exist_ok=True)
    write_metadata(directory, written())


def _faces(result: BalancingResult, real: FaceTable, table: FaceTable) -> Iterator[_Named]:
    """Name, pixels, record (None for an original) and row of each face, originals first."""
    # Pixels stay where they are: only the labels are joined, for which columns the rows have is up to all of them.
    parts = [part.replace(images=part.images[:, :, :0, :0]) for part in (real, result.table)]
    labels = FaceTable.concatenate(parts)
    # A set that was balanced before brings such columns along.
    labels.attributes = {name: column for name, column in labels.attributes.items() if name not in _PROVENANCE}
    shorten = shortener(table.files)
    earlier = _earlier(real, shorten)
    for i, row in enumerate(metadata_rows(labels)):
        made = i - len(real)
        if i in earlier:
            # Faces that an earlier set brought along stay marked, in the picture, too.
            yield f"earlier-{i:06d}", real.images[i], earlier[i], row | earlier[i]
        elif made < 0:
            further = dict.fromkeys(_PROVENANCE) | {"source_file": shorten(real.files[i])}
            yield f"original-{i:06d}", real.images[i], None, row | further
        else:
            record = result.records[made] | {"source_file": shorten(result.records[made]["source_file"])}
            name = PurePosixPath(result.table.files[made]).stem
            yield name, result.table.images[made], record, row | {key: record[key] for key in _PROVENANCE}


def _earlier(table: FaceTable, shorten: Callable[[str | None], str | None]) -> dict[int, dict[str, Any]]:
    """Records of the faces that an earlier set brought along, by row: what the table says of how they were made."""
    rows = torch.where(table.synthetic)[0].tolist()
    if not rows:
        return {}
    told = {name: attribute_words(table, name) for name in _TOLD if name in table.attributes and name in table.words}
    own: list[str | None] = told.pop(SOURCE_KEY, [None] * len(table))
    photographs: dict[str | None, int] = {}
    for i in torch.where(~table.synthetic)[0].tolist():
        photographs.setdefault(own[i] or shorten(table.files[i]), i)
    records = {}
    for i in rows:
        record: dict[str, Any] = dict.fromkeys(_PROVENANCE) | {name: words[i] for name, words in told.items()}
        record |= {name: _TRUTH.get(record[name]) for name in _FLAGS}
        if "attempt" in table.attributes and not table.attributes["attempt"][i].isnan():
            record["attempt"] = int(table.attributes["attempt"][i])
        # The photograph has another name here than in the data that the earlier set was made of.
        source = photographs.get(own[i]) if own[i] else None
        record[SOURCE_KEY] = shorten(own[i] if source is None else table.files[source])
        records[i] = record | {"source_row": source}
    return records


def _claim(result: BalancingResult, directory: Path, originals: bool, format: str) -> bool:
    """Put ``balance.json`` there, or check the one that is; True if the set is there whole."""
    content = {
        **result.summary(),
        "shortfalls": result.shortfalls,
        "counts_before": result.plan.counts,
        "counts_after": {name: count + result.kept[name] for name, count in result.plan.counts.items()},
        "classes": list(result.plan.classes),
        "originals": originals,
        "format": format,
        "max_uses": result.plan.max_uses,
        "match": list(result.plan.match),
        "calibration": result.calibration.as_dict() if result.calibration else None,
        "identity": result.identity,
    }
    file = directory / "balance.json"
    whole = directory / "train" / "metadata.jsonl" if format == "imagefolder" else directory / "data"
    if not file.exists():
        if whole.exists():
            raise InputError(f"{whole}: belongs to another data set: choose another directory")
        directory.mkdir(parents=True, exist_ok=True)
        versions = {"synthmtl": synthmtl.__version__, "torch": torch.__version__}
        write_text(file, json.dumps(content | {"versions": versions}, indent=2) + "\n")
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{file}: cannot be read: delete it or choose another directory") from None
    found.pop("versions", None)
    if found != json.loads(json.dumps(content)):
        raise InputError(f"{file}: holds another balancing set: choose another directory, or delete this one")
    return whole.exists()
