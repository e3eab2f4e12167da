"""Which photograph a synthesised face was edited from: ``source_file`` is matched to the files of a data set."""

import os
import posixpath
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import torch
from torch import Tensor

from synthmtl.data.readers.metadata import SOURCE_KEY
from synthmtl.data.readers.split_names import canonical_split
from synthmtl.data.table import FaceTable, attribute_words
from synthmtl.labels import canonical_expression

_Parts = tuple[str, ...]


def sources_of(table: FaceTable) -> list[str | None]:
    """``source_file`` (N) of each face of a table that was read from a data set, where it has one."""
    return attribute_words(table, SOURCE_KEY) if SOURCE_KEY in table.attributes else [None] * len(table)


def photographs_of(sources: Sequence[str | None], tables: Sequence[FaceTable]) -> tuple[Tensor, Tensor, Tensor]:
    """The photograph that each of M sources names.

    It goes by its file and, in a balanced set, by its own ``source_file``. What is found by neither goes by its place
    within the data set, whose folder may have another name by now.

    Returns:
        (M,) int64, the number of the table that holds it, and its row there; both -1 = none or many. (M,) bool, whether
        it was found by its place only.
    """
    where, *names = _photographs(tables)
    found, by_file = torch.full((len(sources),), -1), torch.zeros(len(sources), dtype=torch.bool)
    for match in (match_files, match_places):
        for files in names:
            left = [None if known else name for name, known in zip(sources, (found >= 0).tolist(), strict=True)]
            if any(left):  # most often the files say it all
                found = torch.maximum(found, match(files, left))
        by_file = found >= 0 if match is match_files else by_file
    number, row = torch.tensor([*where, (-1, -1)])[found].T
    return number, row, (found >= 0) & ~by_file


def homes_of(sources: Sequence[str | None], tables: Sequence[FaceTable]) -> Tensor:
    """(M,) int64, the number of the table that holds the photograph which each source names; -1 = none or many."""
    return photographs_of(sources, tables)[0]


def may_be_edits_of(
    sources: Sequence[str | None], held_out: Sequence[FaceTable], others: Sequence[FaceTable]
) -> tuple[Tensor, Tensor]:
    """Which of M sources name a photograph that is held out.

    Args:
        sources: of the edits, None = unknown.
        held_out: tables whose photographs nothing may be edited from.
        others: the rest of the data set.

    Returns:
        (M,) bool, those that do, or may: one of the photographs that fit the name is held out. A set that was balanced
        twice may say of one photograph that it was called as the file of another one is now: both fit. (M,) bool, those
        whose name fits no photograph of the data set.
    """
    where, *names = _photographs([*held_out, *others])
    found: list[set[int]] = [set() for _ in sources]
    for find in (_by_file, _by_place):
        left = [None if rows else name for name, rows in zip(sources, found, strict=True)]
        for files in names if any(left) else ():
            for rows, more in zip(found, find(files, left), strict=True):
                rows.update(more)
    shown = [any(where[row][0] < len(held_out) for row in rows) for rows in found]
    lost = [bool(name) and not rows for name, rows in zip(sources, found, strict=True)]
    return torch.tensor(shown, dtype=torch.bool), torch.tensor(lost, dtype=torch.bool)


def _photographs(tables: Sequence[FaceTable]) -> tuple[list[tuple[int, int]], list[str | None], list[str | None]]:
    """Table and row, file, and own ``source_file`` of every face that is not synthesised."""
    where: list[tuple[int, int]] = []
    files: list[str | None] = []
    own: list[str | None] = []
    for number, table in enumerate(tables):
        called = sources_of(table)
        for row in torch.where(~table.synthetic)[0].tolist():
            where.append((number, row))
            files.append(table.files[row])
            own.append(called[row])
    return where, files, own


def match_files(files: Sequence[str | None], wanted: Sequence[str | None]) -> Tensor:
    """(M,) int64, the one of ``files`` that ends in each wanted name, whole parts of the path only; -1 = none or many.

    Names of sources are stored without the folders above the data set.
    """
    return _only(_by_file(files, wanted))


def match_places(files: Sequence[str | None], wanted: Sequence[str | None]) -> Tensor:
    """(M,) int64, the one of ``files`` whose place within its data set each wanted name ends in; -1 = none or many.

    So faces of a folder that was renamed are found, for ``FACES/fear/1.png`` ends in the place of
    ``renamed/fear/1.png``. A name never loses a split: ``train/fear/1.png`` is not the ``fear/1.png`` of another set.
    """
    return _only(_by_place(files, wanted))


def _only(found: Sequence[Sequence[int]]) -> Tensor:
    """(M,) int64, the row of each, -1 = none or many."""
    return torch.tensor([rows[0] if len(rows) == 1 else -1 for rows in found], dtype=torch.int64)


def _by_file(files: Sequence[str | None], wanted: Sequence[str | None]) -> list[list[int]]:
    return _fitting([_parts(file) for file in files], wanted, _ends)


def _by_place(files: Sequence[str | None], wanted: Sequence[str | None]) -> list[list[int]]:
    def holds(place: _Parts, name: _Parts) -> bool:
        above = name[: -len(place)]
        return name[-len(place) :] == place and not (above and canonical_split(above[-1]))

    return _fitting(_places(files), wanted, holds)


def _fitting(
    files: Sequence[_Parts], wanted: Sequence[str | None], fits: Callable[[_Parts, _Parts], bool]
) -> list[list[int]]:
    """For each of M wanted names the rows of the files whose parts fit its own."""
    by_name: dict[str, list[int]] = {}
    for row, parts in enumerate(files):
        if parts:
            by_name.setdefault(parts[-1], []).append(row)
    found = []
    for name in wanted:
        parts = _parts(name)
        found.append([row for row in by_name.get(parts[-1], []) if fits(files[row], parts)] if parts else [])
    return found


def _parts(file: str | None) -> tuple[str, ...]:
    """The parts of a path, without those that lead out of the folder which a relative one starts from."""
    parts = PurePosixPath(posixpath.normpath(file)).parts if file else ()
    return parts[sum(part == ".." for part in parts) :]


def _ends(have: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    common = min(len(have), len(parts))
    return have[-common:] == parts[-common:]


def _places(files: Sequence[str | None]) -> list[tuple[str, ...]]:
    """The parts of each file below the folder of the data set, which all of them are in.

    A folder of one split or one expression is none of a data set's.
    """
    parts = [_parts(file) for file in files]
    above = os.path.commonprefix([file[:-1] for file in parts if file])  # of tuples, so whole parts
    while above and (canonical_split(above[-1]) or canonical_expression(above[-1])):
        above = above[:-1]
    return [file[len(above) :] for file in parts]
