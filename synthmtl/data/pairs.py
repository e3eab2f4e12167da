"""Which faces can teach an edit: same-subject pairs where there are any, other people's faces where there are none."""

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
    key = table.subject.clone()
    known = table.session >= 0
    if known.any():
        key = torch.where(known & (table.subject >= 0), key * (int(table.session.max()) + 1) + table.session, -1)
    return key


class PairIndex:
    """For every face, the faces of its group that show another expression.

    Args:
        table: the faces; those without an expression or a group have no partners.

    Attributes:
        rows: (P,) rows that have at least one partner.
    """

    def __init__(self, table: FaceTable):
        groups = pair_groups(table)
        usable = torch.where((groups >= 0) & (table.expression >= 0))[0]
        order = usable[torch.argsort(groups[usable], stable=True)]
        _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
        partners: dict[int, Tensor] = {}
        for members in order.split(sizes.tolist()):
            expression = table.expression[members]
            for row, own in zip(members.tolist(), expression.tolist(), strict=True):
                others = members[expression != own]
                if len(others):
                    partners[row] = others
        self.rows = torch.tensor(sorted(partners), dtype=torch.int64)
        self.counts = torch.tensor([len(partners[row]) for row in self.rows.tolist()], dtype=torch.int64)
        self._partners = torch.cat([partners[r] for r in self.rows.tolist()]) if len(self.rows) else self.rows
        self._starts = self.counts.cumsum(0) - self.counts

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """A partner of each of ``rows`` (each one of ``self.rows``), chosen by ``uniform`` numbers in [0, 1)."""
        position = torch.searchsorted(self.rows, rows)
        offset = (uniform * self.counts[position]).long().clamp(max=self.counts[position] - 1)
        return self._partners[self._starts[position] + offset]


def edit_mode(table: FaceTable, *, share: float = 0.5) -> str:
    """``paired`` if at least ``share`` of the faces, and one of every class, have a partner; else ``unpaired``."""
    index = PairIndex(table)
    covered = torch.zeros(len(table.classes), dtype=torch.bool)
    covered[table.expression[index.rows]] = True
    present = torch.tensor([count > 0 for count in table.counts().values()])
    return "paired" if len(index) >= share * len(table) and bool((covered | ~present).all()) else "unpaired"


class EditSampler:
    """Draws (source, target) rows of a table, targets in equal numbers per class; a pure function of the step.

    Args:
        table: the faces.
        paired: True takes sources from the target's own pair group, False from the whole table. Either way the
            source shows another expression than the target.
        classes: target classes as indices; None = all present.

    Raises:
        InputError: if no pair exists, or fewer than two classes have faces.
    """

    def __init__(self, table: FaceTable, *, paired: bool, classes: Sequence[int] | None = None):
        self.paired = paired
        self.pairs = PairIndex(table) if paired else None
        if self.pairs is not None and not len(self.pairs):
            raise InputError("paired training needs two expressions of one subject in one session: the data have none")
        rows = self.pairs.rows if self.pairs is not None else torch.where(table.expression >= 0)[0]
        expression = table.expression[rows]
        present = [c for c in expression.unique().tolist() if classes is None or c in classes]
        if not present or len(table.expression[table.expression >= 0].unique()) < 2:
            raise InputError("editing needs faces of at least two expressions")
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
