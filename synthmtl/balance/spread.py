"""Dealing out sources: each subject, and each face of it, as often as the others and no oftener than allowed."""

import heapq
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Key = tuple[str, int]
"""What sources are dealt out to: an expression, and the stratum of its sources."""


def deal(
    pools: dict[Key, Tensor],
    requested: dict[Key, int],
    groups: Tensor,
    candidates: int,
    generator: torch.Generator,
    *,
    max_uses: int | None = None,
) -> dict[Key, list[list[int]]]:
    """Rows for each face of each key: the group, then the row in it, that this key used least, then all did.

    Args:
        pools: rows that may be dealt out to each key.
        requested: faces of each key.
        groups: (N,) int64, the group (subject) of each row.
        candidates: rows a face.
        generator: of the order among equals.
        max_uses: faces, over all keys, that may get a row; None = as many as need be.

    Returns:
        For each face its rows, or none where every row was used up. Where only further rows were, the first one is
        repeated.
    """
    groups = torch.unique(groups, return_inverse=True)[1]
    group_of = groups.tolist()
    group_uses, row_uses = [0] * (max(group_of, default=-1) + 1), [0] * len(group_of)
    members, by_group = {}, {}
    by_row: dict[Key, dict[int, _LeastUsed]] = {key: {} for key in pools}
    unspent: dict[Key, dict[int, list[int]]] = {key: {} for key in pools}
    for key, pool in pools.items():
        shuffled = pool[torch.randperm(len(pool), generator=generator)]
        members[key] = _Members(shuffled, groups[shuffled])
        known = members[key].known
        by_group[key] = _LeastUsed(known[torch.randperm(len(known), generator=generator)], group_uses)

    def is_open(row: int) -> bool:
        return max_uses is None or row_uses[row] < max_uses

    def has_open(key: Key, group: int) -> bool:
        if max_uses is None:
            return True
        if group not in unspent[key]:
            unspent[key][group] = members[key].rows(group)
        rows = unspent[key][group]
        while rows and not is_open(rows[-1]):  # for good, as uses only grow: so each row is passed over once
            rows.pop()
        return bool(rows)

    def draw(key: Key, before: list[int]) -> int | None:
        avoid = group_of[before[-1]] if before else None
        group = by_group[key].take(lambda group: has_open(key, group), avoid)
        if group is None:
            return before[0] if before else None
        if group not in by_row[key]:
            by_row[key][group] = _LeastUsed(members[key].rows(group), row_uses)
        return by_row[key][group].take(is_open)

    chosen: dict[Key, list[list[int]]] = {key: [[] for _ in range(requested[key])] for key in pools}
    # Classes advance together, so that each can spare the groups that the others use.
    turns = sorted(((i + 0.5) / requested[key], key, i) for key in pools for i in range(requested[key]))
    for number in range(candidates):  # all first choices before any second one, so that they are spread best
        for _, key, i in turns:
            before = chosen[key][i]
            if len(before) == number and (row := draw(key, before)) is not None:
                before.append(row)
    return chosen


class _Members:
    """The rows (n,) of a pool by their groups (n,), in the order in which they are given.

    Attributes:
        known: (G,) int64, the groups in the order of their first rows.
    """

    def __init__(self, rows: Tensor, groups: Tensor):
        order = groups.argsort(stable=True)
        self._rows = rows[order]
        names, counts = torch.unique_consecutive(groups[order], return_counts=True)
        self._ends = counts.cumsum(0)
        self._starts = self._ends - counts
        self._names = names
        self.known = names[order[self._starts].argsort()]

    def rows(self, group: int) -> list[int]:
        """The rows of a group."""
        at = int(torch.searchsorted(self._names, group))
        return self._rows[self._starts[at] : self._ends[at]].tolist()


class _LeastUsed:
    """Deals out keys: the one that it dealt out least, of these the least in ``total``, then in the given order.

    ``total`` counts uses and may be shared with others.
    """

    def __init__(self, keys: Sequence[int] | Tensor, total: list[int]):
        self.keys, self.total = keys, total
        self.fresh = 0  # keys from here on were never looked at; the others are in the heap, which so stays small
        self.heap: list[tuple[int, int, int, int]] = []

    def take(self, is_open: Callable[[int], bool], avoid: int | None = None) -> int | None:
        """The next key that is open, for good or not any more; another one than ``avoid`` where there are several."""
        entry = self._pop(is_open)
        if entry is None:
            return None
        if entry[-1] == avoid and (other := self._pop(is_open)) is not None:
            heapq.heappush(self.heap, entry)
            entry = other
        own, _, place, key = entry
        self.total[key] += 1
        heapq.heappush(self.heap, (own + 1, self.total[key], place, key))
        return key

    def _pop(self, is_open: Callable[[int], bool]) -> tuple[int, int, int, int] | None:
        while self.heap or self.fresh < len(self.keys):
            if self.fresh < len(self.keys) and (not self.heap or (0, 0, self.fresh) < self.heap[0][:3]):
                key = int(self.keys[self.fresh])
                entry = (0, self.total[key], self.fresh, key)
                self.fresh += 1
                if self.total[key]:  # others used it: it comes after those that nobody used
                    heapq.heappush(self.heap, entry)
                    continue
            else:
                entry = heapq.heappop(self.heap)
            own, total, place, key = entry
            if not is_open(key):
                continue
            if total == self.total[key]:
                return entry
            heapq.heappush(self.heap, (own, self.total[key], place, key))  # others used it meanwhile
        return None
