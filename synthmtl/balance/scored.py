"""Two sets on disk, a real and a synthesized one, read so that they can be compared."""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from synthmtl.data.images import IMAGE_SUFFIXES
from synthmtl.data.load import read_tables
from synthmtl.data.provenance import photographs_of, sources_of
from synthmtl.data.readers.hugging_face import is_hugging_face, some_pictures
from synthmtl.data.readers.image_folder import ALL, SPLITS, contact_sheets
from synthmtl.data.readers.webdataset import Archives, is_webdataset
from synthmtl.data.sources import Source
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import ordered_classes

MAX_SIZE = 256
"""Larger faces are read at so many pixels a side."""

_LOOKED_AT = 2000  # files whose size and mode are read
_GRAY_MODES = ("1", "L", "LA", "La", "I", "F")


@dataclass
class ScoredSets:
    """What a quality card is made of.

    Attributes:
        real, synthetic: over the same classes, of one size and number of channels.
        test: real faces that stand apart; None = the data bring none along.
        source_row: (M,) int64, the real face that each synthesized one was edited from, -1 = unknown.
        filtered_by: hash of the weights of the judge that chose the synthesized faces, or None.
        notes: what was decided on the way.
    """

    real: FaceTable
    synthetic: FaceTable
    test: FaceTable | None
    source_row: Tensor
    filtered_by: str | None
    notes: list[str] = field(default_factory=list)


def read_scored_sets(real: str | Path, synthetic: str | Path) -> ScoredSets:
    """Read both sets at the smaller one's size, in gray if one of them is gray.

    Of real data with splits the training part is compared; its test part, or else its validation part, is kept apart.
    Faces marked ``synthetic`` are never taken for real ones, and those marked as real are left out of the other set.

    Args:
        real, synthetic: image folder, zip of one, FER2013's csv, a published set's folder, Parquet or WebDataset.

    Raises:
        InputError: if a set cannot be read or holds no face of its kind.
    """
    notes: list[str] = []
    looks = {"real": _look(real), "synthesized": _look(synthetic)}
    sizes = {name: look.size for name, look in looks.items()}
    size = min(*sizes.values(), MAX_SIZE)
    if len(set(sizes.values())) > 1 or size < max(sizes.values()):
        told = ", ".join(f"{name} faces are mostly of {s} px" for name, s in sizes.items())
        notes.append(f"{told}: all are read at {size} px")
    for name, look in looks.items():
        if look.sizes > 1:
            notes.append(f"{name} faces have {look.sizes} different sizes: all are read at {size} px")
    gray = {name: look.gray for name, look in looks.items()}
    channels = 1 if any(gray.values()) else 3
    if len(set(gray.values())) > 1:
        told = ", ".join(f"{name} faces are {'gray' if g else 'in color'}" for name, g in gray.items())
        notes.append(f"{told}: all are read in gray")
    tables = read_tables(real, image_size=size, channels=channels)
    name = next(name for name in ("train", ALL, *SPLITS) if name in tables)
    photographs = _kind(tables.pop(name), False, real, notes)
    if name != ALL:
        notes.append(f"real faces are those of {name}")
    held_out = next((part for part in ("test", "validation") if part in tables), None)
    test = None
    if held_out is not None:
        test = tables[held_out].select(~tables[held_out].synthetic)
        notes.append(f"real faces to test on are those of {held_out}")
    tables = read_tables(synthetic, image_size=size, channels=channels)
    made = _kind(FaceTable.concatenate(list(tables.values())), True, synthetic, notes)
    sources = sources_of(made)
    _, source_row, by_place = photographs_of(sources, [photographs])
    notes += _source_notes(sources, source_row, by_place)
    classes = ordered_classes((*photographs.classes, *made.classes))
    return ScoredSets(
        real=photographs.with_classes(classes),
        synthetic=made.replace(attributes={}).with_classes(classes),
        test=test.with_classes(classes) if test is not None and len(test) else None,
        source_row=source_row,
        filtered_by=_filtered_by(synthetic),
        notes=notes,
    )


@dataclass(frozen=True)
class _Look:
    size: int
    sizes: int
    gray: bool


def _look(path: str | Path) -> _Look:
    """Size and mode of most files of a data set, by their headers."""
    if Path(path).is_file() and Path(path).suffix.lower() == ".csv":
        return _Look(48, 1, True)
    sides: Counter[int] = Counter()
    gray: Counter[bool] = Counter()
    for data in some_pictures(path, _LOOKED_AT) if is_hugging_face(path) else _some_files(path):
        try:
            with Image.open(io.BytesIO(data)) as image:
                sides[min(image.size)] += 1
                gray[image.mode in _GRAY_MODES or image.mode.startswith("I;16")] += 1
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # reading the set says what is wrong with it
    if not sides:
        raise InputError(f"{path}: no image can be read: give a folder or zip of faces, or what balance wrote")
    return _Look(sides.most_common(1)[0][0], len(sides), gray.most_common(1)[0][0])


def _some_files(path: str | Path) -> Iterator[bytes]:
    """Image files of a folder, zip or WebDataset's archives, evenly over their names."""
    with Archives(path) if is_webdataset(path) else Source(path) as source:
        names = sorted(set(source.names) - contact_sheets(source.names))
        names = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        for name in names[:: -(-len(names) // _LOOKED_AT) or 1]:
            with contextlib.suppress(OSError, InputError):
                yield source.read(name)


def _kind(table: FaceTable, synthetic: bool, path: str | Path, notes: list[str]) -> FaceTable:
    """The synthesized or the real faces of a table."""
    marked = int(table.synthetic.sum())
    if synthetic and not marked:
        notes.append("no face of the synthesized set is marked synthetic: all are taken for it")
        return table.replace(synthetic=torch.ones(len(table), dtype=torch.bool))
    kept = table.select(table.synthetic == synthetic)
    left = len(table) - len(kept)
    if left:
        notes.append(f"left {left} {'real' if synthetic else 'synthesized'} faces out of {Path(path).name}")
    if not len(kept):
        raise InputError(f"{path}: all faces are marked synthetic: give the real ones")
    return kept


def _source_notes(sources: Sequence[str | None], rows: Tensor, by_place: Tensor) -> list[str]:
    """What the reader of a card must know about where the synthesized faces come from."""
    named, known, notes = sum(map(bool, sources)), int((rows >= 0).sum()), []
    if moved := int(by_place.sum()):
        notes.append(f"{moved} photographs that were edited go by their place in a folder that had another name then")
    if known < named:
        lost = f"{named - known} of {named} faces are edits of photographs that are not among the real faces"
        notes.append(f"{lost}: whose subject they kept is unknown")
    return notes


def _filtered_by(path: str | Path) -> str | None:
    file = Path(path) / "balance.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))["identity"]["judge"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
