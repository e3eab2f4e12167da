"""How many faces each class should have: imbalanced-learn's over-sampling strategies.

Lemaitre, Nogueira, Aridas: Imbalanced-learn. Journal of Machine Learning Research 18(17), 2017.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from numbers import Real

from synthmtl.errors import InputError
from synthmtl.labels import canonical_expression

STRATEGIES = ("auto", "minority", "not minority", "not majority", "all", "cover")
"""Strategies by name; ``auto`` means ``not majority``, ``cover`` is ours."""

Strategy = str | float | Mapping[str, int] | Callable[[dict[str, int]], Mapping[str, int]]


def resolve_strategy(counts: Mapping[str, int], strategy: Strategy) -> dict[str, int]:
    """How many faces to *add* to each class so that its total is exactly what the strategy wants.

    - ``minority``: the rarest class gets as many faces as the most frequent one has; ``not minority``: all but the
      rarest do; ``not majority`` (= ``auto``): all but the most frequent; ``all``: all. Of equally rare or frequent
      classes the first counts as the one.
    - ``cover``: every class gets half as many faces again as the most frequent one has. So the classes are balanced
      *and* each holds synthesized faces: if only the rare classes do, whatever synthesized faces have in common
      (blur, grain) gives the rare classes away, and real rare faces, which lack it, are missed.
    - {class: total}: the wanted total of each named class, in any spelling that ``labels`` knows.
    - callable: from the counts to such a mapping.
    - number in (0, 1], for two classes only: the wanted ratio of the rarer class to the other, rounded to faces.

    Strategies by name, and a ratio, look at classes with at least one face: nothing in the data shows the others. A
    mapping may name a class without any, e.g. for a generator that learned it elsewhere.

    Args:
        counts: faces per class now.
        strategy: as above.

    Returns:
        {class: faces to add}, every class of ``counts`` in its order, 0 where nothing is added.

    Raises:
        InputError: if there is no such strategy or class, a wanted total is below the present one, a ratio is used
            with other than two classes, or no class has a face.
    """
    present = {name: count for name, count in counts.items() if count > 0}
    if not present:
        raise InputError("nothing to balance: no face has an expression")
    wanted = _totals(counts, present, strategy)
    for name, total in wanted.items():
        if total < counts[name]:
            raise InputError(
                f"strategy wants {total} faces of {name}, which has {counts[name]}: balancing only adds, "
                f"ask for {counts[name]} or more"
            )
    return {name: wanted.get(name, count) - count for name, count in counts.items()}


def strategy_for_report(counts: Mapping[str, int], strategy: Strategy) -> str | dict[str, int]:
    """The strategy as ``report.json`` and ``balance.json`` state it: its name, or the wanted totals."""
    if isinstance(strategy, str):
        return strategy
    if isinstance(strategy, Real):
        return f"ratio {float(strategy):g}"
    added = resolve_strategy(counts, strategy)
    return {name: count + added[name] for name, count in counts.items()}


def _totals(counts: Mapping[str, int], present: Mapping[str, int], strategy: Strategy) -> dict[str, int]:
    if isinstance(strategy, str):
        return _named(present, strategy)
    if isinstance(strategy, Mapping):
        return _mapped(counts, strategy)
    if callable(strategy):
        mapping = strategy(dict(counts))
        if not isinstance(mapping, Mapping):
            raise InputError(f"a callable strategy must return {{class: total}}, not {type(mapping).__name__}")
        return _mapped(counts, mapping)
    if isinstance(strategy, Real) and not isinstance(strategy, bool):
        return _ratio(present, float(strategy))
    raise InputError(
        f"strategy {strategy!r} is none of {', '.join(STRATEGIES)}, {{class: total}}, a callable or a ratio (a number)"
    )


def _named(present: Mapping[str, int], strategy: str) -> dict[str, int]:
    rarest, largest = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    chosen = {
        "auto": [name for name in present if name != largest],
        "not majority": [name for name in present if name != largest],
        "minority": [rarest],
        "not minority": [name for name in present if name != rarest],
        "all": list(present),
        "cover": list(present),
    }
    if strategy not in chosen:
        spaced = (
            ", with a space after each colon" if re.search(r":\S", strategy) else ""
        )  # YAML takes {fear:10} for a name
        raise InputError(
            f"unknown strategy {strategy!r}: use one of {', '.join(STRATEGIES)}, or {{class: total}}{spaced}"
        )
    total = present[largest]
    return dict.fromkeys(chosen[strategy], total + math.ceil(total / 2) if strategy == "cover" else total)


def _mapped(counts: Mapping[str, int], mapping: Mapping[str, int]) -> dict[str, int]:
    totals = {}
    for key, value in mapping.items():
        name = canonical_expression(key)
        if name is None or name not in counts:
            raise InputError(f"strategy names the class {key!r}, which the data lack: use some of {', '.join(counts)}")
        if name in totals:
            raise InputError(f"strategy names the class {name!r} twice: keep one")
        try:
            totals[name] = operator.index(value)
        except TypeError:
            raise InputError(f"strategy wants {value!r} faces of {name}: give a whole number") from None
    return totals


def _ratio(present: Mapping[str, int], ratio: float) -> dict[str, int]:
    if len(present) != 2:
        raise InputError(
            f"a ratio ({ratio:g}) as strategy is for two classes only, and {len(present)} have faces: "
            f"use one of {', '.join(STRATEGIES)}, or {{class: total}}"
        )
    if not 0 < ratio <= 1:
        raise InputError(f"a ratio as strategy must lie in (0, 1], not {ratio:g}")
    rarest = min(present, key=present.__getitem__)
    return {rarest: round(ratio * max(present.values()))}
