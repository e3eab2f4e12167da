"""Which faces to synthesize, from which sources, with which seeds."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from synthmtl.balance.spread import Key, deal
from synthmtl.balance.strata import quotas, strata
from synthmtl.balance.strategy import Strategy, resolve_strategy, strategy_for_report
from synthmtl.data.randomness import derive_seed
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

logger = logging.getLogger("synthmtl")

SOURCES = ("any", "neutral_first", "none")
"""Which faces may be edited: any of another expression, or neutral ones wherever there are some; or none at all: then a
diffusion model makes new faces of noise."""


@dataclass(frozen=True)
class BalancePlan:
    """M wanted faces, class by class.

    Attributes:
        classes: expressions, as in the table.
        strategy: its name, or the wanted totals.
        counts: faces per class before balancing.
        requested: faces to add per class; every class is named.
        target: (M,) int64, the wanted expression.
        sources: (M, A) int64, rows of the table to edit, each of another expression; the first is tried first. -1 =
            the face is made of noise, as then all are.
        seeds: (M,) int64, one for each wanted face.
        unsourced: of ``requested``, faces per class without a source that may still be used; they are not among the M.
        max_uses: wanted faces that may name the same source.
        match: attributes whose joint distribution was kept.
    """

    classes: tuple[str, ...]
    strategy: str | dict[str, int]
    counts: dict[str, int]
    requested: dict[str, int]
    target: Tensor
    sources: Tensor
    seeds: Tensor
    unsourced: dict[str, int] = field(default_factory=dict)
    max_uses: int | None = None
    match: tuple[str, ...] = ()

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

    @property
    def edits(self) -> bool:
        """Whether faces are edited, and not made of noise."""
        return not bool((self.sources < 0).any())

    def fingerprint(self) -> str:
        """16 hex digits that change with anything in the plan."""
        digest = hashlib.sha256(repr((self.classes, self.counts)).encode())
        for column in (self.target, self.sources, self.seeds):
            digest.update(column.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def make_plan(
    table: FaceTable,
    strategy: Strategy = "auto",
    *,
    seed: int = 0,
    sources: str = "any",
    candidates: int = 2,
    max_uses: int | None = None,
    match: Sequence[str] = (),
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
            unknown subject only neutral ones, where there are some. Targets other than neutral only. Or ``none``: new
            faces, by a diffusion model.
        candidates: A, sources of each wanted face.
        max_uses: wanted faces, over all classes, that may name the same source; a class for which this leaves too few
            sources falls short (``unsourced``). None = no limit beyond even use.
        match: attributes of the table, such as age or ethnicity, that an edit keeps. Sources are chosen so that within
            each class real and synthesized faces together come as near as they can to the joint distribution of these
            attributes over all real labelled faces (:func:`~synthmtl.balance.strata.strata`).

    Raises:
        InputError: as ``resolve_strategy`` and ``strata``, or if a class that needs faces has no face of another
            expression to edit, or ``max_uses`` or ``match`` is given where there is no source.
    """
    if sources not in SOURCES:
        raise InputError(f"unknown sources {sources!r}: use one of {', '.join(SOURCES)}")
    if candidates < 1:
        raise InputError(f"candidates must be at least 1, not {candidates}")
    if max_uses is not None and max_uses < 1:
        raise InputError(f"max_uses must be at least 1, not {max_uses}: leave it out for no limit")
    if sources == "none" and (match or max_uses is not None):
        raise InputError("match and max_uses are about the faces that are edited: leave them out where sources is none")
    counts = table.counts()
    requested = resolve_strategy(counts, strategy)
    if sources == "none":
        rows = {name: [[-1] * candidates] * count for name, count in requested.items()}
    else:
        rows = _rows_to_edit(table, requested, sources, candidates, max_uses, match, derive_seed("plan", seed))
    numbers = [(name, i) for name in requested for i in range(len(rows[name]))]
    return BalancePlan(
        classes=table.classes,
        strategy=strategy_for_report(counts, strategy),
        counts=counts,
        requested=requested,
        target=torch.tensor([table.classes.index(name) for name, _ in numbers], dtype=torch.int64),
        sources=torch.tensor([rows[n][i] for n, i in numbers], dtype=torch.int64).reshape(len(numbers), candidates),
        seeds=torch.tensor([derive_seed("face", seed, name, i) for name, i in numbers], dtype=torch.int64),
        unsourced={name: count - len(rows[name]) for name, count in requested.items()},
        max_uses=max_uses,
        match=tuple(match),
    )


def _rows_to_edit(
    table: FaceTable,
    requested: dict[str, int],
    sources: str,
    candidates: int,
    max_uses: int | None,
    match: Sequence[str],
    seed: int,
) -> dict[str, list]:
    """Of each class the sources of every wanted face that has any."""
    pools, shares = _by_stratum(
        table, {name: _pool(table, name, sources) for name, count in requested.items() if count}, requested, match
    )
    generator = torch.Generator().manual_seed(seed)
    chosen = deal(pools, shares, _groups(table), candidates, generator, max_uses=max_uses)
    return {name: [row for key in chosen if key[0] == name for row in chosen[key] if row] for name in requested}


def _by_stratum(
    table: FaceTable, pools: dict[str, Tensor], requested: dict[str, int], match: Sequence[str]
) -> tuple[dict[Key, Tensor], dict[Key, int]]:
    """Pools and wanted faces of each class, divided among the strata of the attributes; one stratum without any."""
    stratum = strata(table, match)
    usable = (table.expression >= 0) & ~table.synthetic
    share = torch.bincount(stratum[usable], minlength=int(stratum.max()) + 1 if len(stratum) else 1)
    parts, counts = {}, {}
    for name, pool in pools.items():
        available = torch.bincount(stratum[pool], minlength=len(share)) > 0
        if lacking := int(share[~available].sum()):
            logger.warning(
                "%s: no face to edit in the strata of %s that %d faces belong to; the others stand in for them",
                name, ", ".join(match), lacking,
            )  # fmt: skip
        own = torch.bincount(stratum[table.expression == table.classes.index(name)], minlength=len(share))
        for number, count in enumerate(quotas(own, share * available, requested[name])):
            if count:
                parts[name, number], counts[name, number] = pool[stratum[pool] == number], count
    return parts, counts


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
