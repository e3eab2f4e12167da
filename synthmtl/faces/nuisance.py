"""A dial for harm: light, pose, skin and person go with the expression, as strongly as is asked for.

With a correlation ρ > 0 every person is of a *kind*, and there are as many kinds as expressions, in the proportions of
the faces wanted. A kind has its own range of each nuisance: the range of today's distribution is cut at quantiles into
one piece per kind, in an order of its own for each nuisance, so that over all people every nuisance is distributed as
without the dial. All sessions of a person lie in the kind's ranges. Of each expression's faces the share ρ is then
dealt to people of its own kind, the rest to all sessions alike, as without the dial. So ρ decides who shows what, never
how a person or a session looks: people and sessions are the same for every ρ > 0.

Hence P(kind | expression) = ρ [kind = expression] + (1 - ρ) P(kind), and ρ is what can be measured of it:

- Cramér's V between expression and kind is ρ,
- the correlation ratio η = sd(E[x | expression]) / sd(x) of each nuisance x is ρ times that of x and kind (0.99 for an
  even distribution and eight equal kinds).

Faces of a session share pose, light and framing, and have to: they are the pairs that synthesis learns from. The faces
that are dealt to all alike are the ones that give a session its second expression. Therefore ρ counts as at most
``LARGEST``, one face of each expression is always dealt to another kind, so that every kind gets one, and where such
faces are scarce, ``PARTNERED`` of a kind's own faces go to those of its sessions that have one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthmtl.data import FaceTable

NUISANCES = ("yaw", "pitch", "roll", "light_x", "light_y", "skin")
"""What goes with the kind, beside the person."""

LARGEST = 0.95
"""The strongest correlation that leaves pairs to learn from."""

PARTNERED = 0.6
"""Least share of a kind's own faces that shares a session with another expression, if any of its sessions has one."""


@dataclass(frozen=True)
class Kinds:
    """The kinds of a set of people.

    Attributes:
        of_subject: (S,) expression that goes with each person.
        ranges: nuisance → (K, 2) quantiles between which it lies for each kind.
    """

    of_subject: np.ndarray
    ranges: dict[str, np.ndarray]

    def quantile(self, nuisance: str, subject: int, rng: np.random.Generator) -> float:
        """A draw of ``nuisance`` for a person, as a quantile of its distribution over all people."""
        return float(rng.uniform(*self.ranges[nuisance][self.of_subject[subject]]))


def draw_kinds(counts: Sequence[int], subjects: int, *, seed: int, rng: np.random.Generator) -> Kinds:
    """Kinds of ``subjects`` people, in proportion to ``counts`` and at least one of each that is wanted.

    Args:
        counts: faces per expression, (K,).
        subjects: people, at least as many as there are expressions with faces.
        seed: of each nuisance's order of kinds.
        rng: says who is of which kind.
    """
    wanted = np.asarray(counts)
    people = (wanted > 0).astype(int)
    for _ in range(subjects - people.sum()):
        people[np.argmax(wanted / (people + 0.5))] += 1
    ranges = {}
    for number, nuisance in enumerate(NUISANCES):
        order = np.random.default_rng((seed, number, 7)).permutation(len(counts))
        ends = np.cumsum(people[order]) / subjects
        ranges[nuisance] = np.empty((len(counts), 2))
        ranges[nuisance][order] = np.stack([ends - people[order] / subjects, ends], 1)
    return Kinds(rng.permutation(np.repeat(np.arange(len(counts)), people)), ranges)


def deal(
    counts: Sequence[int], kinds: Kinds, sessions_per_subject: int, correlation: float, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """(session, expression) of every face; sessions are numbered subject by subject."""
    kind = np.repeat(kinds.of_subject, sessions_per_subject)
    aligned = [min(round(min(correlation, LARGEST) * n), max(0, n - 1)) for n in counts]
    free = np.subtract(counts, aligned)
    faces = []

    # One of each goes to another kind, so that every kind has a pair.
    shown = rng.permutation(np.flatnonzero(counts))
    for expression, other in zip(shown, np.roll(shown, 1), strict=True):
        faces.append((int(rng.choice(np.flatnonzero(kind == other))), int(expression)))
        free[expression] -= 1

    # Like cards to all sessions, in an order in which every stretch has all kinds in their proportions.
    place = np.empty(len(kind))
    for k in np.unique(kind):
        own = rng.permutation(np.flatnonzero(kind == k))
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    order = np.argsort(place)
    deck = np.concatenate([np.full(free[k], k) for k in rng.permutation(len(counts))])
    for position, expression in enumerate(deck):
        faces.append((int(order[position % len(order)]), int(expression)))

    load = np.bincount([session for session, _ in faces], minlength=len(kind))
    mixed = np.zeros(len(kind), bool)
    mixed[[session for session, expression in faces if expression != kind[session]]] = True
    for expression, count in enumerate(aligned):
        own = rng.permutation(np.flatnonzero(kind == expression))
        shared, alone = own[mixed[own]], own[~mixed[own]]
        among = count if not len(alone) else 0
        if len(alone) and len(shared):
            among = round(count * max(PARTNERED, len(shared) / len(own)))
        for some, number in ((shared, among), (alone, count - among)):
            for _ in range(number):
                session = some[np.argmin(load[some])]
                load[session] += 1
                faces.append((int(session), expression))
    return faces


def correlation_ratio(values: Tensor, groups: Tensor) -> float:
    """η in [0, 1]: how much of the standard deviation of ``values`` (N,) their ``groups`` (N,) explain.

    η² is the share of the variance, less what groups of such sizes explain by chance (Kelley's ε²), at least 0.
    """
    values = values.double()
    within = sum(float((part - part.mean()).square().sum()) for part in (values[groups == g] for g in groups.unique()))
    total = float((values - values.mean()).square().sum())
    count, kinds = len(values), len(groups.unique())
    if total == 0 or count == kinds:
        return 0.0
    return max(0.0, 1 - within / (count - kinds) * (count - 1) / total) ** 0.5


def cramers_v(a: Tensor, b: Tensor) -> float:
    """Association of two labels (N,), in [0, 1], with Bergsma's correction for chance (2013).

    0 for fewer than two faces, and where a label is the same for all faces or another for each.
    """
    if len(a) < 2:
        return 0.0
    a, b = a.unique(return_inverse=True)[1], b.unique(return_inverse=True)[1]
    table = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    table.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    count, (rows, columns) = len(a), table.shape
    expected = table.sum(1, keepdim=True) * table.sum(0) / count
    phi = float(((table - expected).square() / expected).sum()) / count
    sizes = [n - (n - 1) ** 2 / (count - 1) for n in (rows, columns)]
    # A label that all faces share, or that each has to itself, has a corrected size of 1: it says nothing of the other
    # one, or fits any, so that nothing is left beyond chance.
    if min(sizes) - 1 <= 1e-9:
        return 0.0
    phi = max(0.0, phi - (rows - 1) * (columns - 1) / (count - 1))
    return min(1.0, (phi / (min(sizes) - 1)) ** 0.5)


def measured_correlation(table: FaceTable) -> dict[str, float]:
    """How strongly each nuisance of rendered faces goes with their expression, 0 for what chance explains.

    Faces without an expression, such as compound ones, do not count.

    Returns:
        The correlation ratio of each of ``NUISANCES``, and Cramér's V of ``subject``.
    """
    labelled = table.expression >= 0
    expression = table.expression[labelled]
    columns = table.attributes | {axis: table.attributes[axis] / table.attributes["light_z"] for axis in NUISANCES[3:5]}
    found = {name: correlation_ratio(columns[name][labelled], expression) for name in NUISANCES}
    return found | {"subject": cramers_v(table.subject[labelled], expression)}
