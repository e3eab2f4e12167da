"""A data set's files, in a folder or straight from a zip archive, by names relative to its root."""

import functools
import logging
import os
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from synthmtl.data.images import MAX_BYTES, Box, DecodedFace, decode_face, strict_size_warnings, too_many_bytes
from synthmtl.data.storage import new_faces
from synthmtl.errors import InputError
from synthmtl.progress import shown

logger = logging.getLogger("synthmtl")

_CHUNK = 512
_LISTED = 10
_LARGE = 20_000  # bytes; decoding a smaller file holds the interpreter's lock for most of its time


class Source:
    """Files below a folder or in a ``.zip``; hidden files and macOS' resource forks are left out.

    Links in the folder are followed wherever they lead, for whoever put them there chose so: pictures may lie on
    another disk. Names that come from a file of labels may not lead out of the folder (by ``..`` or from ``/``).

    Attributes:
        path: the folder or archive.
        names: sorted names of the files, with ``/`` between folders (whatever stands there in an archive); a folder is
            walked when they are first asked for.

    Raises:
        InputError: if the path is missing, or neither a folder nor a readable zip archive.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._zip = None
        if self.path.is_file() and zipfile.is_zipfile(self.path):
            try:  # a version of the format that is newer than zipfile is a NotImplementedError
                self._zip = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
                raise InputError(f"{self.path}: damaged zip archive ({error}): download or pack it again") from None
        elif not self.path.exists():
            raise InputError(f"{self.path}: no such folder or file: check the path")
        elif not self.path.is_dir():
            raise InputError(f"{self.path}: neither a folder nor a zip archive of images: give one of these")

    @functools.cached_property
    def names(self) -> list[str]:
        """See the class."""
        names = _walk(self.path) if self._zip is None else self._members
        return sorted(name for name in names if not _hidden(name) and not name.endswith("/"))

    @functools.cached_property
    def _members(self) -> dict[str, str]:
        """The archive's own names by those of this class: some tools of Windows put backslashes between folders."""
        own = dict.fromkeys(self._zip.namelist()) if self._zip is not None else {}
        plain = {name: name.replace("\\", "/").removeprefix("./") for name in own}
        return {(name if plain[name] in own else plain[name]): name for name in own}

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *error) -> None:
        if self._zip is not None:
            self._zip.close()

    def where(self, name: str) -> str:
        """A file's full name for messages and provenance."""
        return (self.path / name).as_posix()

    def size(self, name: str) -> int:
        """Bytes of a file (unpacked)."""
        if self._zip is None:
            return (self.path / name).stat().st_size
        return self._zip.getinfo(self._members.get(name, name)).file_size

    def first_line(self, name: str) -> str:
        """The first line of a text, cut after 4096 bytes; empty if it cannot be read."""
        try:
            opened = (self.path / name).open("rb") if self._zip is None else self._zip.open(self._members[name])
            with opened as stream:
                return stream.readline(4096).decode("utf-8-sig", errors="replace")
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
            return ""

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            InputError: if it cannot be read, is larger than ``images.MAX_BYTES``, or its name leads out of the folder.
        """
        if self._zip is None and posixpath.normpath(name).split("/")[0] in ("", ".."):
            raise InputError(f"{self.where(name)}: its name leads out of the data folder: name files below it")
        try:
            size = self.size(name)
            if size > MAX_BYTES:
                raise InputError(f"{self.where(name)}: {too_many_bytes(size)}")
            if self._zip is None:
                return (self.path / name).read_bytes()
            return self._zip.read(self._members.get(name, name))
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.where(name)}: cannot be read ({reason}): replace or delete it") from None


def _walk(root: Path) -> list[str]:
    names: list[str] = []
    above: dict[str, frozenset[str]] = {}  # by folder, the real paths of it and of those it lies in
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        real, outer = os.path.realpath(folder), above.get(os.path.dirname(folder), frozenset())
        if real in outer:  # a link back to a folder above would be walked forever
            subfolders.clear()
            continue
        above[folder] = outer | {real}
        relative = Path(folder).relative_to(root)
        names += [(relative / file).as_posix() for file in files]
    return names


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _large(source: Source, name: str) -> bool:
    try:
        return source.size(name) > _LARGE
    except OSError:
        return False  # reading it will say what is wrong


def decode_faces(
    source: Source,
    names: Sequence[str],
    *,
    image_size: int,
    channels: int,
    on_bad: str = "error",
    boxes: Sequence[Box | None] | None = None,
    see: Callable[[int, DecodedFace], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Many faces, those of large files by a few threads.

    Args:
        source: where the files are.
        names: N files of ``source``.
        image_size, channels: as for :func:`~synthmtl.data.images.read_face`.
        on_bad: ``error`` raises when some files cannot be read, ``skip`` leaves that to the caller.
        boxes: the N faces' boxes in the pictures; None = their central squares.
        see: called with the index and :class:`DecodedFace` of each good file.

    Returns:
        (N, C, S, S) uint8 (rows of bad files are black); (N, 2) width and height before the crop; and the bad files'
        messages by index.

    Raises:
        InputError: with the first ten bad files and their number, unless ``on_bad`` is ``skip``.
    """
    if on_bad not in ("error", "skip"):
        raise InputError(f"on_bad must be error or skip, not {on_bad!r}")
    images = new_faces((len(names), channels, image_size, image_size))
    sizes = np.ones((len(names), 2), np.int64)
    bad = {}

    def decode(index: int) -> tuple[int, DecodedFace | str]:
        try:
            data = source.read(names[index])
            box = boxes[index] if boxes is not None else None
            return index, decode_face(data, source.where(names[index]), image_size, channels, box)
        except InputError as error:
            return index, str(error)

    with strict_size_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        chunks = (range(start, min(start + _CHUNK, len(names))) for start in range(0, len(names), _CHUNK))
        for indices in shown(chunks, f"reading {source.path.name}", unit="image", total=len(names), count=len):
            spread = threads.map if _large(source, names[indices.start]) else map
            for index, face in spread(decode, indices):
                if isinstance(face, str):
                    bad[index] = face
                    continue
                images[index] = face.pixels
                sizes[index] = face.width, face.height
                if see is not None:
                    see(index, face)
    if on_bad == "error":
        refuse_bad(list(bad.values()), len(names))
    return images, sizes, bad


def refuse_bad(messages: Sequence[str], count: int) -> None:
    """End the reading if some of ``count`` images are bad, each of which has a message.

    Raises:
        InputError: with the first ten messages and their number.
    """
    if len(messages) == 1:
        raise InputError(messages[0])
    if messages:
        raise InputError(f"{len(messages)} of {count} images cannot be read: {first_of(messages)}")


def report_bad(messages: Sequence[str], count: int) -> None:
    """Log how many of ``count`` images are left out, and which (``findings`` of the first record, for inspections)."""
    if messages:
        found = {"findings": {"bad_files": list(messages)}}
        logger.warning("left out %d of %d images, which cannot be read:", len(messages), count, extra=found)
    for message in messages:
        logger.warning("left out: %s", message, extra={"findings": {}})


def report_ignored(files: Sequence[str]) -> None:
    """Log how many image files are none of the faces (all of them as the record's ``findings``)."""
    said = "ignored %d image files in no class folder and no metadata, or of a format that is not read (first: %s)"
    logger.warning(said, len(files), files[0], extra={"findings": {"ignored": list(files)}})


def report_hints(messages: Sequence[str]) -> None:
    """Log each message about what was read, but perhaps not as it was meant (``warnings`` of an inspection)."""
    for message in messages:
        logger.warning(message, extra={"findings": {"warnings": [message]}})


def first_of(messages: Sequence[str]) -> str:
    """The first ten messages in one line, and how many more there are."""
    more = f"; and {len(messages) - _LISTED} more" if len(messages) > _LISTED else ""
    return "; ".join(messages[:_LISTED]) + more
