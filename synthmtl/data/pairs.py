"""Which faces can teach an edit: same-subject pairs where there are any, other people's faces where there are none.

Only real faces do: synthesized ones bear the subject and session of the face that they were edited from, so that a
generator would learn its predecessor's output as pairs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from synthmtl.data.randomness import StepRandom
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError


def pair_groups(table: FaceTable) -> Tensor:
    """Group of each face, (N,) int64: equal for faces that may be paired, -1 for none.

    Where sessions are known, faces of one subject and one session form a group (same pose, light and framing);
    otherwise all faces of a subject do.
    """
    known = table.session >= 0
    if not known.any():
        return table.subject.clone()
    # Numbered anew, since the product of two long numbers would overflow.
    subject, session = (torch.unique(ids, return_inverse=True)[1] for ids in (table.subject, table.session))
    key = subject * (int(session.max()) + 1) + session
    return torch.where(known & (table.subject >= 0), key, -1)


class PairIndex:
    """For every real face, the real faces of its group that show another expression.

    Args:
        table: the faces; those that are synthesized, or without an expression or a group, are in no pair.

    Attributes:
        rows: (P,) rows that have at least one partner.
    """

    def __init__(self, table: FaceTable):
        groups = pair_groups(table)
        usable = torch.where((groups >= 0) & (table.expression >= 0) & ~table.synthetic)[0]
        # By group, by expression within it, by row within that: a face's partners are its group's stretch without the
        # stretch of its own expression. So what is kept grows with the faces and not with the pairs.
        order = usable[torch.argsort(table.expression[usable], stable=True)]
        order = order[torch.argsort(groups[order], stable=True)]
        group = torch.unique_consecutive(groups[order], return_inverse=True)[1]
        own = torch.unique_consecutive(torch.stack([group, table.expression[order]]), return_inverse=True, dim=1)[1]
        (group_start, group_size), (own_start, own_size) = (_stretches(ids) for ids in (group, own))
        counts = group_size - own_size
        kept = torch.where(counts > 0)[0]
        kept = kept[torch.argsort(order[kept])]
        self._order = order
        self.rows, self.counts = order[kept], counts[kept]
        self._group_start, self._own_start, self._own_size = group_start[kept], own_start[kept], own_size[kept]

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """A partner of each of ``rows`` (each one of ``self.rows``), chosen by ``uniform`` numbers in [0, 1)."""
        position = torch.searchsorted(self.rows, rows)
        offset = (uniform * self.counts[position]).long().clamp(max=self.counts[position] - 1)
        place = self._group_start[position] + offset
        beyond = place >= self._own_start[position]
        return self._order[torch.where(beyond, place + self._own_size[position], place)]


def _stretches(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of each entry of 0, 0, 1, 2, 2, ...: where its stretch of equal ids begins, and how long it is."""
    sizes = torch.bincount(ids)
    return (sizes.cumsum(0) - sizes)[ids], sizes[ids]


def edit_mode(table: FaceTable, *, share: float = 0.5) -> str:
    """``paired`` if at least ``share`` of the real faces, and one of every class of theirs, have a partner; else
    ``unpaired``."""
    index, real = PairIndex(table), ~table.synthetic
    covered, present = torch.zeros(2, len(table.classes), dtype=torch.bool)
    covered[table.expression[index.rows]] = True
    present[table.expression[real & (table.expression >= 0)]] = True
    return "paired" if len(index) >= share * int(real.sum()) and bool((covered | ~present).all()) else "unpaired"


class EditSampler:
    """Draws (source, target) rows of a table, targets in equal numbers per class; a pure function of the step.

    Args:
        table: the faces; synthesized ones are never drawn.
        paired: True takes sources from the target's own pair group, False from all real faces. Either way the
            source shows another expression than the target.
        classes: target classes as indices; None = all present.

    Raises:
        InputError: if no pair exists, or fewer than two classes have real faces.
    """

    def __init__(self, table: FaceTable, *, paired: bool, classes: Sequence[int] | None = None):
        self.paired = paired
        self.pairs = PairIndex(table) if paired else None
        if self.pairs is not None and not len(self.pairs):
            raise InputError("paired training needs two expressions of one subject in one session: the data have none")
        usable = (table.expression >= 0) & ~table.synthetic
        rows = self.pairs.rows if self.pairs is not None else torch.where(usable)[0]
        expression = table.expression[rows]
        present = [c for c in expression.unique().tolist() if classes is None or c in classes]
        if not present or len(table.expression[usable].unique()) < 2:
            raise InputError("editing needs real faces of at least two expressions")
        self.by_class = {c: rows[expression == c] for c in present}
        self.not_class = {} if paired else {c: rows[expression != c] for c in present}

    def rows(self, count: int, random: StepRandom, name: str = "edit") -> tuple[Tensor, Tensor]:
        """Source and target rows, (count,) each, of this process's share of the batch."""
        random = random.to("cpu")
        present = list(self.by_class)
        # Classes in turn from a random start: equal numbers up to rounding in the global batch.
        turn = random.positions(count) + int(random.shared_integers(f"{name}-start", len(present), 1))
        chosen = [present[t] for t in (turn % len(present)).tolist()]
        pick, partner = random.uniform(f"{name}-target", count), random.uniform(f"{name}-source", count)

        def at(pool: Tensor, u: float) -> Tensor:
            return pool[min(int(u * len(pool)), len(pool) - 1)]

        target = torch.stack([at(self.by_class[c], u) for c, u in zip(chosen, pick.tolist(), strict=True)])
        if self.pairs is not None:
            return self.pairs.draw(target, partner), target
        source = torch.stack([at(self.not_class[c], u) for c, u in zip(chosen, partner.tolist(), strict=True)])
        return source, target
