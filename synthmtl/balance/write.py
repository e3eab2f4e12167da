"""A balancing set as a Hugging Face ``imagefolder`` with provenance, data card and contact sheet."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

import synthmtl
from synthmtl.balance.card import data_card
from synthmtl.balance.chunks import write_atomically
from synthmtl.balance.sheet import contact_cells, draw_sheet, sheet_rows
from synthmtl.balance.synthesize import BalancingResult
from synthmtl.data.table import FaceTable
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.sampling import SamplingOptions

LICENSE_NOTE = "that of the source data set applies to everything derived from it."


def write_balancing_set(
    result: BalancingResult,
    directory: str | Path,
    *,
    generator: FaceGenerator,
    table: FaceTable,
    originals: bool = False,
    license_note: str = LICENSE_NOTE,
    sheet_faces: int = 8,
    draw: Callable[[Tensor, Sequence[str], Path], object] = draw_sheet,
) -> Path:
    """Write a balancing set; ``datasets.load_dataset("imagefolder", data_dir=directory)`` loads it.

    ``train/<expression>/<name>.png`` and ``train/metadata.jsonl`` (labels and, for each synthesized face, the records
    of :class:`BalancingResult`), ``README.md`` (data card), ``balance.json`` and ``contact_sheet.png``. The metadata
    come last: writing that was interrupted is done again, writing that was finished does nothing.

    Args:
        result: of :func:`~synthmtl.balance.synthesize.synthesize_balancing_set`.
        directory: made if missing; it may hold the chunks.
        generator: that made the faces, for the contact sheet.
        table: the training faces that were balanced.
        originals: write them too, so that the folder is a balanced data set by itself.
        license_note: the card's line on the license.
        sheet_faces: rows of the contact sheet.
        draw: draws the sheet from cells (uint8 (R, 1 + K, C, H, W)), column titles and path.

    Returns:
        The directory.

    Raises:
        InputError: if there is nothing to write, or the directory holds another set.
    """
    directory = Path(directory)
    faces = FaceTable.concatenate([table.select(~table.synthetic), result.table]) if originals else result.table
    if not len(faces):
        raise InputError("no synthesized face to write: the classes are balanced, or every candidate was rejected")
    if _claim(result, directory, originals):
        return directory
    write_atomically(directory / "README.md", data_card(result, originals=originals, license_note=license_note))
    sampling = SamplingOptions(**result.identity["settings"].get("sampling", {}))
    cells = contact_cells(generator, table, sheet_rows(table, sheet_faces), sampling=sampling)
    if len(cells):
        draw(cells, ["source", *table.classes], directory / "contact_sheet.png")
    real = len(faces) - len(result.table)
    shorten = _shortener(table.files)
    missing = dict.fromkeys(("source_row", "source_expression", "seed", "attempt", "generator", "below_threshold"))
    copied = [{"source_file": shorten(file)} | missing for file in faces.files[:real]]
    made = [record | {"source_file": shorten(record["source_file"])} for record in result.records]
    names = [f"original-{i:06d}" for i in range(real)] + [PurePosixPath(file).stem for file in result.table.files]
    extra = [{k: v for k, v in record.items() if k != "agreement"} for record in copied + made]  # a column of the table
    write_image_folder(faces, directory, "train", names=names, extra=extra)
    return directory


def _claim(result: BalancingResult, directory: Path, originals: bool) -> bool:
    """Put ``balance.json`` there, or check the one that is; True if the set is there whole."""
    content = {
        **result.summary(),
        "counts_before": result.plan.counts,
        "counts_after": {name: count + result.kept[name] for name, count in result.plan.counts.items()},
        "originals": originals,
        "calibration": result.calibration.as_dict(),
        "identity": result.identity,
    }
    file, metadata = directory / "balance.json", directory / "train" / "metadata.jsonl"
    if not file.exists():
        if metadata.exists():
            raise InputError(f"{metadata}: belongs to another data set: choose another directory")
        directory.mkdir(parents=True, exist_ok=True)
        versions = {"synthmtl": synthmtl.__version__, "torch": torch.__version__}
        write_atomically(file, json.dumps(content | {"versions": versions}, indent=2) + "\n")
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{file}: cannot be read: delete it or choose another directory") from None
    found.pop("versions", None)
    if found != json.loads(json.dumps(content)):
        raise InputError(f"{file}: holds another balancing set: choose another directory, or delete this one")
    return metadata.exists()


def _shortener(files: Sequence[str]) -> Callable[[str | None], str | None]:
    """Names without the folders above the data, which say who keeps them where and nothing about the faces."""
    absolute = [os.path.dirname(file) for file in files if os.path.isabs(file)]
    above = os.path.dirname(os.path.commonpath(absolute)) if absolute else ""

    def shorten(file: str | None) -> str | None:
        if not file:
            return None
        return PurePosixPath(os.path.relpath(file, above)).as_posix() if os.path.isabs(file) else file

    return shorten
