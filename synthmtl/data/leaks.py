"""Faces and people that two splits share, and what becomes of them: the leak guard."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from synthmtl.data.duplicates import MIN_MATCH, confirmed_pairs, first_rows, same_picture
from synthmtl.data.storage import FaceRows
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

logger = logging.getLogger("synthmtl")

OnLeak = Literal["drop", "warn", "error"]
"""What becomes of faces that a later split shows, too: left out of the earlier one, kept and told, or refused."""

ON_LEAK: tuple[str, ...] = get_args(OnLeak)
"""The values of :data:`OnLeak`."""


@dataclass(frozen=True)
class Leak:
    """Faces of ``split`` that ``other`` (an earlier split: train before validation before test) has seen.

    Attributes:
        split, other: names of the two splits.
        faces: number of faces in ``split``.
        exact: faces of ``split`` with an identical one in ``other``.
        near: faces of ``split`` with a look-alike in ``other``: identical, nearly identical, or mirrored.
        mirrored: of ``near``, those whose look-alikes are all mirrored.
        exact_other_label: of ``exact``, those where some identical face of ``other`` has another expression.
        near_other_label: of ``near``, likewise.
        subjects: people who are in both.
        rows: (near,) int64, the rows of ``split`` that ``near`` counts, for figures without them.
        other_rows: int64, the rows of ``other`` that have a look-alike in ``split``.
        subject_rows: int64, the rows of ``other`` that show people of ``split``.
    """

    split: str
    other: str
    faces: int
    exact: int
    near: int
    mirrored: int
    exact_other_label: int
    near_other_label: int
    subjects: int
    rows: Tensor
    other_rows: Tensor
    subject_rows: Tensor

    def to_dict(self) -> dict[str, str | int]:
        """All but the rows, for a report."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, Tensor)}

    def describe(self) -> str:
        """One sentence for a log or a report."""
        return (
            f"{self.near} of {self.faces} {self.split} faces have a look-alike in {self.other} ({self.exact} equal in "
            f"every pixel, {self.mirrored} mirrored, {self.near_other_label} with another label); "
            f"{self.subjects} people are in both."
        )


def leaks(splits: Mapping[str, FaceTable], *, min_match: float = MIN_MATCH) -> list[Leak]:
    """One :class:`Leak` for each pair of splits, counted in the later one of the mapping's order.

    Args:
        splits: tables of one image size over the same classes, in the order train, validation, test.
        min_match: as for :func:`~synthmtl.data.duplicates.near_duplicates`.
    """
    names = list(splits)
    return [
        _leak(other, splits[other], split, splits[split], min_match)
        for later, split in enumerate(names)
        for other in names[:later]
    ]


def _leak(other: str, a: FaceTable, split: str, b: FaceTable, min_match: float) -> Leak:
    # A picture with one label needs to be searched once, however often it is repeated.
    inverse_a, inverse_b = (same_picture(table.images, table.expression) for table in (a, b))
    rows_a, rows_b = first_rows(inverse_a), first_rows(inverse_b)
    labels_a, labels_b = a.expression[rows_a], b.expression[rows_b]
    seen = torch.zeros(len(rows_a), dtype=torch.bool)
    near, straight, near_other, exact, exact_other = torch.zeros(5, len(rows_b), dtype=torch.bool)

    def differ(i: Tensor, j: Tensor) -> Tensor:
        return (labels_a[i] != labels_b[j]) & (labels_a[i] >= 0) & (labels_b[j] >= 0)

    def tells_more(i: Tensor, j: Tensor, mirrored: Tensor) -> Tensor:
        return ~(seen[i] & near[j]) | ~(straight[j] | mirrored) | (differ(i, j) & ~near_other[j])

    faces = FaceRows(a.images, rows_a), FaceRows(b.images, rows_b)
    for pairs in confirmed_pairs(*faces, min_match=min_match, wanted=tells_more):
        differs = differ(pairs.first, pairs.second)
        seen[pairs.first] = near[pairs.second] = True
        straight[pairs.second[~pairs.mirrored]] = True
        near_other[pairs.second[differs]] = True
        exact[pairs.second[pairs.exact]] = True
        exact_other[pairs.second[pairs.exact & differs]] = True

    def count(which: Tensor) -> int:
        return int(which[inverse_b].sum())

    people = [table.subject[table.subject >= 0].unique() for table in (a, b)]
    shared = people[0][torch.isin(*people)]
    return Leak(
        split=split,
        other=other,
        faces=len(b),
        exact=count(exact),
        near=count(near),
        mirrored=count(near & ~straight),
        exact_other_label=count(exact_other),
        near_other_label=count(near_other),
        subjects=len(shared),
        rows=torch.where(near[inverse_b])[0],
        other_rows=torch.where(seen[inverse_a])[0],
        subject_rows=torch.where(torch.isin(a.subject, shared))[0],
    )


def guard(
    splits: Mapping[str, FaceTable], on_leak: OnLeak, where: str | Path, *, reuse: bool = False
) -> tuple[dict[str, FaceTable], list[str]]:
    """Splits of which none has seen a later one, if so wished.

    Args:
        splits: tables of one image size over the same classes, in the order train, validation, test.
        on_leak: ``drop`` leaves out the training faces that have a look-alike in validation or test, or show people
            who are there, and the validation faces that have a look-alike in test; ``warn`` keeps all; ``error`` stops.
        where: the data set, for messages.
        reuse: the pixels of ``splits`` may be moved, so that what stays of a large split is not held twice; they are
            not to be used any more then. No two splits may share a face's memory.

    Returns:
        The splits, and sentences for the log and the report.

    Raises:
        InputError: if there is a leak and ``on_leak`` is ``error``, if no validation face is left, or if ``on_leak``
            is none of :data:`ON_LEAK`. Whether the training faces that are left suffice is for the caller to say.
    """
    check_on_leak(on_leak)
    found = [leak for leak in leaks(splits) if leak.near or leak.subjects]
    notes = [leak.describe() for leak in found]
    if found and on_leak == "error":
        raise InputError(
            f"{where}: {' '.join(notes)} Remove them, or set on_leak to drop (leaves them out of the earlier split) "
            "or warn"
        )
    tables = dict(splits)
    if on_leak == "drop":
        for name in list(tables)[:-1]:
            mine = [leak for leak in found if leak.other == name]
            tables[name], said = _without(tables[name], name, mine, reuse)
            notes += said
            if not len(tables[name]):
                later = " and ".join(leak.split for leak in mine)
                raise InputError(
                    f"{where}: every {name} face is in {later}, too: give other ones, or keep them with on_leak warn"
                )
    for note in notes:
        logger.info(note)
    return tables, notes


def check_on_leak(on_leak: str) -> None:
    """Stop at an unknown policy.

    Raises:
        InputError: listing the known ones.
    """
    if on_leak not in ON_LEAK:
        raise InputError(f"on_leak is {on_leak!r}: it must be {', '.join(ON_LEAK[:-1])} or {ON_LEAK[-1]}")


def _without(table: FaceTable, name: str, found: Sequence[Leak], reuse: bool) -> tuple[FaceTable, list[str]]:
    """A split without what ``found`` names of it; people count in training only, which alone can learn them."""
    alike, person = torch.zeros(2, len(table), dtype=torch.bool)
    for leak in found:
        alike[leak.other_rows] = True
        if name == "train":
            person[leak.subject_rows] = True
    gone = alike | person
    if not gone.any():
        return table, []
    labels = table.expression[gone]
    by_class = {c: n for i, c in enumerate(table.classes) if (n := int((labels == i).sum()))}
    unlabelled = int((labels < 0).sum())
    by_class |= {"without expression": unlabelled} if unlabelled else {}
    sums = ", ".join(f"{c} {count}" for c, count in by_class.items())
    why = [f"{int(alike.sum())} as look-alikes"] if alike.any() else []
    why += [f"{int((person & ~alike).sum())} as people"] if (person & ~alike).any() else []
    later = " or ".join(leak.split for leak in found)
    note = f"Left {len(labels)} of {len(table)} {name} faces out, {' and '.join(why)} of {later} faces: {sums}."
    return table.select(~gone, reuse=reuse), [note]
