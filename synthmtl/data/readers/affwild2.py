"""Aff-Wild2: expressions, valence and arousal, and action units of videos in the wild.

Kollias and Zafeiriou, "Expression, Affect, Action Unit Recognition: Aff-Wild2, Multi-Task Learning and ArcFace", BMVC
2019. Layout::

    annotations/EXPR_*/{Train_Set,Validation_Set}/<video>.txt    Neutral,Anger,...   a code a line; -1 missing, 7 other
    annotations/VA_*/{Train_Set,Validation_Set}/<video>.txt      valence,arousal     in [-1, 1]; -5 missing
    annotations/AU_*/{Train_Set,Validation_Set}/<video>.txt      AU1,AU2,AU4,...     0 or 1; -1 missing
    cropped_aligned/<video>/00001.jpg

The first line of a file is its header; line n + 1 is frame n, whose picture is named after it. The publisher has no
picture of frames in which no face was found. AU23 is no column of ``labels.ACTION_UNITS`` and is left out.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from synthmtl.data.readers.image_folder import canonical_split
from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    Annotation,
    code,
    code_message,
    complainer,
    data_root,
    face_tables,
    folders,
    frame_files,
    number,
    text_lines,
    unit_name,
    unit_row,
    visible_files,
)
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import AFFWILD2_CODES

logger = logging.getLogger("synthmtl")
LAYOUT = "give the folder of annotations/ (EXPR_*, VA_*, AU_*) and cropped_aligned/"
_TASKS = ("EXPR", "VA", "AU")
_MISSING = -5.0
_EXPRESSION_HEADER = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
_UNITS = {"0": 0.0, "1": 1.0, "-1": math.nan}


def read_affwild2(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
    every: int = 1,
) -> dict[str, FaceTable]:
    """Aff-Wild2: the labels of the three tasks joined frame by frame; a video counts as a subject.

    The publisher splits each task on its own. A video that is in the validation set of one task is a validation video
    of all, so that no validation face is trained on; the log says how many there are.

    Args:
        root: the folder.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad rows
            are treated as bad images are, and so is a video without a folder of pictures.
        every: read only each ``every``-th frame of a video, beginning with the first.

    Returns:
        ``train`` and ``validation`` (the labels of the test set are not public). Frames whose labels are all missing
        are left out.

    Raises:
        InputError: naming file and line of a row with a wrong code or number; if a header is not the publisher's; if
            no faces are found.
    """
    root, complain = data_root(root), complainer(on_bad)
    if every < 1:
        raise InputError(f"every must be at least 1, not {every}")
    annotations = _annotations(root, every, complain)
    return face_tables(
        root, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_affwild2(path: Path) -> bool:
    """Whether a folder has Aff-Wild2's annotations."""
    return bool(_set_folders(path))


def _set_folders(root: Path) -> list[tuple[str, str, Path]]:
    """Task, split and folder of each set of annotations."""
    return [
        (task, split, part)
        for folder in folders(root / "annotations")
        for task in _TASKS
        if folder.name.upper().startswith(f"{task}_")
        for part in folders(folder)
        if (split := canonical_split(part.name)) in ("train", "validation")
    ]


def _annotations(root: Path, every: int, complain: Complain) -> Iterator[Annotation]:
    videos: dict[str, dict[str, Path]] = defaultdict(dict)
    splits = defaultdict(set)
    for task, split, folder in _set_folders(root):
        for file in sorted(visible_files(folder, "*.txt")):
            if task in videos[file.stem]:
                raise InputError(f"{file}: {videos[file.stem][task]} labels this video too: keep one of them")
            videos[file.stem][task] = file
            splits[file.stem].add(split)
    both = sum(len(found) > 1 for found in splits.values())
    if both:
        logger.info("%s: %d videos in train of one task and validation of another: all to validation", root, both)
    absent = 0
    for video, files in sorted(videos.items()):
        folder = root / "cropped_aligned" / video
        pictures = frame_files(folder)
        if not pictures:
            complain(f"{next(iter(files.values()))}: no images in {folder}: add them or delete the file")
            continue
        split = "validation" if "validation" in splits[video] else "train"
        faces: dict[int, Annotation] = {}
        for task, file in files.items():
            for frame, where, labels in _labels(task, file, every, complain):
                if frame in pictures:
                    name = f"cropped_aligned/{video}/{pictures[frame]}"
                    face = faces.setdefault(frame, Annotation(name, where, split, subject=video))
                    for label, value in labels.items():
                        setattr(face, label, value)
                else:
                    absent += 1
        yield from (faces[frame] for frame in sorted(faces))
    if absent:
        logger.info("%s: left out %d labels of frames without a picture (no face was found there)", root, absent)


def _labels(task: str, file: Path, every: int, complain: Complain) -> Iterator[tuple[int, str, dict]]:
    """Frame, ``file:line`` and labels, by attribute of an annotation, of every ``every``-th frame of a file."""
    lines = text_lines(file)
    names = [cell.strip() for cell in next(lines, (1, ""))[1].split(",")]
    units = [unit_name(name) for name in names]
    if task == "EXPR":
        fits = tuple(name.lower() for name in names[:7]) == _EXPRESSION_HEADER
    else:
        fits = [name.lower() for name in names] == ["valence", "arousal"] if task == "VA" else None not in units
    if not fits:
        raise InputError(f"{file}:1: not the header of Aff-Wild2's {task} labels: {','.join(names)!r:.80}: restore it")
    for line, text in lines:
        frame, where, cells = line - 1, f"{file}:{line}", [cell.strip() for cell in text.split(",")]
        if (frame - 1) % every:
            continue
        if task == "EXPR":
            label = code(text)
            if label is None or label not in AFFWILD2_CODES:
                complain(code_message(where, "expression", text, AFFWILD2_CODES))
                continue
            yield frame, where, {"expression": AFFWILD2_CODES[label]}
        elif task == "VA":
            values = [number(cell) for cell in cells]
            if len(values) != 2 or any(v is None or not (v == _MISSING or -1 <= v <= 1) for v in values):
                complain(f"{where}: {text!r} is no valence,arousal from -1 to 1, or -5 where missing: correct the row")
                continue
            values = [math.nan if value == _MISSING else value for value in values]
            yield frame, where, {"valence": values[0], "arousal": values[1]}
        elif len(cells) != len(units) or not set(cells) <= set(_UNITS):
            complain(f"{where}: {text!r} is no row of {len(units)} action units, each 0, 1 or -1: correct the row")
        else:
            present = {unit: _UNITS[cell] for unit, cell in zip(units, cells, strict=True)}
            yield frame, where, {"action_units": unit_row(present)}
