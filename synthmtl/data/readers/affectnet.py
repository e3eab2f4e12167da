"""AffectNet: expressions, valence and arousal, landmarks.

Mollahosseini, Hasani, Mahoor, "AffectNet: A Database for Facial Expression, Valence, and Arousal Computing in the
Wild", IEEE Transactions on Affective Computing 10(1), 2019. Three layouts are read:

- as handed out since 2020: ``train_set/images/<id>.jpg`` and ``train_set/annotations/<id>_exp.npy``, ``_val.npy``,
  ``_aro.npy``, ``_lnd.npy`` (68 x and y in turn, in pixels of that picture), and the same below ``val_set``;
- before: ``training.csv`` and ``validation.csv`` (also in ``Manually_Annotated_file_lists/``, and also without header)
  with the columns of :data:`COLUMNS`, over uncropped pictures below the root or ``Manually_Annotated_Images/``;
  landmarks are ``x;y;...`` in pixels of the uncropped picture, -2 is missing valence or arousal, and faces are cut
  out by their box;
- folders named by code: ``[train/ | val/ | test/]0`` to ``7``, if the format is named: other sets have as many codes.

Faces without an expression (codes 8 none, 9 uncertain, 10 no face) are left out.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from synthmtl.data.images import IMAGE_SUFFIXES
from synthmtl.data.readers.image_folder import ALL, canonical_split
from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    POINTS,
    Annotation,
    below,
    code,
    code_message,
    complainer,
    csv_rows,
    data_root,
    face_tables,
    folders,
    leaves_folder,
    number,
    one_row_each,
    points_of,
    relative,
    square_box,
    visible_files,
)
from synthmtl.data.table import FaceTable
from synthmtl.labels import AFFECTNET_CODES

logger = logging.getLogger("synthmtl")
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
"""Columns of the older csv files."""

LAYOUT = "give the folder of train_set/ and val_set/, of training.csv and validation.csv, or of the folders 0 to 7"
_LIST_FOLDERS = ("", "Manually_Annotated_file_lists")
_IMAGE_FOLDERS = ("", "Manually_Annotated_Images", "Manually_Annotated_Images/Manually_Annotated_Images")
_MISSING = -2.0


def read_affectnet(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """AffectNet in any of its layouts: expressions, valence and arousal, landmarks; subjects are unknown.

    Args:
        root: the folder, or the one csv to read.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad rows
            are treated as bad images are.

    Returns:
        ``train`` and ``validation`` (AffectNet's test set is not public), or ``all`` for folders without splits and
        for a csv whose name tells none.

    Raises:
        InputError: naming file and line of a row with a wrong code, number or path, or whose face has a row already;
            if a picture is missing or unreadable; if no faces are found.
    """
    path, root, complain = Path(root), data_root(root), complainer(on_bad)
    if root.name == _LIST_FOLDERS[1]:
        root = root.parent
    if path.is_file():
        faces = _csv_files(root, complain, [path])
    else:
        faces = (_layout(root) or _numbered_folders)(root, complain)
    annotations = one_row_each(faces, complain)
    return face_tables(
        root, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_affectnet(path: Path) -> bool:
    """Whether a folder, or a file in it, has one of AffectNet's layouts with annotations.

    Folders of numbers alone tell nothing about whose codes they are: FER2013 and RAF-DB have seven, FER+, CK+ and
    Aff-Wild2 eight in other orders.
    """
    if path.is_file():
        return path.suffix.lower() == ".csv" and _is_list(path)
    return _layout(path) is not None


def _layout(root: Path) -> Callable[[Path, Complain], Iterator[Annotation]] | None:
    if any(next(visible_files(folder / "annotations", "*_exp.npy"), None) for folder in _split_folders(root)):
        return _arrays
    if any(_is_list(file) for file in _lists(root)):
        return _csv_files
    return None


def _split_folders(root: Path) -> dict[Path, str]:
    return {folder: split for folder in folders(root) if (split := canonical_split(folder.name))}


def _lists(root: Path) -> list[Path]:
    files = (root / folder / name for folder in _LIST_FOLDERS for name in ("training.csv", "validation.csv"))
    return [file for file in files if file.is_file()]


def _is_list(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        cells = stream.readline().strip().split(",")
    return cells[0].strip('" ') == COLUMNS[0] or (len(cells) == len(COLUMNS) and cells[5].count(";") > POINTS)


def _arrays(root: Path, complain: Complain) -> Iterator[Annotation]:
    for folder, split in _split_folders(root).items():
        for file in sorted(visible_files(folder / "annotations", "*_exp.npy")):
            stem = file.name.removesuffix("_exp.npy")
            parts = {name: file.with_name(f"{stem}_{name}.npy") for name in ("exp", "val", "aro", "lnd")}
            values = {name: array for name, part in parts.items() if (array := _array(part)) is not None}
            wrong = [name for name in parts if name not in values or (name != "lnd" and values[name].size != 1)]
            if wrong:
                complain(f"{parts[wrong[0]]}: no npy file of {'numbers' if wrong[0] == 'lnd' else 'one number'}")
                continue
            points = values["lnd"]
            if points.size not in (0, 2 * POINTS):
                complain(f"{parts['lnd']}: {points.size / 2:g} points instead of {POINTS}: correct or delete the file")
                continue
            face = _labelled(
                Annotation(relative(root, folder / "images" / f"{stem}.jpg"), str(file), split),
                [str(values[name].item()) for name in ("exp", "val", "aro")],
                complain,
            )
            if face is not None:
                face.landmarks = points.reshape(POINTS, 2).astype(np.float32) if points.size else None
                yield face


def _array(file: Path) -> np.ndarray | None:
    """The numbers of an npy file, which may hold them as text; NaN or none without the file, None if not numbers."""
    if not file.is_file():
        return np.full(0 if file.stem.endswith("_lnd") else 1, math.nan)
    try:
        array = np.load(file, allow_pickle=False)
        return array.astype(np.float64) if isinstance(array, np.ndarray) else None
    except (OSError, ValueError, TypeError, EOFError):
        return None


def _csv_files(root: Path, complain: Complain, files: Sequence[Path] | None = None) -> Iterator[Annotation]:
    """The faces of the csv files, by default of those that the root has."""
    for file in _lists(root) if files is None else files:
        split = canonical_split(file.stem) or ALL
        for line, row in csv_rows(file, COLUMNS, complain):
            where, name = f"{file}:{line}", below(row[COLUMNS[0]])
            if name is None:
                complain(leaves_folder(where, row[COLUMNS[0]]))
                continue
            name = next((f"{base}/{name}" for base in _IMAGE_FOLDERS[1:] if (root / base / name).is_file()), name)
            face = _labelled(
                Annotation(name, where, split), [row[key] for key in ("expression", "valence", "arousal")], complain
            )
            if face is None:
                continue
            box = points_of([row[key] for key in COLUMNS[1:5]])
            if box is None or (box[1] <= 0).any():
                complain(f"{where}: face_x, face_y, face_width, face_height are no box in pixels: correct the row")
                continue
            face.box = square_box(*box[0], *box.sum(0))
            if row["facial_landmarks"]:
                face.landmarks = points_of(row["facial_landmarks"].strip(";").split(";"))
                if face.landmarks is None or len(face.landmarks) != POINTS:
                    have = "no pairs of numbers" if face.landmarks is None else f"{len(face.landmarks)} points"
                    complain(f"{where}: facial_landmarks has {have} instead of {POINTS} points x;y: correct the row")
                    continue
            yield face


def _numbered_folders(root: Path, complain: Complain) -> Iterator[Annotation]:
    bases = _split_folders(root)
    logger.info("%s: numbers of folders read as AffectNet's codes, 0 neutral to 7 contempt", root)
    for base, split in (bases or {root: ALL}).items():
        for folder in folders(base):
            value = code(folder.name)
            if value is None or value not in AFFECTNET_CODES:
                complain(code_message(str(folder), "the folder's name", folder.name, AFFECTNET_CODES))
            elif (name := AFFECTNET_CODES[value]) is not None:
                for file in sorted(visible_files(folder)):
                    if file.suffix.lower() in IMAGE_SUFFIXES:
                        yield Annotation(relative(root, file), str(folder), split, expression=name)


def _labelled(face: Annotation, texts: Sequence[str], complain: Complain) -> Annotation | None:
    """The face with its expression, valence and arousal, or None if one is wrong or it shows no expression."""
    expression, valence, arousal = texts
    label = code(expression)
    if label is None or label not in AFFECTNET_CODES:
        complain(code_message(face.where, "expression", expression, AFFECTNET_CODES))
        return None
    face.expression = AFFECTNET_CODES[label]
    if face.expression is None:
        return None
    for name, text in (("valence", valence), ("arousal", arousal)):
        value = math.nan if text in ("", "nan") else number(text)
        if value is None or not (math.isnan(value) or value == _MISSING or -1 <= value <= 1):
            complain(f"{face.where}: {name} is {text!r}: use a number from -1 to 1, or -2 where it is missing")
            return None
        setattr(face, name, math.nan if value == _MISSING else value)
    return face
