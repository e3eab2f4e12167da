"""The filtering ratio: how much of what a task does not need is kept out, at how much of what it needs let through.

From probe scores s in [0, 1], corrected for chance, before and behind a filter (donor → message, or receiver before →
receiver after the exchange):

    filtering   = 1 - s_behind / s_before    of what is not needed (subject, light, yaw): 1 = all kept out
    retention   =     s_behind / s_before    of what is needed (expression): 1 = all let through, above 1 = gained
    selectivity = filtering + retention - 1

Selectivity, of the form of Youden's index (1950), is the one number to compare units by: 0 for a filter that passes
everything, nothing, or the same share of both, 1 for one that keeps out all of the one at no loss of the other,
below zero for one that prefers what is not needed. A ratio means nothing where next to nothing was readable before:
there all that depend on it are None. All are of *linear* readability: scrambling counts as keeping out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from synthmtl.errors import InputError


@dataclass(frozen=True)
class Filtering:
    """What :func:`filtering_ratio` returns.

    Attributes:
        filtering: of all that is not needed together, from the mean scores. Below zero, more is readable behind than
            before (a message can carry what its gate read from the receiver). None if the mean score before is below
            the floor.
        retention: of all that is needed together, likewise.
        selectivity: filtering + retention - 1, None where either is.
        by_target: filtering or retention of each target on its own, None below the floor.
    """

    filtering: float | None
    retention: float | None
    selectivity: float | None
    by_target: dict[str, float | None]

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def filtering_ratio(
    before: Mapping[str, float | None],
    behind: Mapping[str, float | None],
    *,
    needed: Collection[str] = ("expression",),
    floor: float = 0.1,
) -> Filtering:
    """Filtering, retention and selectivity from chance-corrected scores by target, see the module's docstring.

    Args:
        before, behind: target → score in [0, 1] on the same test rows. Targets without a score (None) in either are
            left out.
        needed: what should pass; every other target should not.
        floor: the least score before for a ratio. A score of some hundred test rows is known to about ±0.03, so that
            at the default floor a ratio is known to about a third.

    Raises:
        InputError: if the targets differ, a score lies outside [0, 1], or no target of one kind is left.
    """
    if set(before) != set(behind):
        raise InputError(f"filtering needs the same targets before and behind: {sorted(before)}, {sorted(behind)}")
    scored = {t: (x, y) for t in before if (x := before[t]) is not None and (y := behind[t]) is not None}
    for target, scores in scored.items():
        if not all(0 <= score <= 1 for score in scores):
            raise InputError(f"score of {target!r} must be corrected for chance and lie in [0, 1], not {scores}")
    sides = {
        "needed": [scores for target, scores in scored.items() if target in needed],
        "not needed": [scores for target, scores in scored.items() if target not in needed],
    }
    for side, found in sides.items():
        if not found:
            raise InputError(f"filtering compares both sides, but no target with a score is {side}: {list(before)}")
    need, nuisance = _means(sides["needed"]), _means(sides["not needed"])
    passed = {target: _passed(*scores, floor) for target, scores in scored.items()}
    filtering, retention = _kept_out(_passed(*nuisance, floor)), _passed(*need, floor)
    return Filtering(
        filtering=filtering,
        retention=retention,
        selectivity=None if filtering is None or retention is None else filtering + retention - 1,
        by_target={target: share if target in needed else _kept_out(share) for target, share in passed.items()},
    )


def _means(scores: Sequence[tuple[float, float]]) -> tuple[float, float]:
    before, behind = zip(*scores, strict=True)
    return sum(before) / len(scores), sum(behind) / len(scores)


def _passed(before: float, behind: float, floor: float) -> float | None:
    return behind / before if before >= floor and before > 0 else None


def _kept_out(passed: float | None) -> float | None:
    return None if passed is None else 1 - passed
