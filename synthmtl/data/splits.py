"""Splits and folds that keep each subject on one side and the classes in proportion.

Where no subject is known, identical and nearly identical images stand for one: they are kept together.
The assignment is greedy, as in Sechidis et al., "On the Stratification of Multi-Label Data", 2011.
"""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from synthmtl.data.duplicates import duplicate_groups
from synthmtl.data.randomness import derive_seed
from synthmtl.data.storage import take_faces
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

logger = logging.getLogger("synthmtl")
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""Shares of a data set that comes without splits."""


def check_classes(table: FaceTable, what: str = "the data", *, every_class: bool = True) -> None:
    """Stop when there is nothing to learn or nothing to hold out.

    Args:
        table: the faces.
        what: they are called.
        every_class: False lets classes have one face or none, as long as two classes have some: what a network knows
            from elsewhere need not be in the data.

    Raises:
        InputError: if fewer than two classes have faces, or one of ``table.classes`` has fewer than two.
    """
    counts = table.counts()
    if not len(table):
        raise InputError(f"{what}: no faces: add images")
    present = [name for name, count in counts.items() if count]
    if len(present) < 2:
        raise InputError(f"{what}: only {present or 'no'} expression: add images of at least one more class")
    for name, count in counts.items():
        if every_class and count < 2:
            number = "one image" if count else "no images"
            raise InputError(f"{what}: class {name!r} has {number}: add images (at least 2) or leave the class out")


def split_unit(table: FaceTable) -> str:
    """What is kept together when a table is split: ``subject``, or ``image`` when no subject is known."""
    return "subject" if bool((table.subject >= 0).any()) else "image"


def split_by_subject(
    table: FaceTable,
    shares: Mapping[str, float] = SHARES,
    seed: int = 0,
    *,
    require_expression: bool = True,
    every_class: bool = True,
    reuse: bool = False,
) -> dict[str, FaceTable]:
    """Parts of a table that share no subject, each with its share of every class as nearly as subjects allow.

    Args:
        table: N faces. Those of unknown subject are spread by image, look-alikes together; when no subject is known
            at all, the log says so (:func:`split_unit` tells beforehand).
        shares: part → share; the shares must sum to 1.
        seed: the same seed gives the same parts.
        require_expression: False takes faces that carry other labels only, too.
        every_class: as for :func:`check_classes`; the one face of a class goes to the largest part.
        reuse: the table's pixels become those of the largest part, so that a large set is not held twice; the table
            is not to be used any more then.

    Returns:
        The parts by name; rows keep their order.

    Raises:
        InputError: if the classes are too few or too small (:func:`check_classes`), or there are fewer subjects than
            parts.
    """
    if require_expression:
        check_classes(table, every_class=every_class)
    names, sizes = list(shares), np.array(list(shares.values()), dtype=float)
    if (sizes <= 0).any() or abs(sizes.sum() - 1) > 1e-6:
        raise InputError(f"shares of a split must be positive and sum to 1, not {dict(shares)}")
    part = _assign(table, sizes, seed)
    rows = {name: torch.from_numpy(np.flatnonzero(part == i)) for i, name in enumerate(names)}
    if not reuse:
        return {name: table.select(index) for name, index in rows.items()}
    largest = max(rows, key=lambda name: len(rows[name]))
    parts = {name: _apart(table.select(index), table) for name, index in rows.items() if name != largest}
    parts[largest] = table.select(rows[largest], reuse=True)
    return {name: parts[name] for name in names}


def _apart(part: FaceTable, table: FaceTable) -> FaceTable:
    """The part with pixels of its own: rows that follow on each other share those of the table."""
    mine, its = (each.images.untyped_storage().data_ptr() for each in (part, table))
    return part.replace(images=part.images.clone()) if mine == its else part


def subject_folds(table: FaceTable, folds: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Cross-validation: ``folds`` times the rows to train on and the rows held out, no subject in both.

    Raises:
        InputError: as :func:`split_by_subject`, or if ``folds`` < 2.
    """
    if folds < 2:
        raise InputError(f"folds must be at least 2, not {folds}")
    check_classes(table)
    part = torch.from_numpy(_assign(table, np.full(folds, 1 / folds), seed))
    return [(torch.where(part != fold)[0], torch.where(part == fold)[0]) for fold in range(folds)]


def _groups(table: FaceTable) -> np.ndarray:
    """(N,) group numbers 0..G-1: subjects, and sets of look-alikes among the faces without one."""
    unknown = table.subject < 0
    keys = table.subject.clone()
    if bool(unknown.any()):
        images = take_faces(table.images, torch.where(unknown)[0])
        keys[unknown] = int(keys.max().clamp(min=-1)) + 1 + duplicate_groups(images)
        if bool(unknown.all()):
            logger.warning("no subject is known: splitting by image; people may appear in several splits")
        else:
            logger.warning("%d faces have no subject: these are split by image", int(unknown.sum()))
    return torch.unique(keys, return_inverse=True)[1].numpy()


def _assign(table: FaceTable, shares: np.ndarray, seed: int) -> np.ndarray:
    """(N,) part of each row."""
    groups, kinds = _groups(table), len(table.classes) + 1  # faces without expression are a kind of their own
    counts = np.zeros((groups.max() + 1, kinds))
    np.add.at(counts, (groups, table.expression.numpy() % kinds), 1)
    if len(counts) < len(shares):
        unit = split_unit(table)
        raise InputError(f"{len(counts)} {unit}s cannot be split into {len(shares)} parts: add faces of more {unit}s")
    totals = counts.sum(0)
    counts, totals = counts[:, totals > 0], totals[totals > 0]
    need = np.outer(shares, totals)
    have = np.zeros_like(need)
    part = np.full(len(counts), -1)
    seed = seed if seed >= 0 else derive_seed("split", seed)  # NumPy takes none below 0
    random = np.random.default_rng(seed).permutation(len(counts))
    order = random[np.argsort(-(counts[random] / totals).sum(1), kind="stable")]

    def put(group: int, into: int | np.integer) -> None:
        part[group] = into
        have[into] += counts[group]

    # First a small group of each class for each part, rare classes first, so that no part goes without; a part larger
    # than all others is the one to train on, which needs two faces of a class before any other part has one.
    least = np.where((shares == shares.max()) & (np.sum(shares == shares.max()) == 1), 2, 1)
    for kind in np.argsort((counts > 0).sum(0), kind="stable"):
        for into in np.argsort(-shares, kind="stable"):
            while have[into, kind] < least[into]:
                free = order[(part[order] < 0) & (counts[order, kind] > 0)]
                if not len(free):
                    break
                put(free[np.argmin(counts[free].sum(1))], into)
    for into in np.flatnonzero(have.sum(1) == 0):
        free = order[part[order] < 0]
        if not len(free):  # few groups, all given away: the part with the most gives its smallest back
            most = np.bincount(part, minlength=len(shares)).argmax()
            owned = np.flatnonzero(part == most)
            last = ((counts[owned] > 0) & (counts[owned] == have[most])).any(1)  # of a class; it stays if others can go
            free = owned[np.lexsort((counts[owned].sum(1), last))[:1]]
            have[most] -= counts[free[-1]]
        put(free[-1], into)
    # Then each group goes where it brings the counts nearest to the wanted ones, measured in shares of each class.
    for group in order[part[order] < 0]:
        count = counts[group]
        cost = ((count * (2 * (have - need) + count)) / (need * totals)).sum(1)
        put(group, int(np.argmin(cost)))
    return part[groups]
