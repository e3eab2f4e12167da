"""Balancing sets on disk: files of an image folder, Parquet with pictures in it, WebDataset's numbered archives."""

import functools
import io
import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from synthmtl.data.images import pillow_image
from synthmtl.data.readers.hugging_face import need_datasets
from synthmtl.data.table import FaceTable
from synthmtl.data.writer import UNLABELED
from synthmtl.files import flush_file, replacing

FORMATS = ("imagefolder", "parquet", "webdataset")
"""How a balancing set can be written; all of them load with ``datasets.load_dataset``."""

SHARD_FACES = 10_000
"""Faces of a Parquet file or archive."""

_MARKS = ("generator", "source_file", "seed")
_TEXT = ("source_file", "source_expression", "generator", "compound")
_WHOLE = ("subject", "session", "domain", "source_row", "seed", "attempt")
_FLAGS = ("synthetic", "below_threshold", "filtered")


@dataclass(frozen=True)
class Face:
    """A face to be written: its name without folder and suffix, PNG file, and labels and provenance by column."""

    name: str
    png: bytes
    row: Mapping[str, Any]


def png_bytes(image: Tensor, record: Mapping[str, Any] | None = None) -> bytes:
    """A face (C, H, W) uint8 as PNG; with a ``record`` its text chunks say that and how it was synthesized."""
    text, stream = PngInfo(), io.BytesIO()
    if record is not None:
        text.add_text("synthetic", "true")
        for name in _MARKS:
            if record[name] is not None:
                text.add_text(name, str(record[name]))
    pillow_image(image).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


class FaceFiles:
    """PNG files of an image folder, which may be written while further faces are being made.

    Args:
        directory: of the set. A set that is finished (it has ``train/metadata.jsonl``) is left alone.
        table: the training faces that are balanced.
    """

    def __init__(self, directory: str | Path, table: FaceTable):
        self.directory = Path(directory)
        self.shorten = shortener(table.files)
        self.finished = (self.directory / "train" / "metadata.jsonl").exists()
        self.written: set[str] = set()

    def add(self, faces: FaceTable, records: Sequence[Mapping[str, Any]]) -> None:
        """Write synthesized faces under the names in ``files``; see :class:`BalancingResult`."""
        if not self.finished:
            for image, file, record in zip(faces.images, faces.files, records, strict=True):
                marks = {**record, "source_file": self.shorten(record["source_file"])}
                self.write(file, functools.partial(png_bytes, image, marks))

    def write(self, file: str, content: Callable[[], bytes]) -> None:
        """Write what ``content()`` gives, whole or not at all, unless it has been written by this object."""
        if file in self.written:
            return
        path = self.directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, flush=False) as partial:
            partial.write_bytes(content())
        self.written.add(file)


def shortener(files: Sequence[str]) -> Callable[[str | None], str | None]:
    """Names without the folders above the data, which say who keeps them where and nothing about the faces."""

    def is_elsewhere(file: str) -> bool:
        return os.path.isabs(file) or os.path.normpath(file).startswith(os.pardir)

    elsewhere = [os.path.dirname(os.path.abspath(file)) for file in files if is_elsewhere(file)]
    above = os.path.dirname(os.path.commonpath(elsewhere)) if elsewhere else ""

    def shorten(file: str | None) -> str | None:
        if not file:
            return None
        file = file.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # old archives have other names
        return PurePosixPath(os.path.relpath(file, above)).as_posix() if is_elsewhere(file) else file

    return shorten


def folder_of(row: Mapping[str, Any]) -> str:
    """The folder of a face in an image folder, by its expression."""
    return row["expression"] or UNLABELED


def write_metadata(directory: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """``train/metadata.jsonl``, once all pictures are on the disk; a set that has it is finished."""
    with replacing(directory / "train" / "metadata.jsonl") as partial, partial.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, allow_nan=False) + "\n")
        os.sync()


def write_shards(directory: Path, format: str, faces: Iterable[Face], count: int, classes: Sequence[str]) -> None:
    """``data/train-00000-of-0000N.parquet`` or ``data/train-000000.tar``, ..., all of them or none.

    Args:
        directory: of the set.
        format: ``parquet`` or ``webdataset``.
        faces: one after the other.
        count: how many there are.
        classes: what the numbers of classes stand for.

    Raises:
        InputError: if ``datasets`` is missing, for ``parquet``.
    """
    folder, partial = directory / "data", directory / ".data.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shards, faces = max(1, -(-count // SHARD_FACES)), iter(faces)
    write = {"parquet": _write_parquet, "webdataset": _write_archive}[format]
    for number in range(shards):
        name = f"train-{number:05d}-of-{shards:05d}.parquet" if format == "parquet" else f"train-{number:06d}.tar"
        write(partial / name, itertools.islice(faces, SHARD_FACES), classes)
        flush_file(partial / name)
    os.replace(partial, folder)


def _write_parquet(file: Path, faces: Iterator[Face], classes: Sequence[str]) -> None:
    datasets = need_datasets("--format parquet")
    import pyarrow
    from pyarrow import parquet

    first = next(faces)
    labels = {name: _feature(datasets, name, classes, value) for name, value in _labels(first.row).items()}
    features = datasets.Features({"image": datasets.Image()} | labels)
    schema = features.arrow_schema
    faces = itertools.chain([first], faces)
    with parquet.ParquetWriter(file, schema) as writer:
        while part := list(itertools.islice(faces, 1000)):
            rows = []
            for face in part:
                expression = face.row["expression"]
                index = None if expression is None else classes.index(expression)
                path = f"{folder_of(face.row)}/{face.name}.png"
                rows.append({**_labels(face.row), "image": {"bytes": face.png, "path": path}, "expression": index})
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _labels(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of a face; an attribute ``image`` makes room for the picture."""
    return {"image_" if name == "image" else name: value for name, value in row.items()}


def _feature(datasets: Any, name: str, classes: Sequence[str], example: Any) -> Any:
    if name == "expression":
        return datasets.ClassLabel(names=list(classes))
    if name == "landmarks":
        return [[datasets.Value("float32")]]
    if name == "expression_distribution":
        return {c: datasets.Value("float32") for c in classes}
    if isinstance(example, str):
        return datasets.Value("string")
    kinds = {"string": _TEXT, "int64": _WHOLE, "bool": _FLAGS}
    return datasets.Value(next((kind for kind, names in kinds.items() if name in names), "float32"))


def _write_archive(file: Path, faces: Iterator[Face], classes: Sequence[str]) -> None:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for face in faces:
            expression = face.row["expression"]
            index = -1 if expression is None else classes.index(expression)
            text = json.dumps(dict(face.row), allow_nan=False).encode()
            for suffix, content in (("png", face.png), ("json", text), ("cls", str(index).encode())):
                entry = tarfile.TarInfo(f"{face.name}.{suffix}")  # no owner and no time: the same set, the same bytes
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
