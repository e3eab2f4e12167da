"""CK+, the extended Cohn-Kanade set: posed expressions from neutral to their peak.

Lucey, Cohn, Kanade, Saragih, Ambadar, Matthews, "The Extended Cohn-Kanade Dataset (CK+): A complete dataset for action
unit and emotion-specified expression", CVPR Workshops 2010. Layout, a folder a subject and in it a folder a sequence::

    cohn-kanade-images/S005/001/S005_001_00000001.png ... S005_001_00000011.png
    Emotion/S005/001/S005_001_00000011_emotion.txt          a code 0-7; many sequences have none
    FACS/S005/001/S005_001_00000011_facs.txt                action unit and intensity a line; 0 = present, not graded
    Landmarks/S005/001/S005_001_00000001_landmarks.txt      68 lines x y, in pixels

The folders may also be named ``extended-cohn-kanade-images``, ``Emotion_labels``, ``FACS_labels``, ``landmarks``, and
wrap the folder of the shorter name.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from synthmtl.data.images import IMAGE_SUFFIXES
from synthmtl.data.readers.image_folder import ALL
from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    POINTS,
    Annotation,
    box_around,
    code,
    code_message,
    complainer,
    data_root,
    face_tables,
    first_folder,
    folders,
    points_of,
    relative,
    text_lines,
    unit_row,
    visible_files,
)
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, CKPLUS_CODES

LAYOUT = "give the folder of cohn-kanade-images/, Emotion/, FACS/ and Landmarks/"
_IMAGES = (
    "extended-cohn-kanade-images/cohn-kanade-images", "cohn-kanade-images", "extended-cohn-kanade-images",
)  # fmt: skip
_EMOTION = ("Emotion_labels/Emotion", "Emotion", "Emotion_labels")
_FACS = ("FACS_labels/FACS", "FACS", "FACS_labels")
_LANDMARKS = ("Landmarks/Landmarks", "Landmarks", "landmarks")
_STRONGEST = 5


def read_ckplus(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
    peaks: int = 1,
) -> dict[str, FaceTable]:
    """CK+: the first frame of each sequence as neutral, the last as its expression; subjects are known.

    Each sequence is a session: its neutral and its peak face show the same person in the same light and nearly the same
    pose, cut out by one square (around the points of both, with a quarter of its side more on every side; the central
    square of the picture without landmarks), so that they can be paired. Action units are those of the peak: intensity
    divided by 5, 1 for those present without a grade, 0 for those not listed.

    Args:
        root: the folder.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad label
            files are treated as bad images are.
        peaks: how many frames at the end of a sequence carry its expression; the publisher labels the last one, and
            only that has action units.

    Returns:
        One table, ``all``; the publisher has no split.

    Raises:
        InputError: naming the file (and line) of a wrong code, action unit or number of points; if a picture is
            unreadable; if no faces are found.
    """
    root, complain = data_root(root), complainer(on_bad)
    if peaks < 1:
        raise InputError(f"peaks must be at least 1, not {peaks}")
    annotations = _annotations(root, peaks, complain)
    return face_tables(
        root, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_ckplus(path: Path) -> bool:
    """Whether a folder has CK+'s sequences."""
    return first_folder(path, _IMAGES) is not None


def _annotations(root: Path, peaks: int, complain: Complain) -> Iterator[Annotation]:
    base = first_folder(root, _IMAGES) or root / _IMAGES[1]
    for subject in folders(base):
        for sequence in folders(subject):
            try:
                yield from _sequence(root, sequence, peaks)
            except InputError as error:
                complain(str(error))


def _sequence(root: Path, folder: Path, peaks: int) -> list[Annotation]:
    """The labelled faces of one sequence.

    Raises:
        InputError: if one of its label files is wrong.
    """
    subject, sequence = folder.parent.name, folder.name
    frames = sorted(file for file in visible_files(folder) if file.suffix.lower() in IMAGE_SUFFIXES)
    if not frames:
        return []
    emotion, where = _emotion(_label_file(root, _EMOTION, subject, sequence, "*_emotion.txt"))
    facs = _label_file(root, _FACS, subject, sequence, "*_facs.txt")
    faces = []
    for i, file in enumerate(frames):
        if 0 < i < len(frames) - peaks:
            continue
        neutral = i == 0 and len(frames) > 1
        points = _label_file(root, _LANDMARKS, subject, sequence, f"{file.stem}_landmarks.txt")
        faces.append(
            Annotation(
                relative(root, file),
                where or str(file),
                ALL,
                expression="neutral" if neutral else emotion,
                action_units=_units(facs) if facs and i == len(frames) - 1 else None,
                landmarks=_points(points) if points else None,
                subject=subject,
                session=f"{subject}/{sequence}",
            )
        )
    faces = [face for face in faces if face.expression is not None or face.action_units is not None]
    seen = [face.landmarks for face in faces if face.landmarks is not None]
    for face in faces:
        face.box = box_around(np.concatenate(seen)) if seen else None
    return faces


def _label_file(root: Path, names: Sequence[str], subject: str, sequence: str, pattern: str) -> Path | None:
    base = first_folder(root, names)
    return min(visible_files(base / subject / sequence, pattern), default=None) if base else None


def _emotion(file: Path | None) -> tuple[str | None, str | None]:
    """Expression and ``file:line`` of an emotion file, which may be missing or empty."""
    for line, text in text_lines(file) if file else ():
        label = code(text)
        if label is None or label not in CKPLUS_CODES:
            raise InputError(code_message(f"{file}:{line}", "emotion", text, CKPLUS_CODES))
        return CKPLUS_CODES[label], f"{file}:{line}"
    return None, None


def _units(file: Path) -> np.ndarray:
    units = dict.fromkeys(ACTION_UNITS, 0.0)
    for line, text in text_lines(file):
        cells = [code(re.sub(r"^[LR]", "", cell)) for cell in text.split()]  # one-sided units count as units
        number, grade = cells if len(cells) == 2 else (None, None)
        if number is None or grade is None or not 0 <= grade <= _STRONGEST:
            raise InputError(f"{file}:{line}: {text!r} is no action unit and intensity 0 to 5: correct the line")
        unit = f"AU{number}"
        units[unit] = max(units.get(unit, 0.0), grade / _STRONGEST if grade else 1.0)
    return unit_row(units)


def _points(file: Path) -> np.ndarray:
    points = [(line, points_of(text.split())) for line, text in text_lines(file)]
    for line, point in points:
        if point is None or len(point) != 1:
            raise InputError(f"{file}:{line}: no point x y: correct the line")
    if len(points) != POINTS:
        raise InputError(f"{file}: {len(points)} points instead of {POINTS}: correct or delete the file")
    return np.concatenate([point for _, point in points])
