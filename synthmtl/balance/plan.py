"""Which faces to synthesize, from which sources, with which seeds."""

import hashlib
import heapq
from dataclasses import dataclass

import torch
from torch import Tensor

from synthmtl.balance.strategy import Strategy, resolve_strategy, strategy_for_report
from synthmtl.data.randomness import derive_seed
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

SOURCES = ("any", "neutral_first")
"""Which faces may be edited: any of another expression, or neutral ones wherever there are some."""


@dataclass(frozen=True)
class BalancePlan:
    """M wanted faces, class by class.

    Attributes:
        classes: expressions, as in the table.
        strategy: its name, or the wanted totals.
        counts: faces per class before balancing.
        requested: faces to add per class; every class is named.
        target: (M,) int64, the wanted expression.
        sources: (M, A) int64, rows of the table to edit, each of another expression; the first is tried first.
        seeds: (M,) int64, one for each wanted face.
    """

    classes: tuple[str, ...]
    strategy: str | dict[str, int]
    counts: dict[str, int]
    requested: dict[str, int]
    target: Tensor
    sources: Tensor
    seeds: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def candidate(self, faces: Tensor, attempt: int) -> tuple[Tensor, list[int]]:
        """Source row (B,) and style seed of an attempt (0, 1, ...) at wanted ``faces`` (B,).

        Every source is tried with two styles before the next one's turn; after the last comes the first again, with
        further styles.
        """
        column = attempt // 2 % self.sources.shape[1]
        seeds = [derive_seed("style", seed, attempt) for seed in self.seeds[faces].tolist()]
        return self.sources[faces, column], seeds

    def fingerprint(self) -> str:
        """16 hex digits that change with anything in the plan."""
        digest = hashlib.sha256(repr((self.classes, self.counts)).encode())
        for column in (self.target, self.sources, self.seeds):
            digest.update(column.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def make_plan(
    table: FaceTable, strategy: Strategy = "auto", *, seed: int = 0, sources: str = "any", candidates: int = 2
) -> BalancePlan:
    """Plan the faces that a table lacks.

    Sources are real, labelled faces of another expression. Within each target class every subject that has some is
    used equally often, up to one, and every such face of the subject; who gets the remainder is who was used least for
    the other classes. A face of unknown subject counts as a subject of its own. Second and further sources of a wanted
    face show another subject than the one before, where there is another.

    Args:
        table: the training faces; nothing else may be balanced.
        strategy: as for :func:`~synthmtl.balance.strategy.resolve_strategy`.
        seed: of the assignment and of every face's seed.
        sources: ``any``, or ``neutral_first``: of each subject only neutral faces, where it has some; of faces of
            unknown subject only neutral ones, where there are some. Targets other than neutral only.
        candidates: A, sources of each wanted face.

    Raises:
        InputError: as ``resolve_strategy``, or if a class that needs faces has no face of another expression to edit.
    """
    if sources not in SOURCES:
        raise InputError(f"unknown sources {sources!r}: use one of {', '.join(SOURCES)}")
    if candidates < 1:
        raise InputError(f"candidates must be at least 1, not {candidates}")
    counts = table.counts()
    requested = resolve_strategy(counts, strategy)
    numbers = [(name, i) for name, count in requested.items() for i in range(count)]
    columns = _spread(
        {name: _pool(table, name, sources) for name, count in requested.items() if count},
        requested,
        _groups(table),
        candidates,
        torch.Generator().manual_seed(derive_seed("plan", seed)),
    )
    return BalancePlan(
        classes=table.classes,
        strategy=strategy_for_report(counts, strategy),
        counts=counts,
        requested=requested,
        target=torch.tensor([table.classes.index(name) for name, _ in numbers], dtype=torch.int64),
        sources=torch.tensor([columns[n][i] for n, i in numbers], dtype=torch.int64).reshape(len(numbers), candidates),
        seeds=torch.tensor([derive_seed("face", seed, name, i) for name, i in numbers], dtype=torch.int64),
    )


def _groups(table: FaceTable) -> Tensor:
    """(N,) int64: a number for each subject, and one of its own for each face of unknown subject."""
    alone = int(table.subject.max()) + 1 + torch.arange(len(table)) if len(table) else table.subject
    return torch.where(table.subject >= 0, table.subject, alone)


def _pool(table: FaceTable, target: str, sources: str) -> Tensor:
    """Rows that may be edited to ``target``."""
    expression, usable = table.expression, (table.expression >= 0) & ~table.synthetic
    usable &= expression != table.classes.index(target)
    if not usable.any():
        raise InputError(f"cannot synthesize {target}: there is no real face of another expression to edit")
    if sources == "neutral_first" and target != "neutral" and "neutral" in table.classes:
        neutral = usable & (expression == table.classes.index("neutral"))
        # Unknown subjects share the value -1 here: one neutral face of any of them is enough.
        usable &= neutral | ~torch.isin(table.subject, table.subject[neutral])
    return torch.where(usable)[0]


def _spread(
    pools: dict[str, Tensor], requested: dict[str, int], groups: Tensor, candidates: int, generator: torch.Generator
) -> dict[str, list[list[int]]]:
    """Rows for each face of each class: the group, then the row in it, that this class used least, then all did."""
    group_of = groups.tolist()
    group_uses, row_uses = dict.fromkeys(group_of, 0), dict.fromkeys(range(len(groups)), 0)
    members: dict[str, dict[int, list[int]]] = {}
    by_group, by_row = {}, {name: {} for name in pools}
    for name, pool in pools.items():
        rows_of = members[name] = {}
        for row in pool[torch.randperm(len(pool), generator=generator)].tolist():
            rows_of.setdefault(group_of[row], []).append(row)
        known, order = list(rows_of), torch.randperm(len(rows_of), generator=generator).tolist()
        by_group[name] = _LeastUsed([known[i] for i in order], group_uses)
    chosen = {name: [[] for _ in range(requested[name])] for name in pools}
    # Classes advance together, so that each can spare the groups that the others use.
    turns = sorted(((i + 0.5) / requested[name], name, i) for name in pools for i in range(requested[name]))
    for _ in range(candidates):  # all first choices before any second one, so that they are spread best
        for _, name, i in turns:
            before = chosen[name][i]
            group = by_group[name].take(avoid=group_of[before[-1]] if before else None)
            if group not in by_row[name]:
                by_row[name][group] = _LeastUsed(members[name][group], row_uses)
            before.append(by_row[name][group].take())
    return chosen


class _LeastUsed:
    """Deals out keys: the one that it dealt out least, of these the least in ``total``, then in the given order.

    ``total`` counts uses and may be shared with others.
    """

    def __init__(self, keys: list[int], total: dict[int, int]):
        self.total = total
        self.heap = [(0, total[key], place, key) for place, key in enumerate(keys)]
        heapq.heapify(self.heap)

    def take(self, avoid: int | None = None) -> int:
        """The next key; another one than ``avoid`` where there are several."""
        entry = self._pop()
        if entry[-1] == avoid and self.heap:
            avoided, entry = entry, self._pop()
            heapq.heappush(self.heap, avoided)
        own, _, place, key = entry
        self.total[key] += 1
        heapq.heappush(self.heap, (own + 1, self.total[key], place, key))
        return key

    def _pop(self) -> tuple[int, int, int, int]:
        while True:
            own, total, place, key = heapq.heappop(self.heap)
            if total == self.total[key]:
                return own, total, place, key
            heapq.heappush(self.heap, (own, self.total[key], place, key))  # others used it meanwhile
