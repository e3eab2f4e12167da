"""WebDataset: numbered tar archives of samples, ``<name>.png`` (or another picture) and ``<name>.json``.

They lie in the folder, in its folder ``data``, or in folders of these that are called as splits. Their split is that
folder or a word of their name: ``train/000000.tar``, ``train-000000.tar``, ``fer_test-000.tar`` or the like. The json
holds what a row of ``metadata.jsonl`` does (``readers.metadata``); other files of a sample are not read: the numbers in
``.cls`` do not say what they stand for. Archives are read where they are, none is unpacked.
"""

import contextlib
import functools
import itertools
import json
import posixpath
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path

from synthmtl.data.images import IMAGE_SUFFIXES, MAX_BYTES, too_many_bytes
from synthmtl.data.readers.image_folder import (
    ALL,
    Face,
    build_table,
    by_split,
    is_labelled_folder,
    mark_synthetic,
    wanted_faces,
)
from synthmtl.data.readers.metadata import Record, label_columns, raise_input_error, with_known_keys
from synthmtl.data.readers.published import visible_files
from synthmtl.data.readers.split_names import folders_of_parts, splits_told
from synthmtl.data.sources import Source, decode_faces, refuse_bad, report_bad
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

_FIRST = 16  # entries of the first archive by which the layout is recognized


class Archives(Source):
    """Files in the tar archives of a folder, by names such as ``data/train-000000.tar/<name>.png``.

    Attributes:
        path: the folder.
        names: in the order of the archives and of what is in them.

    Raises:
        InputError: if the path is no folder, or an archive is damaged or has two files of one name.
    """

    @functools.cached_property
    def names(self) -> list[str]:
        """See the class."""
        return list(self._places)

    @functools.cached_property
    def _places(self) -> dict[str, tuple[Path, int, int]]:
        """The archive of each file, where it begins in there, and its bytes."""
        places: dict[str, tuple[Path, int, int]] = {}
        for file in archives(self.path):
            try:
                with tarfile.open(file, "r:") as archive:
                    for entry in archive:
                        name = f"{file.relative_to(self.path).as_posix()}/{entry.name}"
                        if name in places:
                            raise InputError(f"{self.where(name)}: is there twice: keep one of them")
                        if entry.isfile() and not (entry.issparse() or _hidden(entry.name)):
                            places[name] = file, entry.offset_data, entry.size
                    if file.stat().st_size < archive.offset + tarfile.BLOCKSIZE:  # tarfile does not mind
                        raise tarfile.ReadError("it ends too early")
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"{file}: damaged tar archive ({error}): download or pack it again") from None
        return places

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._places[name][2]

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            InputError: if it cannot be read, or is larger than ``images.MAX_BYTES``.
        """
        file, start, size = self._places[name]
        if size > MAX_BYTES:
            raise InputError(f"{self.where(name)}: {too_many_bytes(size)}")
        try:
            with file.open("rb") as stream:  # a stream of its own, for several threads read at once
                stream.seek(start)
                return stream.read(size)
        except OSError as error:
            raise InputError(f"{self.where(name)}: cannot be read ({error.strerror}): replace or delete it") from None


def archives(folder: Path) -> list[Path]:
    """The tar archives of a folder (see :func:`folders_of_parts`), by name."""
    parts = folders_of_parts(folder)
    return sorted(file for part in parts for file in visible_files(part, "*.tar") if file.is_file())


def is_webdataset(path: str | Path) -> bool:
    """Whether a folder holds tar archives, the first of which begins with a picture and the json of its labels."""
    path = Path(path)
    if not path.is_dir() or is_labelled_folder(path) or not (files := archives(path)):
        return False
    names: list[str] = []
    # Reading it says what is wrong with it.
    with contextlib.suppress(tarfile.TarError, OSError), tarfile.open(files[0], "r:") as archive:
        names.extend(entry.name for entry in itertools.islice(archive, _FIRST))
    pictures = {_sample(name) for name in names if _is_picture(name)}
    return any(name.lower().endswith(".json") and _sample(name) in pictures for name in names)


def read_webdataset(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """All faces of WebDataset's archives; see the module for the layout.

    Args:
        root: the folder.
        image_size: side of the faces in pixels; see :func:`synthmtl.data.images.read_face` for crop and filter.
        channels: 1 for gray, 3 for RGB.
        classes: read only these expressions (and faces without one); None = those found in any split.
        on_bad: ``error`` refuses pictures that are missing or cannot be read, ``skip`` logs them and goes on.

    Returns:
        A table for each of ``train``, ``validation``, ``test`` that is there, or one under ``all``, with the same
        classes, in the order of the archives.

    Raises:
        InputError: if there are no such archives, one is damaged, in two splits, or in none though others are, a json
            is broken or names no expression, or a picture is bad and ``on_bad`` is ``error``.
    """
    with Archives(root) as source:
        listed, absent = _listed(source)
        if on_bad == "error":
            refuse_bad(absent, len(listed) + len(absent))
        faces, classes = wanted_faces(listed, classes)
        if not faces:
            raise InputError(f"{root}: no faces found: give tar archives with <name>.png and <name>.json")
        labels = label_columns([face.record for face in faces], classes, raise_input_error)
        marked = []
        images, sizes, bad = decode_faces(
            source,
            [face.name for face in faces],
            image_size=image_size,
            channels=channels,
            on_bad=on_bad,
            see=lambda i, face: marked.append(i) if face.synthetic else None,
        )
        mark_synthetic(labels, marked, len(faces))
        table = build_table(source, faces, classes, labels, images, sizes)
    report_bad([*absent, *bad.values()], len(faces) + len(absent))
    if len(bad) == len(faces):
        raise InputError(f"{root}: none of the {len(faces)} images can be read (first: {bad[0]})")
    return by_split(table, [face.split for face in faces], exclude=set(bad))


def _listed(source: Source) -> tuple[list[Face], list[str]]:
    """The faces of all samples, and messages about samples without a picture."""
    samples: dict[str, dict[str, str]] = {}
    for name in source.names:
        kind = "picture" if _is_picture(name) else posixpath.splitext(name)[1].lower()
        files = samples.setdefault(_sample(name), {})
        if kind in files and kind in ("picture", ".json"):
            raise InputError(f"{source.where(name)}: a second {kind} of one sample: keep one of them")
        files[kind] = name
    told = {sample: _record(source, files[".json"]) for sample, files in samples.items() if ".json" in files}
    # The archive says the split.
    records = dict(zip(told, with_known_keys(list(told.values()), usage=False), strict=True))
    splits = _splits(source, set(map(_archive, samples)))
    faces, absent = [], []
    for sample, files in samples.items():
        record = records.get(sample)
        if "picture" in files:
            expression = record.expression() if record is not None else None
            faces.append(Face(files["picture"], splits[_archive(sample)], expression, record))
        elif record is not None:
            absent.append(f"{record.file}: no picture beside it: delete it or add the picture")
    found = {face.split for face in faces}
    if ALL in found and len(found) > 1:
        stray = next(face.name for face in faces if face.split == ALL)
        raise InputError(f"{source.where(stray)}: in no split, though others are: call its archive train-000000.tar")
    return faces, absent


def _record(source: Source, name: str) -> Record:
    try:
        values = json.loads(source.read(name))
    except (ValueError, RecursionError) as error:  # also text of another encoding
        raise InputError(f"{source.where(name)}: broken JSON ({error}): mend it") from None
    if not isinstance(values, dict):
        raise InputError(f"{source.where(name)}: not a JSON object: write one {{...}}")
    return Record(values, source.where(name), 1)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in posixpath.normpath(name).split("/"))


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _sample(name: str) -> str:
    """What the files of a sample have in common: their name up to the first dot."""
    folder, file = posixpath.split(name)
    return posixpath.join(folder, file.split(".", 1)[0])


def _archive(sample: str) -> str:
    """The name of the archive that a sample is in."""
    return sample[: sample.index(".tar/") + len(".tar")]


def _splits(source: Source, archives: Collection[str]) -> dict[str, str]:
    """The split of each archive, as its name or the folder it is in tells it (see :func:`splits_told`), or ``all``.

    Raises:
        InputError: if one tells two splits (``datasets`` would put its faces in both).
    """
    words = {name: splits_told(Path(name)) for name in archives}
    for name, told in sorted(words.items()):
        if len(set(told.values())) > 1:
            raise InputError(f"{source.where(name)}: its name tells two splits, {' and '.join(told)}: keep one of them")
    return {name: next(iter(told.values()), ALL) for name, told in words.items()}
