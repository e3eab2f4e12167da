"""Faces and their labels as columns in memory: what every reader returns and every sampler indexes."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from synthmtl.data.batch import FaceBatch
from synthmtl.data.pixels import to_unit
from synthmtl.data.storage import join_faces, keep_faces, take_faces
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, COMPOUND_EXPRESSIONS, EXPRESSIONS, canonical_expression, ordered_classes

_MISSING = {
    # column: (trailing shape, dtype, value that means "missing" or the default)
    "expression": ((), torch.int64, -1),
    "compound": ((), torch.int64, -1),
    "action_units": ((len(ACTION_UNITS),), torch.float32, float("nan")),
    "landmarks": ((68, 2), torch.float32, float("nan")),
    "valence_arousal": ((2,), torch.float32, float("nan")),
    "subject": ((), torch.int64, -1),
    "session": ((), torch.int64, -1),
    "domain": ((), torch.int64, 0),
    "weight": ((), torch.float32, 1.0),
    "synthetic": ((), torch.bool, False),
}

_DIGESTED = 16384  # rows of a column that are held in full at once


@dataclass
class FaceTable:
    """N faces of one size as columns; a column left out is filled with its "missing" value.

    Attributes:
        images: (N, C, H, W) uint8, C = 1 (gray) or 3 (RGB). 48 px gray faces need 2.3 kB each.
        classes: expression names, in the order of ``labels.EXPRESSIONS``; ``expression`` indexes them.
        expression, expression_distribution, compound, action_units, landmarks, valence_arousal, subject, domain,
            weight, synthetic: as in :class:`FaceBatch`, with N rows.
        session: (N,) int64; faces of one subject and one session share pose, light and framing, so that they can be
            paired pixel by pixel; -1 = unknown.
        attributes: further (N,) float columns by name (``yaw``, ``light_x``, ...), NaN = missing.
        files: where each face was read from, for messages and provenance.
        words: what the whole numbers of an attribute stand for (``{"gender": ("female", "male")}``), where it is text.
    """

    images: Tensor
    classes: tuple[str, ...]
    expression: Tensor = None  # type: ignore[assignment]  # never None once it is made
    expression_distribution: Tensor = None  # type: ignore[assignment]  # never None once it is made
    compound: Tensor = None  # type: ignore[assignment]  # never None once it is made
    action_units: Tensor = None  # type: ignore[assignment]  # never None once it is made
    landmarks: Tensor = None  # type: ignore[assignment]  # never None once it is made
    valence_arousal: Tensor = None  # type: ignore[assignment]  # never None once it is made
    subject: Tensor = None  # type: ignore[assignment]  # never None once it is made
    session: Tensor = None  # type: ignore[assignment]  # never None once it is made
    domain: Tensor = None  # type: ignore[assignment]  # never None once it is made
    weight: Tensor = None  # type: ignore[assignment]  # never None once it is made
    synthetic: Tensor = None  # type: ignore[assignment]  # never None once it is made
    attributes: dict[str, Tensor] = field(default_factory=dict)
    files: list[str] = None  # type: ignore[assignment]
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self):
        count = len(self.images)
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or self.images.shape[1] not in (1, 3):
            raise InputError(
                f"images must be (N, 1 or 3, H, W) uint8, not {tuple(self.images.shape)} {self.images.dtype}"
            )
        self.classes = tuple(self.classes)
        if self.classes != ordered_classes(self.classes):
            raise InputError(f"classes must be expressions in canonical order, not {self.classes}")
        for name, (shape, dtype, missing) in _MISSING.items():
            if getattr(self, name) is None:
                setattr(self, name, _filled(count, shape, missing, dtype))
        if self.expression_distribution is None:
            self.expression_distribution = _filled(count, (len(self.classes),), float("nan"), torch.float32)
        if self.files is None:
            self.files = [""] * count
        for name in (*_MISSING, "expression_distribution", "files"):
            if len(getattr(self, name)) != count:
                raise InputError(f"{name} has {len(getattr(self, name))} rows for {count} images")
        for name, classes in (("expression", self.classes), ("compound", COMPOUND_EXPRESSIONS)):
            column = getattr(self, name)
            wrong = column[(column < -1) | (column >= len(classes))]
            if len(wrong):
                raise InputError(f"{name} {int(wrong[0])} is not an index into {len(classes)} classes, or -1")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Height = width of the faces in pixels."""
        return self.images.shape[-1]

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB."""
        return self.images.shape[1]

    def counts(self) -> dict[str, int]:
        """Faces per class, in the order of ``classes``; faces without an expression are not counted."""
        labelled = self.expression[self.expression >= 0]
        return dict(zip(self.classes, torch.bincount(labelled, minlength=len(self.classes)).tolist(), strict=True))

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of all faces and labels; where they were read from does not count."""
        digest = hashlib.sha256(repr(self.classes).encode())
        words = {name: words for name, words in sorted(self.words.items()) if name in self.attributes}
        if words:
            digest.update(repr(words).encode())
        columns = {name: getattr(self, name) for name in ("images", *_MISSING, "expression_distribution")}
        for name, column in (columns | self.attributes).items():
            digest.update(f"{name} {column.dtype} {tuple(column.shape)}".encode())
            for part in column.split(_DIGESTED):
                digest.update(part.contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def select(self, index: Tensor | Sequence[int], *, reuse: bool = False) -> "FaceTable":
        """The rows that ``index`` names: integers (repeats allowed) or a boolean mask of N.

        Pixels of rows that follow on each other are shared with this table, not copied. With ``reuse`` no pixels are
        copied: the rows, which must increase then, move to the front of this table's pixels
        (:func:`~synthmtl.data.storage.keep_faces`), which, with all that shares them, are not to be used any more.
        """
        index = _rows(index)
        columns = {name: _taken(getattr(self, name), index) for name in (*_MISSING, "expression_distribution")}
        return FaceTable(
            images=keep_faces(self.images, index) if reuse else take_faces(self.images, index),
            classes=self.classes,
            attributes={name: column[index] for name, column in self.attributes.items()},
            files=[self.files[i] for i in index.tolist()],
            words=self.words,
            **columns,
        )

    def replace(self, **columns) -> "FaceTable":
        """A copy that shares every column but those given."""
        return dataclasses.replace(self, **columns)

    def with_classes(self, classes: Sequence[str]) -> "FaceTable":
        """The same faces with ``expression`` re-indexed to other classes; faces of a dropped class lose their label.

        Distributions lose the shares of dropped classes without being rescaled, and have 0 for classes that are new.
        """
        classes = ordered_classes(classes)
        if classes == self.classes:
            return self
        lookup = torch.tensor([classes.index(name) if name in classes else -1 for name in self.classes] + [-1])
        shares = self.expression_distribution
        unseen = torch.where(shares.isnan().any(1), float("nan"), 0.0)
        columns = [shares[:, self.classes.index(name)] if name in self.classes else unseen for name in classes]
        return self.replace(
            classes=classes,
            expression=lookup[self.expression],  # a missing label is -1 and finds the last entry, -1
            expression_distribution=torch.stack(columns, 1) if columns else torch.empty(len(self), 0),
        )

    def batch(self, index: Tensor | Sequence[int]) -> FaceBatch:
        """Rows ``index`` (as for :meth:`select`) as a :class:`FaceBatch`, pixels scaled to [-1, 1]."""
        index = _rows(index)
        names = [f.name for f in dataclasses.fields(FaceBatch) if f.name != "image"]
        return FaceBatch(image=to_unit(self.images[index]), **{n: getattr(self, n)[index] for n in names})

    @staticmethod
    def concatenate(tables: Sequence["FaceTable"], *, separate: bool = False) -> "FaceTable":
        """All rows of several tables over the same classes, size and channels; attributes that one lacks become NaN.

        Args:
            tables: at least one.
            separate: the tables are data sets of their own, so that equal numbers of subjects and sessions mean
                different ones: those of each table are numbered on from the table before. False: they are parts of
                one data set and keep their numbers.

        Raises:
            InputError: if classes, sizes or channels differ.
        """
        first = tables[0]
        for table in tables[1:]:
            if table.classes != first.classes:
                raise InputError(f"cannot join faces of classes {first.classes} and {table.classes}")
            if table.images.shape[1:] != first.images.shape[1:]:
                raise InputError(
                    f"cannot join faces of shape {tuple(first.images.shape[1:])} and {tuple(table.images.shape[1:])}"
                )
        if separate:
            numbers = {name: _numbered_on([getattr(t, name) for t in tables]) for name in ("subject", "session")}
            rows = zip(tables, numbers["subject"], numbers["session"], strict=True)
            tables = [table.replace(subject=subject, session=session) for table, subject, session in rows]
        tables = _with_common_words(tables)
        attributes = {name for table in tables for name in table.attributes}
        return FaceTable(
            classes=first.classes,
            attributes={
                name: torch.cat([t.attributes.get(name, torch.full((len(t),), float("nan"))) for t in tables])
                for name in sorted(attributes)
            },
            files=[file for table in tables for file in table.files],
            words={name: words for table in tables for name, words in table.words.items()},
            images=join_faces([table.images for table in tables]),
            **{
                name: _joined([getattr(table, name) for table in tables])
                for name in (*_MISSING, "expression_distribution")
            },
        )


def _filled(count: int, shape: tuple[int, ...], value: float, dtype: torch.dtype) -> Tensor:
    """One value, (count, ...) of the shape.

    Wide columns hold it once for all rows: 200,000 faces without landmarks would need 109 MB to say so.
    """
    if not shape:
        return torch.full((count,), value, dtype=dtype)
    return torch.full((1, *shape), value, dtype=dtype).expand(count, *shape)


def _held_once(column: Tensor) -> bool:
    return column.ndim > 1 and len(column) > 1 and column.stride(0) == 0


def _taken(column: Tensor, index: Tensor) -> Tensor:
    return column[:1].expand(len(index), *column.shape[1:]) if _held_once(column) and len(index) else column[index]


def _joined(columns: Sequence[Tensor]) -> Tensor:
    """One column of several; where all of them are missing throughout and say so once, it does, too."""
    if all(_held_once(column) and bool(column[0].isnan().all()) for column in columns):
        return columns[0][:1].expand(sum(map(len, columns)), *columns[0].shape[1:])
    return torch.cat(list(columns))


def _rows(index: Tensor | Sequence[int]) -> Tensor:
    """Integers or a boolean mask → int64 rows."""
    index = torch.as_tensor(index)
    return torch.where(index)[0] if index.dtype == torch.bool else index.long()


def coded_words(texts: Sequence[str | None]) -> tuple[Tensor, tuple[str, ...]]:
    """Texts, None = missing, as an attribute: numbers (N,) float32, NaN = missing, and the words they stand for."""
    words = tuple(sorted({text for text in texts if text is not None}))
    number = {text: float(i) for i, text in enumerate(words)} | {None: math.nan}
    return torch.tensor([number[text] for text in texts], dtype=torch.float32), words


def attribute_words(table: FaceTable, name: str) -> list[str | None]:
    """The words (N) of an attribute; numbers that stand for none are written out, None = missing."""
    words = table.words.get(name)
    values = table.attributes[name].tolist()
    return [None if math.isnan(v) else words[int(v)] if words else f"{v:g}" for v in values]


def _with_common_words(tables: Sequence[FaceTable]) -> list[FaceTable]:
    """The same tables, with the same words for attributes of text; numbers that one has for them become words."""
    tables = list(tables)
    for name in sorted({name for table in tables for name in table.words if name in table.attributes}):
        own = [table for table in tables if name in table.attributes]
        if any(table.words.get(name) != own[0].words.get(name) for table in own):
            column, words = coded_words([text for table in own for text in attribute_words(table, name)])
            parts = iter(column.split([len(table) for table in own]))
            tables = [
                table.replace(attributes=table.attributes | {name: next(parts)}, words=table.words | {name: words})
                if name in table.attributes
                else table
                for table in tables
            ]
    return tables


def _numbered_on(columns: Sequence[Tensor]) -> list[Tensor]:
    """The ids of each column renumbered 0, 1, ... in their order, on from those of the column before; -1 stays."""
    renumbered, first = [], 0
    for column in columns:
        known = column[column >= 0].unique()
        renumbered.append(torch.where(column >= 0, torch.searchsorted(known, column) + first, column))
        first += len(known)
    return renumbered


def classes_of(names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Classes of a data set from its own spellings, and the map spelling → expression where they differ.

    Raises:
        InputError: if a spelling is not an expression.
    """
    found = {}
    for name in names:
        expression = canonical_expression(name)
        if expression is None:
            raise InputError(f"unknown expression class {name!r}: use one of {', '.join(EXPRESSIONS)}, or an alias")
        found[name] = expression
    return ordered_classes(found.values()), {name: e for name, e in found.items() if name != e}
