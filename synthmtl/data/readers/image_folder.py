"""Image folders: ``split/<expression>/*`` or ``<expression>/*``, with or without metadata, as a folder or a zip.

The layout is that of Hugging Face's ``imagefolder``. Labels come from the folders' names (``unlabeled`` for faces that
have none), from ``metadata.csv`` or ``metadata.jsonl`` (at the root or in any folder; see ``readers.metadata``), or
from both where they agree. The folder, or any folder or picture in it, may be a link to another disk; names in
metadata may not lead out of the folder.
"""

import logging
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from synthmtl.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, central_square
from synthmtl.data.readers.columns import LABEL_KEYS, near_misses
from synthmtl.data.readers.metadata import (
    METADATA_NAMES,
    Complain,
    Record,
    label_columns,
    parse_metadata,
    raise_input_error,
)
from synthmtl.data.readers.split_names import canonical_split, plain_name
from synthmtl.data.sources import Source, decode_faces, refuse_bad, report_bad, report_hints, report_ignored
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import AFFECTNET_CODES, EXPRESSIONS, canonical_expression, ordered_classes

logger = logging.getLogger("synthmtl")

SPLITS = ("train", "validation", "test")
ALL = "all"
"""The key of the one table of a data set without splits."""

LAYOUT = "give a folder or zip with split/<expression>/* or <expression>/* (png, jpg, ...), or a metadata.csv"
"""What to give where no faces are found."""

UNLABELED = ("unlabeled", "unlabelled", "no_label", "no_labels", "none", "unknown")
"""Names (as ``plain_name`` gives them) of a folder in the place of an expression's, for faces without one."""

_CODES = frozenset(map(str, AFFECTNET_CODES))
_NUMBERED = (
    "; numbers tell nobody whose codes they are: rename the folders, or, if these are AffectNet's, 0 neutral, "
    "1 happiness to 7 contempt, name that format (--faces.format affectnet; inspect: --format affectnet)"
)


class HasExpression(Protocol):
    """A face as a data set lists it, of which only the expression (or None) matters."""

    expression: str | None


AnyFace = TypeVar("AnyFace", bound=HasExpression)


@dataclass(slots=True)
class Face:
    """A face that a data set lists: its file, split (or ``all``), expression (or None) and metadata row (or None)."""

    name: str
    split: str
    expression: str | None
    record: Record | None


@dataclass
class Listing:
    """What an image folder holds, before a pixel is read.

    Attributes:
        faces: in the order of the metadata rows, then by name.
        absent: messages about metadata rows whose image is not there.
        ignored: image files that belong to no class and have no metadata row, or are of a format that is not read.
        renamed: spellings of classes and splits that are not the canonical ones, with what they were taken for.
        hints: messages about columns of the metadata that may have been meant for labels.
    """

    faces: list[Face] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)


def read_image_folder(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """All faces of an image folder or of a zip of one, which is read without unpacking it.

    Args:
        root: the folder or ``.zip``; a single folder that wraps everything is stepped into.
        image_size: side of the faces in pixels; see :func:`synthmtl.data.images.read_face` for crop and filter.
        channels: 1 for gray, 3 for RGB.
        classes: read only these expressions (and faces without one); None = those found in any split.
        on_bad: ``error`` refuses images that are missing or unreadable, ``skip`` logs them and goes on.

    Returns:
        A table for each of ``train``, ``validation``, ``test`` that is there, or one table under ``all``. All have
        the same classes and number subjects alike. Landmarks follow the crop of images that are not square.

    Raises:
        InputError: if there are no faces, a folder or label names no expression, metadata contradict the folders, or
            an image is bad and ``on_bad`` is ``error``.
    """
    with Source(root) as source:
        listing = list_faces(source)
        if on_bad == "error":
            refuse_bad(listing.absent, len(listing.faces) + len(listing.absent))
        if listing.ignored:
            report_ignored([source.where(name) for name in listing.ignored])
        for spelling, meaning in listing.renamed.items():
            logger.info("%s: read %r as %r", source.path, spelling, meaning)
        report_hints(listing.hints)
        faces, classes = wanted_faces(listing.faces, classes)
        if not faces:
            raise InputError(f"{source.path}: no faces found: {LAYOUT}")
        labels = label_columns([face.record for face in faces], classes, raise_input_error)
        names = [face.name for face in faces]
        marked = []
        images, sizes, bad = decode_faces(
            source,
            names,
            image_size=image_size,
            channels=channels,
            on_bad=on_bad,
            see=lambda i, face: marked.append(i) if face.synthetic else None,
        )
        mark_synthetic(labels, marked, len(faces))
        table = build_table(source, faces, classes, labels, images, sizes)
    report_bad([*listing.absent, *bad.values()], len(faces) + len(listing.absent))
    if len(bad) == len(faces):
        raise InputError(f"{source.path}: none of the {len(faces)} images can be read (first: {bad[0]})")
    return by_split(table, [face.split for face in faces], exclude=set(bad))


def contact_sheets(names: Iterable[str]) -> set[str]:
    """Of the files of a source, the contact sheets of sets that were made here, no faces that nobody labelled."""
    ours = {posixpath.dirname(name) for name in names if posixpath.basename(name) in ("balance.json", "options.json")}
    return {posixpath.join(folder, "contact_sheet.png") for folder in ours}


def mark_synthetic(labels: dict[str, Any], marked: Sequence[int], count: int) -> None:
    """Faces whose files say that they were synthesized stay so in columns of ``count``, wherever a file has gone."""
    if marked:
        synthetic = labels.setdefault("synthetic", torch.zeros(count, dtype=torch.bool))
        synthetic[list(marked)] = True


def wanted_faces(faces: Sequence[AnyFace], classes: Sequence[str] | None) -> tuple[list[AnyFace], tuple[str, ...]]:
    """The faces of the wanted expressions or of none, and the classes in canonical order."""
    found = ordered_classes(face.expression for face in faces if face.expression is not None)
    if classes is None:
        return list(faces), found
    classes = ordered_classes(classes)
    kept = [face for face in faces if face.expression is None or face.expression in classes]
    if len(kept) < len(faces):
        dropped = [name for name in found if name not in classes]
        logger.info("left out %d faces of %s, which are not wanted", len(faces) - len(kept), ", ".join(dropped))
    return kept, classes


def build_table(
    source: Source,
    faces: Sequence[Face],
    classes: tuple[str, ...],
    labels: dict,
    images: np.ndarray,
    sizes: np.ndarray,
) -> FaceTable:
    """One table of all faces, with landmarks moved from the whole image to its central square."""
    if "landmarks" in labels:
        labels = labels | {"landmarks": cropped_landmarks(labels["landmarks"], sizes)}
    index = [classes.index(face.expression) if face.expression is not None else -1 for face in faces]
    return FaceTable(
        images=torch.from_numpy(images),
        classes=classes,
        expression=torch.tensor(index, dtype=torch.int64),
        files=[source.where(face.name) for face in faces],
        **labels,
    )


def by_split(table: FaceTable, splits: Sequence[str], exclude: set[int]) -> dict[str, FaceTable]:
    """A table for each split that has a row, without the rows ``exclude``."""
    rows: dict[str, list[int]] = {name: [] for name in (*SPLITS, ALL)}
    for index, split in enumerate(splits):
        if index not in exclude:
            rows[split].append(index)
    return {name: table.select(torch.tensor(index)) for name, index in rows.items() if index}


def cropped_landmarks(landmarks: Tensor, sizes: np.ndarray) -> Tensor:
    """Landmarks (N, 68, 2) moved from whole images, (N, 2) width and height, to their central squares."""
    landmarks = landmarks.clone()
    for i in np.flatnonzero(sizes[:, 0] != sizes[:, 1]):
        width, height = sizes[i].tolist()
        left, top, right, _ = central_square(width, height)
        pixels = landmarks[i] * torch.tensor([width, height]) - torch.tensor([left, top])
        landmarks[i] = pixels / (right - left)
    return landmarks


def is_labelled_folder(root: Path) -> bool:
    """Whether a folder, at most two levels down, has metadata or folders named for expressions.

    Then it is an image folder, whatever single files of other layouts lie in it.
    """
    bases = [root, *root.glob("*/")]
    if any((base / name).is_file() for base in bases for name in METADATA_NAMES):
        return True
    return any(canonical_expression(folder.name) for base in bases for folder in base.glob("*/"))


def list_faces(source: Source, complain: Complain = raise_input_error) -> Listing:
    """The faces of a source by its names and metadata alone.

    Args:
        source: folder or zip.
        complain: called with a message for each contradiction; the face concerned is left out.

    Raises:
        InputError: through ``complain``.
    """
    relevant = [name for name in source.names if _is_image(name) or posixpath.basename(name) in METADATA_NAMES]
    base = _unwrapped(relevant)
    images = {name for name in relevant if _is_image(name)}
    sheets = contact_sheets(source.names)
    listing, complained = Listing(ignored=[name for name in source.names if _is_image(name, UNREAD_SUFFIXES)]), set()
    records = _records(source, [name for name in relevant if name not in images], images, listing, complain)
    for name in [*records, *sorted(images - records.keys())]:
        record = records.get(name)
        try:
            face = _face(name, name[len(base) :].split("/")[:-1], record, listing)
        except InputError as error:
            message = str(error) if record else f"{source.where(posixpath.dirname(name))}: {error}"
            if message not in complained:  # a wrong folder is said once, not for each of its files
                complained.add(message)
                complain(message)
            continue
        if face is None:
            if name not in sheets:
                listing.ignored.append(name)
        else:
            listing.faces.append(face)
    splits = {face.split for face in listing.faces}
    told = {"split"} if splits - {ALL} else set()
    told |= {"expression"} if any(face.expression for face in listing.faces) else set()
    columns = set(chain.from_iterable(record.values for record in records.values()))
    listing.hints = near_misses(columns, str(source.path), told=told)
    if ALL in splits and len(splits) > 1:
        stray = next(face.name for face in listing.faces if face.split == ALL)
        complain(f"{source.where(stray)}: in no split, though others are: move it below train, validation or test")
        listing.faces = [face for face in listing.faces if face.split != ALL]
    return listing


def _face(name: str, folders: list[str], record: Record | None, listing: Listing) -> Face | None:
    """One listed face, or None for an image that nothing labels; an InputError says what contradicts."""
    split = canonical_split(folders[0]) if folders else None
    if split is not None:
        _note(listing, folders.pop(0), split)
    if any(canonical_split(folder) for folder in folders):
        raise InputError("a split below another folder: put train, validation, test above the expressions")
    if record is not None and (told := record.get("split")) is not None:
        meaning = canonical_split(told)
        if meaning is None:
            raise InputError(f"{record.where}: unknown split {told!r}: use train, validation or test")
        if split is not None and meaning != split:
            raise InputError(f"{record.where}: split {told!r}, but the image lies in {split}: correct one of them")
        _note(listing, told, meaning)
        split = meaning
    expression = canonical_expression(folders[0]) if folders else None
    if expression is not None:
        _note(listing, folders[0], expression)
    says, label = False, None
    if record is not None and any(key in record.values for key in LABEL_KEYS):
        says, label = True, record.expression()
        if label is not None:
            _note(listing, next(record.get(key) for key in LABEL_KEYS if record.get(key) is not None), label)
            if expression is not None and label != expression:
                raise InputError(f"{record.where}: labelled {label!r}, but {name} lies in {folders[0]!r}: correct one")
    if folders and expression is None and not says and plain_name(folders[0]) not in UNLABELED:
        raise InputError(
            f"unknown expression folder {folders[0]!r}: use one of {', '.join(EXPRESSIONS)}, an alias, or unlabeled "
            f"for faces without an expression{_NUMBERED if folders[0] in _CODES else ''}"
        )
    if not folders and record is None:
        return None
    return Face(name, split or ALL, expression or label, record)


def _note(listing: Listing, spelling: str, meaning: str) -> None:
    if spelling != meaning:
        listing.renamed[spelling] = meaning


def _records(
    source: Source, metadata: Sequence[str], images: set[str], listing: Listing, complain: Complain
) -> dict[str, Record]:
    """Metadata rows by the image they name, in the order of files and lines."""
    records: dict[str, Record] = {}
    composed = {unicodedata.normalize("NFC", image): image for image in images}
    for file in metadata:
        try:
            rows = parse_metadata(source.read(file), source.where(file))
        except InputError as error:
            complain(str(error))
            continue
        folder = posixpath.dirname(file)
        for row in rows:
            name = posixpath.normpath(posixpath.join(folder, row.get("file_name").replace("\\", "/")))
            if name not in images:  # macOS names files with letters and their accents apart
                name = composed.get(unicodedata.normalize("NFC", name), name)
            if name.startswith(("/", "../")):
                complain(f"{row.where}: {row.get('file_name')} leaves the data folder: name files below it")
            elif name in listing.ignored:
                unread = f"{row.where}: {source.where(name)} is in a format that is not read"
                listing.absent.append(f"{unread}: delete the row or save it as PNG or JPEG")
            elif name not in images:
                listing.absent.append(f"{row.where}: no image {source.where(name)}: delete the row or add the image")
            elif name in records:
                complain(f"{row.where}: {name} has a row already ({records[name].where}): keep one of them")
            else:
                records[name] = row
    return records


def _is_image(name: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> bool:
    return name.lower().endswith(suffixes)


def _unwrapped(names: Sequence[str]) -> str:
    """The folder, with a ``/`` behind it, that wraps all files without being a split or a class; often ``""``."""
    base = ""
    while True:
        inner = [name[len(base) :] for name in names]
        tops = {name.split("/", 1)[0] for name in inner}
        if len(tops) != 1 or not all("/" in name for name in inner):
            return base
        top = tops.pop()
        rest = [name.split("/", 1)[1] for name in inner]
        layered = any("/" in name or posixpath.basename(name) in METADATA_NAMES for name in rest)
        if canonical_split(top) or canonical_expression(top) or not layered:
            return base
        base += f"{top}/"
