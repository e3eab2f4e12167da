"""How extra faces are fed back to recognition: a fixed share of every batch, and the controls that fill the same share.

Pooled with the real faces, synthesized ones change little: the batches stay unbalanced. So they take a fixed share.
Whatever takes that share also dilutes the real faces and balances the classes, which alone changes the scores; so a
gain of synthesis is judged against the same shares filled otherwise: with real faces drawn again (:func:`dilution`,
the method ``diluted``), or, on rendered data, with true renders of the wanted faces (``oracle``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import ClassBalancedSampler, EpochSampler, MixedSampler, Sampler
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

REAL = ("balanced", "natural")
"""How the real part of a batch is drawn."""


@dataclass(frozen=True)
class FeedbackConfig:
    """How batches are made of real and extra faces.

    Attributes:
        share: in (0, 1), how much of it is extra. With ``real="balanced"`` of *each class that has extra faces*; the
            other classes' part is real throughout. With ``real="natural"`` of the batch.
        weight: of each extra face in the loss; a real face weighs 1. At least 0.
        real: ``balanced`` makes the whole batch class-balanced; ``natural`` takes real faces as they come, so that
            those of rare classes are repeated no more often than others, and extra ones class-balanced. What balance
            is missing then, the loss makes up for: see :attr:`Feedback.class_shares`.
    """

    share: float = 0.5
    weight: float = 1.0
    real: str = "balanced"

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise InputError(f"the share of extra faces must lie between 0 and 1, not {self.share}")
        if not 0 <= self.weight < float("inf"):
            raise InputError(f"the weight of extra faces must be finite and at least 0, not {self.weight}")
        if self.real not in REAL:
            raise InputError(f"unknown way {self.real!r} to draw real faces: use one of {', '.join(REAL)}")


@dataclass(frozen=True)
class Feedback:
    """What recognition trains on.

    Attributes:
        table: the real faces, untouched, then the extra ones with their weight.
        sampler: ``sampler.indices(step)`` gives the rows (batch_size,) of a step's global batch.
        extra_count: extra faces in each batch.
        class_shares: (K,) of each class in the weights of a batch, on average: what a logit-adjusted loss has to adjust
            for. All alike with ``real="balanced"`` where all faces weigh the same, as far as whole faces allow.
    """

    table: FaceTable
    sampler: MixedSampler
    extra_count: int
    class_shares: Tensor


def feed_back(
    real: FaceTable,
    extra: FaceTable,
    *,
    config: FeedbackConfig | None = None,
    batch_size: int = 128,
    seed: int = 0,
    multiple_of: int = 1,
) -> Feedback:
    """Join real and extra faces, and say which of them make up each batch.

    Args:
        real: the training faces; those without an expression are not drawn.
        extra: what fills the share: synthesized faces, :func:`dilution`, or true renders. Tables with the same
            counts give batches with the same shares.
        config: None for the defaults.
        batch_size: faces of the global batch.
        seed: of the order.
        multiple_of: the sizes of the parts are multiples of it, e.g. the number of processes.

    Raises:
        InputError: if no extra or no real face has an expression, the tables differ in classes, size or channels, or
            the batch is too small for a face of each part or not a multiple of ``multiple_of``.
    """
    config = config or FeedbackConfig()
    has_extra, has_real = _classes(extra), _classes(real)
    if not len(has_extra) or not len(has_real):
        raise InputError(f"no {'extra' if len(has_real) else 'real'} face has an expression: nothing to feed back")
    table = FaceTable.concatenate([real, extra.replace(weight=extra.weight * config.weight)])
    rows = torch.arange(len(table))
    is_extra = rows >= len(real)
    shown = torch.isin(table.expression, has_extra) & (table.expression >= 0)

    def balanced(mask: Tensor, name: str) -> ClassBalancedSampler:
        return ClassBalancedSampler(table.expression, batch_size, derive_seed(name, seed), rows=rows[mask])

    expressions = table.expression
    # Parts of a batch: who draws them, their shares, and the classes' shares in what is drawn.
    parts: list[tuple[Sampler, float, Tensor]] = []

    def add(mask: Tensor, name: str, share: float) -> None:
        sampler = ClassBalancedSampler(expressions, batch_size, derive_seed(name, seed), rows=rows[mask])
        shown = expressions[mask].bincount(minlength=len(table.classes)) > 0
        parts.append((sampler, share, shown / shown.sum()))

    classes = torch.cat([has_extra, has_real]).unique()
    with_extra = len(has_extra) / len(classes)
    add(is_extra & (expressions >= 0), "extra", config.share * (1.0 if config.real == "natural" else with_extra))
    if config.real == "natural":
        labelled = rows[~is_extra & (expressions >= 0)]
        drawn = expressions[labelled].bincount(minlength=len(table.classes)).double()
        as_they_come = EpochSampler(labelled, batch_size, derive_seed("real", seed))
        parts.append((as_they_come, 1 - config.share, drawn / drawn.sum()))
    else:
        if torch.isin(has_extra, has_real).any():
            add(~is_extra & shown, "beside", (1 - config.share) * with_extra)
        if with_extra < 1:
            add(~is_extra & ~shown & (expressions >= 0), "alone", 1 - with_extra)
    counts = _round([share for _, share, _ in parts], batch_size, multiple_of)
    weights = torch.tensor([config.weight, *[1.0] * (len(parts) - 1)], dtype=torch.float64) * torch.tensor(counts)
    class_shares = weights @ torch.stack([of_part.double() for _, _, of_part in parts])
    sampler = MixedSampler([(part, count) for (part, _, _), count in zip(parts, counts, strict=True)])
    return Feedback(table, sampler, extra_count=counts[0], class_shares=class_shares / class_shares.sum())


def dilution(table: FaceTable, like: Mapping[str, int], *, seed: int = 0) -> FaceTable:
    """The control's fill: real faces drawn again, as many of each class as synthesis gave.

    Within a class every face is drawn equally often, up to one.

    Args:
        table: the real training faces.
        like: faces per class, e.g. ``BalancingResult.kept``.
        seed: of the draw.

    Raises:
        InputError: if a class to be filled has no real face.
    """
    drawn = []
    for name, count in like.items():
        if not count:
            continue
        k = table.classes.index(name) if name in table.classes else -1
        rows = torch.where((table.expression == k) & (k >= 0) & ~table.synthetic)[0]
        if not len(rows):
            raise InputError(f"no real face of {name} to draw again: leave the class out of the control")
        order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(derive_seed(name, seed)))]
        drawn.append(order.repeat(-(-count // len(order)))[:count])
    return table.select(torch.cat(drawn) if drawn else [])


def _classes(table: FaceTable) -> Tensor:
    return table.expression[table.expression >= 0].unique()


def _round(shares: list[float], batch_size: int, multiple_of: int) -> list[int]:
    """Parts of a batch in proportion to shares, each a multiple, none empty, the largest takes the rest."""
    if batch_size % multiple_of:
        raise InputError(f"a batch of {batch_size} faces is not a multiple of {multiple_of}: choose one that is")
    total = sum(shares)
    counts = [max(1, round(share / total * batch_size / multiple_of)) * multiple_of for share in shares]
    largest = counts.index(max(counts))
    counts[largest] += batch_size - sum(counts)
    if counts[largest] < multiple_of:
        raise InputError(f"a batch of {batch_size} faces is too small for {len(shares)} parts: choose a larger one")
    return counts
