"""Hugging Face data sets: by name, saved on disk, or as Parquet files. They need the extra ``[hub]``.

- ``hf:NAME``: what ``datasets.load_dataset(NAME)`` gives, from the hub or from a folder;
- a folder that ``save_to_disk`` wrote (``dataset_dict.json``, or ``dataset_info.json`` with ``state.json``);
- a folder with ``*.parquet`` in it, in its folder ``data`` or ``default``, or in folders of these that are called as
  splits: ``train-00000-of-00001.parquet``, ``fer_test.parquet``, ``default/train/0000.parquet`` (as the hub converts
  data) or the like. The split is the folder or a word of the name.

A folder that has metadata or folders of expressions, too, is an image folder, unless options are given.

Behind a ``?`` options may follow, ``hf:NAME?label=emotion``: ``image`` and ``label`` name the columns of pictures and
of expressions, ``config`` and ``revision`` what to load of ``NAME``. Otherwise the pictures are the only column of
that kind, and the expressions a column of class labels whose names are all expressions, or a column called
``expression``, ``label``, ``labels``, ``emotion`` or ``emotions``. Further columns with the names of
``metadata.jsonl`` are labels, too (``readers.metadata``). ``split``, or FER2013's ``Usage``, divides a data set that
has no splits, or only ``train``, as ``datasets`` calls what has none.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch

from synthmtl.data.images import MAX_BYTES, decode_face, strict_size_warnings, too_many_bytes
from synthmtl.data.readers.columns import LABEL_KEYS, near_misses
from synthmtl.data.readers.hugging_face_columns import (
    files_by_split,
    image_column,
    is_picture,
    label_column,
    row_records,
    told_splits,
)
from synthmtl.data.readers.image_folder import (
    ALL,
    by_split,
    cropped_landmarks,
    is_labelled_folder,
    wanted_faces,
)
from synthmtl.data.readers.metadata import Record, label_columns, raise_input_error
from synthmtl.data.readers.published import visible_files
from synthmtl.data.readers.split_names import canonical_split, folders_of_parts
from synthmtl.data.sources import refuse_bad, report_bad, report_hints
from synthmtl.data.storage import new_faces
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

logger = logging.getLogger("synthmtl")

PREFIX = "hf:"
_OPTIONS = ("image", "label", "config", "revision")


def need_datasets(what: str) -> Any:
    """Hugging Face's ``datasets``.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(f"{what} needs the library datasets: pip install 'synthmtl[hub]'") from None
    return datasets


def is_hugging_face(path: str | Path) -> bool:
    """Whether a path names a Hugging Face data set, or is a folder that holds one."""
    if str(path).startswith(PREFIX):
        return True
    location, options, _ = str(path).partition("?")
    folder = Path(location)
    if not folder.is_dir() or not (_saved(folder) or _parquet_files(folder)):
        return False
    return bool(options) or not is_labelled_folder(folder)


def read_hugging_face(
    path: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """All faces of a Hugging Face data set; see the module for ``path``.

    Args:
        path: name or folder, with options.
        image_size: side of the faces in pixels; see :func:`synthmtl.data.images.read_face` for crop and filter.
        channels: 1 for gray, 3 for RGB.
        classes: read only these expressions (and faces without one); None = those found in any split.
        on_bad: ``error`` refuses pictures that cannot be read, ``skip`` logs them and goes on.

    Returns:
        A table for each of ``train``, ``validation``, ``test`` that is there (under any usual name), or one under
        ``all`` for a data set whose only split has another name. All have the same classes.

    Raises:
        InputError: if ``datasets`` is missing, there is no such data set, its columns are not clear, a label names no
            expression, or a picture is bad and ``on_bad`` is ``error``.
    """
    if on_bad not in ("error", "skip"):
        raise InputError(f"on_bad must be error or skip, not {on_bad!r}")
    location, options = _parse(str(path))
    datasets = need_datasets(str(path))
    with _opened(datasets, location, options) as (loaded, roots):
        splits = _named_splits(loaded, location)
        first, *others = (rows.features for rows in splits.values())
        image = image_column(first, options, location)
        # A test split may be without the labels that the others have.
        label = label_column(datasets, {k: v for each in (*others, first) for k, v in each.items()}, options, location)
        faces: list[_Row] = []
        for split, rows in splits.items():
            where = f"{location}, {split}"
            records = row_records(rows, image, label if label in rows.features else None, where, usage=len(splits) == 1)
            told = told_splits(records, split, only=len(splits) == 1)
            faces += [_Row(told[i], split, i, record, record.expression()) for i, record in enumerate(records)]
        report_hints(_near_misses(faces, location))
        faces, classes = wanted_faces(faces, classes)
        if not faces:
            raise InputError(f"{location}: no faces found: give a data set with rows")
        labels = label_columns([face.record for face in faces], classes, raise_input_error)
        pictures = _pictures({name: _undecoded(datasets, rows, image) for name, rows in splits.items()}, faces, image)
        table, bad = _table(
            faces, pictures, labels, classes, roots, image_size=image_size, channels=channels, on_bad=on_bad
        )
    return by_split(table, [face.split for face in faces], exclude=bad)


def some_pictures(path: str | Path, most: int) -> Iterator[bytes]:
    """Files of at most ``most`` pictures, evenly over the rows; those that are missing are passed over.

    Raises:
        InputError: if the data set cannot be opened or has no column of pictures.
    """
    location, options = _parse(str(path))
    datasets = need_datasets(str(path))
    with _opened(datasets, location, options) as (loaded, roots):
        splits = _named_splits(loaded, location)
        step = -(-sum(map(len, splits.values())) // most) or 1
        for rows in splits.values():
            image = image_column(rows.features, options, location)
            rows = _undecoded(datasets, rows, image)
            for number in range(0, len(rows), step):
                with contextlib.suppress(InputError):
                    yield _content(rows[number][image], roots, location)[0]


@dataclass
class _Row:
    """A face: its split, the part of the data (a split for ``datasets``) and the row there in which it stands, what the
    row says, and the expression."""

    split: str
    part: str
    number: int
    record: Record
    expression: str | None


def _parse(path: str) -> tuple[str, dict[str, str]]:
    location, _, query = path.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise InputError(f"{path}: unknown option {name!r} behind the '?': use some of {', '.join(_OPTIONS)}")
    return location, options


def _saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("dataset_info.json", "state.json")
    )


def _parquet_files(folder: Path) -> list[Path]:
    return sorted(file for part in folders_of_parts(folder) for file in visible_files(part, "*.parquet"))


@contextlib.contextmanager
def _opened(datasets: Any, location: str, options: Mapping[str, str]) -> Iterator[tuple[Any, list[str]]]:
    """The data set, and the folders out of which it may name picture files."""
    folder = None if location.startswith(PREFIX) else Path(location)
    if folder is not None and not (_saved(folder) or _parquet_files(folder)):
        raise InputError(f"{location}: no Hugging Face data set: give Parquet files, or what save_to_disk wrote")
    files = files_by_split(_parquet_files(folder), folder) if folder is not None and not _saved(folder) else {}
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory(prefix="synthmtl-") as cache:
            try:
                if folder is None:
                    name = location.removeprefix(PREFIX)
                    loaded = datasets.load_dataset(name, options.get("config"), revision=options.get("revision"))
                    roots = [name, str(datasets.config.HF_CACHE_HOME), str(datasets.config.HF_DATASETS_CACHE)]
                elif _saved(folder):
                    loaded, roots = datasets.load_from_disk(location), [location]
                else:
                    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
                    roots = [location]
            except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
                # The library raises errors of many kinds; most of their lines are about its own code.
                reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
                said = f"cannot be loaded by datasets ({reason[0]})"
                raise InputError(f"{location}: {said}: check its name and files") from None
            yield loaded, roots
            del loaded  # its memory maps, before the folder goes
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _named_splits(loaded: Any, location: str) -> dict[str, Any]:
    """Splits under the names of this suite."""
    if not hasattr(loaded, "items"):
        return {ALL: loaded}
    splits = {}
    for name, rows in loaded.items():
        split = canonical_split(name) or (ALL if len(loaded) == 1 else None)
        if split is None:
            raise InputError(f"{location}: unknown split {name!r}: call it train, validation or test")
        if split in splits:
            raise InputError(f"{location}: two splits mean {split}: {', '.join(map(str, loaded))}: keep one of them")
        splits[split] = rows
    return splits


def _near_misses(faces: Sequence[_Row], location: str) -> list[str]:
    told = {"split"} if any(face.split != ALL for face in faces) else set()
    told |= {"expression"} if any(face.expression for face in faces) else set()
    # Every record has an expression, given or not.
    keys = set(chain.from_iterable(face.record.values for face in faces)) - {LABEL_KEYS[0]}
    return near_misses(keys, location, told=told)


def _undecoded(datasets: Any, rows: Any, image: str) -> Any:
    """The pictures as their files' bytes or names: decoding is ours."""
    rows = rows.select_columns([image])
    return rows.cast_column(image, datasets.Image(decode=False)) if is_picture(rows.features[image]) else rows


def _pictures(splits: Mapping[str, Any], faces: Sequence[_Row], image: str) -> Iterator[Any]:
    """The pictures of the faces, which are in the order of parts and rows."""
    for part, rows in splits.items():
        wanted = {face.number for face in faces if face.part == part}
        yield from (row[image] for number, row in enumerate(rows) if number in wanted)


def _table(
    faces: Sequence[_Row],
    pictures: Iterator[Any],
    labels: dict[str, Any],
    classes: tuple[str, ...],
    roots: Sequence[str],
    *,
    image_size: int,
    channels: int,
    on_bad: str,
) -> tuple[FaceTable, set[int]]:
    """All faces, and the rows whose pictures are bad."""
    images = new_faces((len(faces), channels, image_size, image_size))
    sizes, files, bad = np.ones((len(faces), 2), np.int64), [], {}
    synthetic = labels.pop("synthetic", torch.zeros(len(faces), dtype=torch.bool))
    with strict_size_warnings():
        for i, (face, picture) in enumerate(zip(faces, pictures, strict=True)):
            where, file = face.record.where, None
            try:
                data, file = _content(picture, roots, where)
                decoded = decode_face(data, where, image_size, channels)
                images[i], sizes[i] = decoded.pixels, (decoded.width, decoded.height)
                synthetic[i] |= decoded.synthetic
            except InputError as error:
                bad[i] = str(error)
            files.append(file or where)
    handle = refuse_bad if on_bad == "error" else report_bad
    handle(list(bad.values()), len(faces))
    if len(bad) == len(faces):
        raise InputError(f"{faces[0].record.file}: none of the {len(bad)} pictures can be read (first: {bad[0]})")
    if "landmarks" in labels:
        labels["landmarks"] = cropped_landmarks(labels["landmarks"], sizes)
    index = [-1 if face.expression is None else classes.index(face.expression) for face in faces]
    table = FaceTable(
        images=torch.from_numpy(images),
        classes=classes,
        expression=torch.tensor(index, dtype=torch.int64),
        synthetic=synthetic,
        files=files,
        **labels,
    )
    return table, set(bad)


def _content(picture: Any, roots: Sequence[str], where: str) -> tuple[bytes, str | None]:
    """The bytes of a picture, and the name of its file if it has one."""
    if isinstance(picture, bytes):
        return picture, None
    picture = picture or {}
    data, file = picture.get("bytes"), picture.get("path")
    if data is None and file:
        inside = tuple(os.path.join(os.path.realpath(root), "") for root in roots)
        if not os.path.realpath(file).startswith(inside):
            raise InputError(f"{where}: its picture {file} lies outside of the data set: store the bytes in it instead")
        if not os.path.isfile(file):
            raise InputError(f"{where}: no image {file}: restore it or delete the row")
        if os.path.getsize(file) > MAX_BYTES:
            raise InputError(f"{where}: {too_many_bytes(os.path.getsize(file))}")
        data = Path(file).read_bytes()
    if data is None:
        raise InputError(f"{where}: no picture: delete the row")
    if len(data) > MAX_BYTES:
        raise InputError(f"{where}: {too_many_bytes(len(data))}")
    return data, file
