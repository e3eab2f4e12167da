"""EmotioNet: action units of faces in the wild.

Fabian Benitez-Quiroz, Srinivasan, Martinez, "EmotioNet: An Accurate, Real-Time Algorithm for the Automatic Annotation
of a Million Facial Expressions in the Wild", CVPR 2016. Layout::

    *.csv or *.txt          commas or tabs; columns URL or file_name, and AU 1, AU2, 12, ...: 0, 1, or 999 = unknown
    images/<picture>        or beside the files; named as the last part of the URL, or as the file name says

A file whose name is that of a split (``train.csv``, ``validation.csv``, ``test.csv``) makes that split. Where there are
URLs and file names, the file names count. Units may be named by their numbers alone, but a set is recognized only by a
column that spells ``AU``, and not in an image folder with metadata or folders of expressions.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from synthmtl.data.readers.image_folder import ALL, canonical_split, is_labelled_folder
from synthmtl.data.readers.metadata import METADATA_NAMES, Complain
from synthmtl.data.readers.published import (
    Annotation,
    below,
    complainer,
    csv_rows,
    data_root,
    face_tables,
    leaves_folder,
    number,
    one_row_each,
    text_lines,
    unit_name,
    unit_row,
    visible_files,
)
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS

LAYOUT = "give the folder of a csv with a column URL or file_name and columns AU1, AU2, ..., and of its images/"
_NAME_COLUMNS = ("file_name", "file name", "filename", "file", "image", "image_name", "name", "url")
_VALUES: dict[float | None, float] = {0.0: 0.0, 1.0: 1.0, 999.0: math.nan}


def read_emotionet(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """EmotioNet: action units only, present = 1 and absent = 0; subjects are unknown.

    Args:
        root: the folder, or the one csv to read.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad rows
            are treated as bad images are.

    Returns:
        The splits that the names of the files tell, or ``all``. Action units that are no column of
        ``labels.ACTION_UNITS`` are left out, and faces whose units are all unknown.

    Raises:
        InputError: naming file and line of a row with a wrong value or path, or whose picture has a row already, as
            URLs have that end alike; if a picture is missing or unreadable; if only some of the files tell their split;
            if no faces are found.
    """
    folder, complain = data_root(root), complainer(on_bad)
    files = [Path(root)] if Path(root).is_file() else _files(folder)
    splits = {file: canonical_split(file.stem) or ALL for file in files}
    if ALL in splits.values() and len(set(splits.values())) > 1:
        stray = next(file for file, split in splits.items() if split == ALL)
        raise InputError(f"{stray}: in no split, though others are: name it train.csv, validation.csv or test.csv")
    faces = (face for file in files for face in _annotations(folder, file, splits[file], complain))
    annotations = one_row_each(faces, complain)
    return face_tables(
        folder, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_emotionet(path: Path) -> bool:
    """Whether a csv, or one in a folder that is no image folder with labels, has EmotioNet's header."""
    files = [path] if path.is_file() else _files(path)
    spelled = any(name.upper().startswith("AU") for file in files for name in _unit_columns(file))
    return spelled and (path.is_file() or not is_labelled_folder(path))


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(visible_files(folder)) if _unit_columns(file)]


def _unit_columns(file: Path) -> list[str]:
    """The columns of action units in EmotioNet's header; none if the file has another, or none."""
    if file.suffix.lower() not in (".csv", ".txt") or file.name in METADATA_NAMES:
        return []
    try:
        _, header = next(text_lines(file), (0, ""))
    except InputError:
        return []
    names = [cell.strip(' "') for cell in header.split("\t" if "\t" in header else ",")]
    return [name for name in names if unit_name(name) in ACTION_UNITS] if _name_column(names) else []


def _name_column(names: Sequence[str]) -> str | None:
    by_meaning = {name.lower(): name for name in reversed(names)}
    return next((by_meaning[name] for name in _NAME_COLUMNS if name in by_meaning), None)


def _annotations(folder: Path, file: Path, split: str, complain: Complain) -> Iterator[Annotation]:
    for line, row in csv_rows(file, complain=complain):
        where, column = f"{file}:{line}", _name_column(list(row))
        if column is None:
            raise InputError(f"{file}:1: no column of file names: name it file_name or URL")
        text = row[column]
        name = below(PurePosixPath(urlsplit(text).path).name if "://" in text else text)
        units = {unit: row[key] for key in row if (unit := unit_name(key))}
        if not units:
            raise InputError(f"{file}:1: no column of action units: name them AU1, AU2, ...")
        values = {unit: number(cell or "999") for unit, cell in units.items()}
        wrong = [unit for unit, value in values.items() if value not in _VALUES]
        if name is None:
            complain(leaves_folder(where, text))
        elif wrong:
            complain(f"{where}: {wrong[0]} is {units[wrong[0]]!r}: use 0, 1, or 999 where it is unknown")
        else:
            name = name if (folder / name).is_file() else f"images/{name}"
            present = {unit: _VALUES[value] for unit, value in values.items()}
            yield Annotation(name, where, split, action_units=unit_row(present))
