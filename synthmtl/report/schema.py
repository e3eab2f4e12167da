"""What ``report.json`` holds, and the check that a report holds it.

The contract, with ``?`` for keys that may be left out; further keys are allowed everywhere:

- ``data``: ``classes`` [name, ...]; ``train_counts``, ``validation_counts``, ``test_counts`` {class: faces};
  ``test_people``?, how many people the labelled test faces are known to show; ``resampled``? "people" or "faces": what
  the intervals draw of the test split.
- ``methods`` {name: {``accuracy``, ``macro_f1``, ``balanced_accuracy``, ``per_class_recall`` {class: value},
  ``per_class_f1`` {class: value}, ``ci95`` {metric: [low, high]}, ``seeds`` [int, ...], ``per_seed`` [{``accuracy``,
  ``macro_f1``, ``balanced_accuracy``, ``minority_recall``?}, ...], ``seconds``, ``minority_recall``?, ``confusion``?
  K x K}}. Scores are means over seeds in [0, 1]; the value of a class without a face in the split is null;
  ``confusion`` has true classes in rows.
- ``comparisons`` [{``a``, ``b``, ``metric``, ``difference``, ``ci95`` [low, high], ``paired_by`` "seed"}], a minus b.
- ``balance``: ``strategy`` name or {class: count}; ``requested``, ``kept``, ``rejected`` {class: faces}; ``mistaken``?
  {class: share of the other classes' real validation faces that the filter would let pass as it}.
- ``generation`` {``quality``?, ...}: whatever was measured of the synthesized faces. ``quality`` is the card that
  ``synthmtl score`` makes, of the first seed's balancing set: ``real`` and ``synthetic`` {``faces``, ``counts``},
  ``extractor`` and ``judge`` {``name`` or ``absent``}, ``notes`` [text], ``overall`` and ``per_expression``
  {expression: ...} with {number: {``value``, ``ci95``?, ...} or {``absent``: why}}, ``closest_pairs`` [...], ...
- ``environment``: ``versions`` {package: version}; ``cpu``; ``device``; ``command``; ``commit`` (null without one).
- ``preset``?, ``title``?: text. ``notes``? [text]. ``minority``? [class]: the classes of ``minority_recall``.
- ``share_of_gap``? [{``method``, ``metric``, ``share``, ``ci95``, ``gap``, ``gap_ci95``}], share and ci95
  null together.
- ``tasks``? {network: {task: {``metric``, ``value``, ``ci95``, ``per_seed``, ``faces``}}}: how well the jointly trained
  networks do every task on the test split, where there are further ones.
- ``gates``? [{``method``, ``seeds``, ``gates`` [{``stage``, ``direction`` as DONOR_to_RECEIVER by the tasks' numbers,
  ``gate`` pass or take, ``mean`` and ``spread`` over validation faces, ``range`` [low, high] of the mean over seeds,
  ``expressions`` {class: mean or null}}]}]: how far the gates are open.

A number that does not exist is null, never NaN.
"""

import math

from synthmtl.report.checks import (
    by_seed,
    check_plain_json,
    count,
    integer,
    interval,
    list_of,
    mapping_of,
    number,
    object_of,
    or_null,
    short,
    text,
)

SCORES = ("accuracy", "macro_f1", "balanced_accuracy")
"""The scores that every method states, each with its interval."""


def validate_report(report: dict) -> None:
    """Check a report against the contract of this module.

    Raises:
        ValueError: naming the path of the first thing that is wrong, as ``methods.plain.accuracy``.
    """
    check_plain_json(report, "report")
    _REPORT(report, "report")
    classes = report["data"]["classes"]
    if len(set(classes)) < len(classes):
        raise ValueError("data.classes: a class is named twice")
    for split in ("train_counts", "validation_counts", "test_counts"):
        _classes_are(report["data"][split], classes, f"data.{split}", every=True)
    for name, method in report["methods"].items():
        path = f"methods.{name}"
        for key in ("per_class_recall", "per_class_f1"):
            _classes_are(method[key], classes, f"{path}.{key}", every=True)
        if len(method["per_seed"]) != len(method["seeds"]):
            raise ValueError(f"{path}.per_seed: {len(method['per_seed'])} entries for {len(method['seeds'])} seeds")
        matrix = method.get("confusion", [[0] * len(classes)] * len(classes))
        if [len(row) for row in matrix] != [len(classes)] * len(classes):
            raise ValueError(f"{path}.confusion: must be {len(classes)} rows of {len(classes)} counts")
    for index, entry in enumerate(report["comparisons"]):
        _known(entry["a"], report["methods"], f"comparisons[{index}].a")
        _known(entry["b"], report["methods"], f"comparisons[{index}].b")
    for key in ("requested", "kept", "rejected"):
        _classes_are(report["balance"][key], classes, f"balance.{key}", every=False)
    for index, entry in enumerate(report.get("share_of_gap", [])):
        _known(entry["method"], report["methods"], f"share_of_gap[{index}].method")
        if (entry["share"] is None) != (entry["ci95"] is None):
            raise ValueError(f"share_of_gap[{index}]: share and ci95 must be null together")
    _classes_are(dict.fromkeys(report.get("minority", [])), classes, "minority", every=False)
    for index, entry in enumerate(report.get("gates", [])):
        for gate in entry["gates"]:
            _classes_are(gate["expressions"], classes, f"gates[{index}].gates.expressions", every=True)
    card = report["generation"].get("quality")
    if card is not None:
        _classes_are(card["per_expression"], classes, "generation.quality.per_expression", every=True)
        for name, numbers in card["per_expression"].items():
            if numbers.keys() != card["overall"].keys():
                raise ValueError(f"generation.quality.per_expression.{name}: must have the numbers of overall")


def _strategy(value: object, path: str) -> None:
    (mapping_of(count) if isinstance(value, dict) else text)(value, path)


def resampled(value: object, path: str) -> None:
    """What intervals draw of a test split."""
    if value not in ("people", "faces"):
        raise ValueError(f"{short(path)}: must be 'people' or 'faces', not {value!r}")


def _known(name: str, methods: dict, path: str) -> None:
    if name not in methods:
        raise ValueError(f"{path}: {name!r} is not one of the methods")


def _classes_are(values: dict, classes: list[str], path: str, *, every: bool) -> None:
    for name in values:
        if name not in classes:
            raise ValueError(f"{path}.{name}: is not one of the classes")
    for name in classes if every else ():
        if name not in values:
            raise ValueError(f"{path}.{name}: missing")


_SCORE = number(0, 1)
COUNTS = mapping_of(count)
ENVIRONMENT = object_of(
    {
        "versions": mapping_of(text),
        "cpu": text,
        "device": text,
        "commit": or_null(text),
        "command": text,
    }
)
"""Where and by what numbers were made."""
_METHOD = object_of(
    dict.fromkeys(SCORES, _SCORE)
    | {
        "per_class_recall": mapping_of(or_null(_SCORE)),
        "per_class_f1": mapping_of(or_null(_SCORE)),
        "ci95": object_of(dict.fromkeys(SCORES, interval(0, 1)), {"minority_recall": interval(0, 1)}),
        "seeds": list_of(integer, filled=True),
        "per_seed": list_of(object_of(dict.fromkeys(SCORES, _SCORE), {"minority_recall": or_null(_SCORE)})),
        "seconds": number(0),
    },
    {"minority_recall": or_null(_SCORE), "confusion": list_of(list_of(count))},
)
_COMPARISON = object_of(
    {
        "a": text,
        "b": text,
        "metric": text,
        "difference": number(-1, 1),
        "ci95": interval(-1, 1),
        "paired_by": by_seed,
    }
)
_SHARE = object_of(
    {
        "method": text,
        "metric": text,
        "share": or_null(number()),
        "ci95": or_null(interval(-math.inf, math.inf)),
        "gap": number(-1, 1),
        "gap_ci95": interval(-1, 1),
    }
)
_HEADLINE = object_of(
    {
        "metric": text,
        "value": number(),
        "ci95": interval(-math.inf, math.inf),
        "per_seed": list_of(number(), filled=True),
        "faces": count,
    }
)
_GATE = object_of(
    {
        "stage": count,
        "direction": text,
        "gate": text,
        "mean": _SCORE,
        "spread": number(0),
        "range": interval(0, 1),
        "expressions": mapping_of(or_null(_SCORE)),
    }
)
_SET = object_of({"faces": count, "counts": COUNTS})


def _entry(value: object, path: str) -> None:
    """A number of a quality card, or why there is none."""
    known = isinstance(value, dict) and "value" in value
    (object_of({"value": number()}, {"ci95": _ANY_INTERVAL}) if known else object_of({"absent": text}))(value, path)


_ANY_INTERVAL = interval(-math.inf, math.inf)
_ENTRIES = mapping_of(_entry, filled=True)
_CARD = object_of(
    {
        "real": _SET,
        "synthetic": _SET,
        "extractor": object_of({}, {"name": text, "absent": text}),
        "judge": object_of({}, {"name": text, "absent": text}),
        "notes": list_of(text),
        "overall": _ENTRIES,
        "per_expression": mapping_of(_ENTRIES),
        "closest_pairs": list_of(object_of({})),
    }
)
_REPORT = object_of(
    {
        "data": object_of(
            {
                "classes": list_of(text, filled=True),
                "train_counts": COUNTS,
                "validation_counts": COUNTS,
                "test_counts": COUNTS,
            },
            {"test_people": count, "resampled": resampled},
        ),
        "methods": mapping_of(_METHOD, filled=True),
        "comparisons": list_of(_COMPARISON),
        "balance": object_of(
            {"strategy": _strategy, "requested": COUNTS, "kept": COUNTS, "rejected": COUNTS},
            {"mistaken": mapping_of(_SCORE)},
        ),
        "generation": object_of({}, {"quality": _CARD}),
        "environment": ENVIRONMENT,
    },
    {
        "preset": text,
        "title": text,
        "notes": list_of(text),
        "minority": list_of(text),
        "share_of_gap": list_of(_SHARE),
        "tasks": mapping_of(mapping_of(_HEADLINE)),
        "gates": list_of(object_of({"method": text, "seeds": count, "gates": list_of(_GATE, filled=True)})),
    },
)
