"""Hugging Face data sets: by name, saved on disk, or as Parquet files. They need the extra ``[hub]``.

- ``hf:NAME``: what ``datasets.load_dataset(NAME)`` gives, from the hub or from a folder;
- a folder that ``save_to_disk`` wrote (``dataset_dict.json``, or ``dataset_info.json`` with ``state.json``);
- a folder with ``*.parquet`` in it or in its folder ``data``, ``train-00000-of-00001.parquet`` or the like.

A folder that has metadata or folders of expressions, too, is an image folder, unless options are given.

Behind a ``?`` options may follow, ``hf:NAME?label=emotion``: ``image`` and ``label`` name the columns of pictures and
of expressions, ``config`` and ``revision`` what to load of ``NAME``. Otherwise the pictures are the only column of
that kind, and the expressions a column of class labels whose names are all expressions, or a column called
``expression``, ``label``, ``labels``, ``emotion`` or ``emotions``. Further columns with the names of
``metadata.jsonl`` are labels, too (``readers.metadata``).
"""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch

from synthmtl.data.images import MAX_BYTES, decode_face, strict_size_warnings, too_many_bytes
from synthmtl.data.readers.image_folder import (
    ALL,
    by_split,
    canonical_split,
    cropped_landmarks,
    is_labelled_folder,
    wanted_faces,
)
from synthmtl.data.readers.metadata import LABEL_KEYS, Record, label_columns, raise_input_error
from synthmtl.data.readers.published import visible_files
from synthmtl.data.sources import refuse_bad, report_bad
from synthmtl.data.storage import new_faces
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import canonical_expression

logger = logging.getLogger("synthmtl")

PREFIX = "hf:"
_LABELS = (*LABEL_KEYS, "labels", "emotion", "emotions")
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
        image = _image_column(first, options, location)
        # A test split may be without the labels that the others have.
        label = _label_column(datasets, {k: v for each in (*others, first) for k, v in each.items()}, options, location)
        faces: list[_Row] = []
        for split, rows in splits.items():
            records = _records(rows, image, label if label in rows.features else None, f"{location}, {split}")
            faces += [_Row(split, i, record, record.expression()) for i, record in enumerate(records)]
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
            image = _image_column(rows.features, options, location)
            rows = _undecoded(datasets, rows, image)
            for number in range(0, len(rows), step):
                with contextlib.suppress(InputError):
                    yield _content(rows[number][image], roots, location)[0]


@dataclass
class _Row:
    """A row of a split: its number, what it says of the face, and the expression."""

    split: str
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


def _parquet_files(folder: Path) -> list[str]:
    return sorted(str(file) for part in (folder, folder / "data") for file in visible_files(part, "*.parquet"))


@contextlib.contextmanager
def _opened(datasets: Any, location: str, options: Mapping[str, str]) -> Iterator[tuple[Any, list[str]]]:
    """The data set, and the folders out of which it may name picture files."""
    folder = None if location.startswith(PREFIX) else Path(location)
    if folder is not None and not (_saved(folder) or _parquet_files(folder)):
        raise InputError(f"{location}: no Hugging Face data set: give Parquet files, or what save_to_disk wrote")
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
                    by_split = _files_by_split(_parquet_files(folder))
                    loaded = datasets.load_dataset("parquet", data_files=by_split, cache_dir=cache)
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


def _files_by_split(files: Sequence[str]) -> dict[str, list[str]]:
    """Parquet files by the split that their names begin with (``train-00000-of-00001.parquet``), else all as one."""
    named = {file: re.split(r"[-.]", os.path.basename(file))[0] for file in files}
    if not any(map(canonical_split, named.values())):
        return {"rows": list(files)}
    by_split: dict[str, list[str]] = {}
    for file, name in named.items():
        by_split.setdefault(re.sub(r"\W", "_", name), []).append(file)
    return by_split


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


def _is_picture(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _image_column(features: Mapping, options: Mapping[str, str], location: str) -> str:
    found = [name for name, feature in features.items() if _is_picture(feature)]
    # Parquet of other writers holds pictures as plain structs.
    found = found or [name for name, feature in features.items() if isinstance(feature, dict) and "bytes" in feature]
    name = options.get("image") or (found[0] if len(found) == 1 else None)
    if name is None or name not in features:
        what = f"no column {name!r}" if name else f"{len(found)} columns of pictures"
        raise InputError(f"{location}: {what}: name it with ?image=COLUMN; the columns are {', '.join(features)}")
    return name


def _label_column(datasets: Any, features: Mapping, options: Mapping[str, str], location: str) -> str | None:
    """The column of expressions; None if there is none."""
    if name := options.get("label"):
        if name not in features:
            raise InputError(f"{location}: no column {name!r}: the columns are {', '.join(features)}")
        return name
    coded = {n: f.names for n, f in features.items() if isinstance(f, datasets.ClassLabel)}
    found = [name for name, names in coded.items() if all(map(canonical_expression, names))]
    if len(found) != 1:
        found = [name for name in _LABELS if name in features][:1] or found
    if len(found) > 1 or (coded and not found):
        names = "; ".join(f"{name}: {', '.join(values)}" for name, values in coded.items())
        raise InputError(f"{location}: which column holds the expressions? Name it with ?label=COLUMN ({names})")
    return found[0] if found else None


def _records(rows: Any, image: str, label: str | None, where: str) -> list[Record]:
    """Everything but the pictures, with the names of class labels instead of their numbers."""
    features = rows.features
    names = {name: feature.names for name, feature in features.items() if hasattr(feature, "int2str")}
    texts = ("string", "large_string")
    if label is not None and label not in names and getattr(features[label], "dtype", "") not in texts:
        raise InputError(f"{where}: column {label!r} holds numbers without names: make it a ClassLabel, or text")
    others = [name for name in features if name != image]
    columns = rows.select_columns(others) if others else [{}] * len(rows)
    records = []
    for line, row in enumerate(columns, 1):
        values = {k: _named(v, names[k]) if k in names else v for k, v in row.items()}
        if label is not None and label not in LABEL_KEYS:
            values = {k: v for k, v in values.items() if k not in LABEL_KEYS} | {"expression": values[label]}
        elif label is not None:
            values = {k: v for k, v in values.items() if k == label or k not in LABEL_KEYS}
        records.append(Record(values, where, line))
    return records


def _named(code: int | None, names: Sequence[str]) -> str | None:
    return None if code is None or code < 0 else names[code]


def _undecoded(datasets: Any, rows: Any, image: str) -> Any:
    """The pictures as their files' bytes or names: decoding is ours."""
    rows = rows.select_columns([image])
    return rows.cast_column(image, datasets.Image(decode=False)) if _is_picture(rows.features[image]) else rows


def _pictures(splits: Mapping[str, Any], faces: Sequence[_Row], image: str) -> Iterator[Any]:
    """The pictures of the faces, which are in the order of splits and rows."""
    for split, rows in splits.items():
        wanted = {face.number for face in faces if face.split == split}
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
