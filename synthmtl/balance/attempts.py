"""One batch of wanted faces on its way: attempts, each judged before the next, until every face is kept or given up."""

from collections.abc import Callable

import torch
from torch import Tensor

from synthmtl.balance.chunks import Chunk
from synthmtl.balance.filter import REASONS, Verdict
from synthmtl.balance.plan import BalancePlan
from synthmtl.data.table import FaceTable


class Draft:
    """A chunk in the making.

    Args:
        table: the training faces.
        plan: for this table.
        faces: (n,) int64, the wanted faces of the chunk.
        max_attempts: candidates of each.

    Attributes:
        chunk: what there is so far.
        done: whether it is finished.
    """

    def __init__(self, table: FaceTable, plan: BalancePlan, faces: Tensor, max_attempts: int):
        n = len(faces)
        self.table, self.plan, self.faces, self.max_attempts = table, plan, faces, max_attempts
        self.chunk = Chunk(
            images=torch.zeros((n, *table.images.shape[1:]), dtype=torch.uint8),
            reason=torch.full((n,), REASONS.index("broken")),
            agreement=torch.zeros(n),
            source=torch.full((n,), -1),
            seed=torch.full((n,), -1),
            attempt=torch.full((n,), -1),
            rejected=torch.zeros(len(table.classes), len(REASONS), dtype=torch.int64),
        )
        self.best = torch.full((n,), float("-inf"))
        self.pending = torch.arange(n)
        self.attempt = 0

    @property
    def done(self) -> bool:
        """See the class."""
        return not len(self.pending) or self.attempt == self.max_attempts

    def candidates(self) -> tuple[Tensor, Tensor, list[int]]:
        """Source rows (B,), -1 = none, targets (B,) and seeds of the attempt that is due."""
        rows, seeds = self.plan.candidate(self.faces[self.pending], self.attempt)
        return rows, self.plan.target[self.faces[self.pending]], seeds

    def sources(self, rows: Tensor) -> Tensor | None:
        """The faces (B, C, H, W) to edit in these rows; None where faces are made of noise."""
        return self.table.images[rows] if self.plan.edits else None

    def judge(self, judging: Callable[..., Verdict], images: Tensor, finite: Tensor) -> None:
        """Keep the best of what was made of :meth:`candidates`: images (B, C, H, W) and whether they are finite."""
        chunk, pending = self.chunk, self.pending
        rows, wanted, seeds = self.candidates()
        edited = rows if self.plan.edits else None
        verdict = judging(images, self.sources(rows), wanted, finite=finite, rows=edited)
        kept = verdict.reason < 0
        one = torch.ones((), dtype=torch.int64)
        chunk.rejected.index_put_((wanted[~kept], verdict.reason[~kept]), one, accumulate=True)
        rank = torch.where(verdict.reason == REASONS.index("disagreement"), verdict.margin, float("-inf"))
        rank[kept] = float("inf")
        better = rank > self.best[pending]
        here = pending[better]
        self.best[here] = rank[better]
        chunk.images[here], chunk.reason[here] = images[better], verdict.reason[better]
        chunk.agreement[here], chunk.source[here] = verdict.agreement[better], rows[better]
        chunk.seed[here], chunk.attempt[here] = torch.tensor(seeds)[better], self.attempt
        self.pending = pending[~kept]
        self.attempt += 1
