"""What ``report.json`` holds, and the check that a report holds it.

The contract, with ``?`` for keys that may be left out; further keys are allowed everywhere:

- ``data``: ``classes`` [name, ...]; ``train_counts``, ``validation_counts``, ``test_counts`` {class: faces}.
- ``methods`` {name: {``accuracy``, ``macro_f1``, ``balanced_accuracy``, ``per_class_recall`` {class: value},
  ``per_class_f1`` {class: value}, ``ci95`` {metric: [low, high]}, ``seeds`` [int, ...],
  ``per_seed`` [{metric: value}, ...], ``seconds``, ``minority_recall``?, ``confusion``? K x K}}. Scores are means over
  seeds in [0, 1]; the value of a class without a face in the split is null; ``confusion`` has true classes in rows.
- ``comparisons`` [{``a``, ``b``, ``metric``, ``difference``, ``ci95`` [low, high], ``paired_by`` "seed"}], a minus b.
- ``balance``: ``strategy`` name or {class: count}; ``requested``, ``kept``, ``rejected`` {class: faces}.
- ``generation`` {...}: whatever was measured of the synthesized faces.
- ``environment``: ``versions`` {package: version}; ``cpu``; ``device``; ``command``; ``commit`` (null without one).
- ``preset``?, ``title``?: text. ``notes``? [text]. ``minority``? [class]: the classes of ``minority_recall``.
- ``share_of_gap``? [{``method``, ``metric``, ``share``, ``ci95``, ``gap``, ``gap_ci95``}], share and ci95
  null together.

A number that does not exist is null, never NaN.
"""

import math
from collections.abc import Callable

Check = Callable[[object, str], None]

SCORES = ("accuracy", "macro_f1", "balanced_accuracy")
"""The scores that every method states, each with its interval."""


def validate_report(report: dict) -> None:
    """Check a report against the contract of this module.

    Raises:
        ValueError: naming the path of the first thing that is wrong, as ``methods.plain.accuracy``.
    """
    _plain_json(report, "report")
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


def _plain_json(value: object, path: str) -> None:
    """Only what JSON can say: text keys, and no NaN, infinity, tensor or numpy scalar."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{_short(path)}: key {key!r} is not text")
            _plain_json(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _plain_json(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_short(path)}: {value} is not allowed, use null")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise ValueError(f"{_short(path)}: {type(value).__name__} is not a JSON type")


def _object(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    def check(value: object, path: str) -> None:
        _is(value, dict, path, "an object")
        for key, inner in required.items():
            here = f"{path}.{key}"
            if key not in value:
                raise ValueError(f"{_short(here)}: missing")
            inner(value[key], here)
        for key, inner in (optional or {}).items():
            if key in value:
                inner(value[key], f"{path}.{key}")

    return check


def _mapping(inner: Check, *, filled: bool = False) -> Check:
    def check(value: object, path: str) -> None:
        _is(value, dict, path, "an object")
        if filled and not value:
            raise ValueError(f"{_short(path)}: is empty")
        for key, item in value.items():
            inner(item, f"{path}.{key}")

    return check


def _list(inner: Check, *, filled: bool = False) -> Check:
    def check(value: object, path: str) -> None:
        _is(value, list, path, "a list")
        if filled and not value:
            raise ValueError(f"{_short(path)}: is empty")
        for index, item in enumerate(value):
            inner(item, f"{path}[{index}]")

    return check


def _number(low: float = -math.inf, high: float = math.inf) -> Check:
    def check(value: object, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{_short(path)}: must be a number, not {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{_short(path)}: {value} is not within {low} and {high}")

    return check


def _count(value: object, path: str) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"{_short(path)}: must be a count, not {value!r}")


def _integer(value: object, path: str) -> None:
    if type(value) is not int:
        raise ValueError(f"{_short(path)}: must be an integer, not {value!r}")


def _text(value: object, path: str) -> None:
    _is(value, str, path, "text")


def _or_null(inner: Check) -> Check:
    return lambda value, path: None if value is None else inner(value, path)


def _interval(low: float, high: float) -> Check:
    def check(value: object, path: str) -> None:
        _list(_number(low, high))(value, path)
        if len(value) != 2 or value[0] > value[1]:
            raise ValueError(f"{_short(path)}: must be [low, high], not {value}")

    return check


def _strategy(value: object, path: str) -> None:
    (_mapping(_count) if isinstance(value, dict) else _text)(value, path)


def _by_seed(value: object, path: str) -> None:
    if value != "seed":
        raise ValueError(f"{_short(path)}: must be 'seed', not {value!r}")


def _is(value: object, kind: type, path: str, name: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{_short(path)}: must be {name}, not {type(value).__name__}")


def _short(path: str) -> str:
    return path.removeprefix("report.")


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


_SCORE = _number(0, 1)
_COUNTS = _mapping(_count)
_METHOD = _object(
    dict.fromkeys(SCORES, _SCORE)
    | {
        "per_class_recall": _mapping(_or_null(_SCORE)),
        "per_class_f1": _mapping(_or_null(_SCORE)),
        "ci95": _object(dict.fromkeys(SCORES, _interval(0, 1)), {"minority_recall": _interval(0, 1)}),
        "seeds": _list(_integer, filled=True),
        "per_seed": _list(_object(dict.fromkeys(SCORES, _SCORE))),
        "seconds": _number(0),
    },
    {"minority_recall": _or_null(_SCORE), "confusion": _list(_list(_count))},
)
_COMPARISON = _object(
    {
        "a": _text,
        "b": _text,
        "metric": _text,
        "difference": _number(-1, 1),
        "ci95": _interval(-1, 1),
        "paired_by": _by_seed,
    }
)
_SHARE = _object(
    {
        "method": _text,
        "metric": _text,
        "share": _or_null(_number()),
        "ci95": _or_null(_interval(-math.inf, math.inf)),
        "gap": _number(-1, 1),
        "gap_ci95": _interval(-1, 1),
    }
)
_REPORT = _object(
    {
        "data": _object(
            {
                "classes": _list(_text, filled=True),
                "train_counts": _COUNTS,
                "validation_counts": _COUNTS,
                "test_counts": _COUNTS,
            }
        ),
        "methods": _mapping(_METHOD, filled=True),
        "comparisons": _list(_COMPARISON),
        "balance": _object({"strategy": _strategy, "requested": _COUNTS, "kept": _COUNTS, "rejected": _COUNTS}),
        "generation": _object({}),
        "environment": _object(
            {
                "versions": _mapping(_text),
                "cpu": _text,
                "device": _text,
                "commit": _or_null(_text),
                "command": _text,
            }
        ),
    },
    {
        "preset": _text,
        "title": _text,
        "notes": _list(_text),
        "minority": _list(_text),
        "share_of_gap": _list(_SHARE),
    },
)
