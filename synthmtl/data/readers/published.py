"""What the readers of published data sets share: one annotation a face, and the tables made of all of them."""

import csv
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from synthmtl.data.images import IMAGE_SUFFIXES, Box, central_square
from synthmtl.data.readers.image_folder import ALL, by_split, wanted_faces
from synthmtl.data.readers.metadata import Complain, numbered, raise_input_error
from synthmtl.data.sources import Source, decode_faces, refuse_bad, report_bad
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, COMPOUND_EXPRESSIONS

logger = logging.getLogger("synthmtl")
POINTS = 68
_NEAR = 2.0  # of the face's box: points further away than this are no landmarks of this face


@dataclass(slots=True)
class Annotation:
    """One face of a published data set and what its publisher says about it.

    Attributes:
        file: the picture, below the data set's root, with ``/`` between folders.
        where: ``file:line`` of the label, for messages.
        split: ``train``, ``validation``, ``test``, or ``all``.
        expression, compound: canonical names; None = missing.
        action_units: (A,) in [0, 1], NaN = missing.
        landmarks: (68, 2) in pixels of the upright picture, from its upper left corner; NaN = missing.
        valence, arousal: in [-1, 1]; NaN = missing.
        subject, session: names; None = unknown.
        box: the face in the picture; None = the central square.
    """

    file: str
    where: str
    split: str = ALL
    expression: str | None = None
    compound: str | None = None
    action_units: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    valence: float = math.nan
    arousal: float = math.nan
    subject: str | None = None
    session: str | None = None
    box: Box | None = None

    def labelled(self) -> bool:
        """Whether the face carries any label."""
        return (
            self.expression is not None
            or self.compound is not None
            or (self.action_units is not None and not np.isnan(self.action_units).all())
            or (self.landmarks is not None and not np.isnan(self.landmarks).all())
            or not (math.isnan(self.valence) and math.isnan(self.arousal))
        )


def complainer(on_bad: str) -> Complain:
    """What is done with a bad row: ``error`` raises its message, ``skip`` logs it; the row is left out.

    Raises:
        InputError: if ``on_bad`` is neither.
    """
    if on_bad not in ("error", "skip"):
        raise InputError(f"on_bad must be error or skip, not {on_bad!r}")

    def warn(message: str) -> None:
        logger.warning("left out: %s", message)

    return raise_input_error if on_bad == "error" else warn


def face_tables(
    root: Path,
    annotations: Iterable[Annotation],
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None,
    on_bad: str,
    layout: str,
) -> dict[str, FaceTable]:
    """Tables by split of a data set's annotations; those without any label are left out and counted in the log.

    Args:
        root: the data set's folder.
        annotations: its faces.
        image_size, channels: as for :func:`~synthmtl.data.images.read_face`.
        classes: read only these expressions (and faces without one); None = those found in any split.
        on_bad: ``error`` refuses pictures that are missing or unreadable, or whose landmarks lie elsewhere; ``skip``
            logs them and goes on.
        layout: what to give where no faces are found.

    Returns:
        A table for each split that has faces. All have the same classes and number subjects and sessions alike.
        Landmarks are in [0, 1] of the face's box.

    Raises:
        InputError: if no faces are left, or one is bad and ``on_bad`` is ``error``.
    """
    faces, absent, unlabelled = [], [], 0
    for face in annotations:
        if not face.labelled():
            unlabelled += 1
        elif not (root / face.file).is_file():
            absent.append(f"{face.where}: no image {(root / face.file).as_posix()}: delete the row or add the image")
        else:
            faces.append(face)
    if unlabelled:
        logger.info("%s: left out %d faces without any label", root, unlabelled)
    handle = refuse_bad if on_bad == "error" else report_bad
    handle(absent, len(faces) + len(absent))
    faces, classes = wanted_faces(faces, classes)
    if not faces:
        raise InputError(f"{root}: no faces found: {layout}")
    with Source(root) as source:
        images, sizes, bad = decode_faces(
            source,
            [face.file for face in faces],
            image_size=image_size,
            channels=channels,
            on_bad=on_bad,
            boxes=[face.box for face in faces],
        )
    columns = _columns(faces, sizes, bad)
    if "landmarks" in columns:
        far = columns["landmarks"].sub(0.5).abs().nan_to_num().flatten(1).amax(1) > _NEAR
        bad |= {
            i: f"{faces[i].where}: landmarks far from the face: give pixels of {faces[i].file}"
            for i in torch.where(far)[0].tolist()
            if i not in bad
        }
    handle(list(bad.values()), len(faces))
    if len(bad) == len(faces):
        raise InputError(f"{root}: none of the {len(faces)} faces can be read (first: {bad[0]})")
    table = FaceTable(
        images=torch.from_numpy(images),
        classes=classes,
        expression=torch.tensor([-1 if f.expression is None else classes.index(f.expression) for f in faces]),
        files=[(root / face.file).as_posix() for face in faces],
        **columns,
    )
    return by_split(table, [face.split for face in faces], exclude=set(bad))


def _columns(faces: Sequence[Annotation], sizes: np.ndarray, bad: Mapping[int, str]) -> dict[str, Any]:
    """Columns of a FaceTable, all but images, expression and files; a label that no face has is left out."""
    columns = {
        "subject": numbered([face.subject for face in faces]),
        "session": numbered([face.session for face in faces]),
    }
    if any(face.compound for face in faces):
        index = [-1 if face.compound is None else COMPOUND_EXPRESSIONS.index(face.compound) for face in faces]
        columns["compound"] = torch.tensor(index)
    if any(face.action_units is not None for face in faces):
        none = np.full(len(ACTION_UNITS), np.nan, np.float32)
        units = [none if face.action_units is None else face.action_units for face in faces]
        columns["action_units"] = torch.from_numpy(np.stack(units).astype(np.float32))
    if any(face.landmarks is not None for face in faces):
        points = np.full((len(faces), POINTS, 2), np.nan, np.float32)
        for i, face in enumerate(faces):
            if face.landmarks is not None and i not in bad:
                left, top, right, bottom = face.box or central_square(*sizes[i].tolist())
                points[i] = (face.landmarks - (left, top)) / (right - left, bottom - top)
        columns["landmarks"] = torch.from_numpy(points)
    affect = np.array([(face.valence, face.arousal) for face in faces], np.float32)
    return columns | {"valence_arousal": torch.from_numpy(affect)}


def data_root(path: str | Path) -> Path:
    """The folder of a data set, given itself or by one of the files in it.

    Raises:
        InputError: if there is no such path.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such folder or file: check the path")
    return path if path.is_dir() else path.parent


def first_folder(root: Path, names: Sequence[str]) -> Path | None:
    """The first of several folders below ``root`` that exists."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def below(text: str) -> str | None:
    """A picture's path as a label file gives it, with ``/`` between folders; None if it leaves the data folder."""
    path = PurePosixPath(text.strip().replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]
    return None if outside else path.as_posix()


def leaves_folder(where: str, text: str) -> str:
    """The message about a path for which :func:`below` gave None."""
    return f"{where}: {text!r} is no path below the data folder: correct it"


def one_row_each(faces: Iterable[Annotation], complain: Complain) -> Iterator[Annotation]:
    """Faces as label files list them, without those that a row before has described.

    Args:
        faces: the same picture may show several, with another box for each.
        complain: told of each that is left out.
    """
    rows: dict[tuple[str, Box | None], str] = {}
    for face in faces:
        first = rows.setdefault((face.file, face.box), face.where)
        if first == face.where:
            yield face
        else:
            complain(f"{face.where}: {face.file} has a row already ({first}): keep one of them")


def text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbers from 1 and stripped text of the lines that are not blank; byte order marks and CRLF are dealt with.

    Raises:
        InputError: if the file is missing or no text.
    """
    return ((line, text.strip()) for line, text in _lines(file))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """As :func:`text_lines`, with the blanks at both ends of a line, which may be empty cells."""
    if not file.is_file():
        raise InputError(f"{file}: no such file: check the layout")
    with file.open(encoding="utf-8-sig") as stream:
        try:
            for line, text in enumerate(stream, 1):
                if text.strip():
                    yield line, text.rstrip("\n")
        except UnicodeDecodeError:
            raise InputError(f"{file}: not UTF-8 text: save it as UTF-8") from None


def csv_rows(
    file: Path, columns: Sequence[str] | None = None, complain: Complain = raise_input_error
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped cells by column of each row of a file separated by commas, or by tabs as its first line.

    Args:
        file: the csv.
        columns: names of the columns of a file that may lack a header; None = the first line is the header.
        complain: told of a row that is broken or has another number of cells than the header (empty ones behind its
            end do not count), which is then left out.

    Raises:
        InputError: if the file is missing or no text; and by default for what ``complain`` is told.
    """
    header, delimiter = None, ""
    for line, text in _lines(file):
        delimiter = delimiter or ("\t" if "\t" in text.strip() else ",")
        try:
            (cells,) = csv.reader([text], delimiter=delimiter, skipinitialspace=True)
        except (csv.Error, ValueError):
            complain(f"{file}:{line}: broken csv: mend this line")
            continue
        cells = [cell.strip() for cell in cells]
        if header is None and columns is not None and cells[0] != columns[0]:
            header = list(columns)
        if header is None:
            header = cells
            if columns is not None and (absent := set(columns) - set(header)):
                raise InputError(f"{file}:{line}: no column {min(absent)!r}: the header must have {','.join(columns)}")
        elif len(cells) < len(header) or any(cells[len(header) :]):
            complain(f"{file}:{line}: {len(cells)} cells where the header has {len(header)}: mend this line")
        else:
            yield line, dict(zip(header, cells, strict=False))


def number(text: str) -> float | None:
    """The finite number that a text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def code(text: str) -> int | None:
    """The whole number that a text is, also when written as a decimal (``3.0000000e+00``), or None."""
    value = number(text)
    return int(value) if value is not None and value.is_integer() else None


def code_message(where: str, what: str, text: str, codes: Mapping[int, object]) -> str:
    """The message about a text that is none of ``codes``."""
    return f"{where}: {what} is {text!r}: use a code from {min(codes)} to {max(codes)}"


def points_of(values: Sequence[str]) -> np.ndarray | None:
    """(N, 2) coordinates from x and y in turn; None unless all are finite numbers, in pairs."""
    numbers = [number(value) for value in values]
    if None in numbers or len(numbers) % 2:
        return None
    return np.array(numbers, np.float32).reshape(-1, 2)


def unit_name(text: str) -> str | None:
    """The action unit that a column's name means (``AU 01``, ``AU1``, ``1``), known to this suite or not, or None."""
    match = re.fullmatch(r"(?:AU[_ ]?)?0*([1-9]\d?)", text.strip(), re.IGNORECASE)
    return f"AU{match.group(1)}" if match else None


def unit_row(values: Mapping[str, float] | Mapping[str | None, float]) -> np.ndarray:
    """(A,) intensities by action unit in the order of ``labels.ACTION_UNITS``; others are left out, absent ones NaN."""
    return np.array([values.get(unit, math.nan) for unit in ACTION_UNITS], np.float32)


def square_box(left: float, top: float, right: float, bottom: float, margin: float = 0.0) -> Box:
    """The square around a box, with ``margin`` of its longer side on every side."""
    half = max(right - left, bottom - top) * (0.5 + margin)
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - half, y - half, x + half, y + half


def box_around(points: np.ndarray, margin: float = 0.25) -> Box:
    """The square around (N, 2) landmarks; the margin takes in the forehead, which has none."""
    (left, top), (right, bottom) = np.nanmin(points, axis=0).tolist(), np.nanmax(points, axis=0).tolist()
    return square_box(left, top, right, bottom, margin)


def frame_files(folder: Path) -> dict[int, str]:
    """Names of a folder's pictures by frame: the number at the end of the name, with or without leading zeros."""
    files = {}
    for path in sorted(visible_files(folder)):
        if path.suffix.lower() in IMAGE_SUFFIXES and (match := re.search(r"(\d+)$", path.stem)):
            files[int(match.group(1))] = path.name
    return files


def relative(root: Path, path: Path) -> str:
    """A path below ``root`` with ``/`` between folders."""
    return path.relative_to(root).as_posix()


def visible_files(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """What fits a pattern in a folder and is not hidden, as macOS' resource forks ``._*`` are; in no order."""
    return (path for path in folder.glob(pattern) if not path.name.startswith("."))


def folders(root: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name; none if there is no such folder."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else []
