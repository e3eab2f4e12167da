"""What ``results.json`` of a study holds, and the check that it holds it.

The contract; further keys are allowed everywhere, and a number that does not exist is null, never NaN:

- ``title``, ``preset``: text. ``notes`` [text].
- ``tasks`` [{``task``, ``metric``, ``lower_is_better``}]: two or more, as gains, conflict and affinity call them,
  and their scores among the metrics.
- ``conditions`` [{``condition``, ``rho``, ``labels_per_class``, ``schedule``}]: what methods are compared under, by
  name; labels are a count, or null for all, the schedule is ``joint`` or ``two_step``. All four stand in every cell,
  summary and comparison too: CONDITION below.
- ``data``: ``classes``; ``train_counts``, ``validation_counts``, ``test_counts`` {class: faces}; ``held_out_faces``;
  ``unedited_error``, the synthesis error of leaving faces as they are, null where nothing is synthesized;
  ``correlation`` {rho: {nuisance: measured}}; ``test_faces``?, those that a task is scored by; ``resampled``? as in
  ``report.json``.
- ``cells`` [{``name``, ``method``, ``sharing``, ``aggregator``, CONDITION, ``seed``, ``parameters``,
  ``training_seconds``, ``seconds``, ``metrics`` {metric: number}, ``gates`` [{``stage``, ``direction``, ``gate``,
  ``mean``, ``spread``, ``channels``, ``expressions``}], ``gates_over_time`` [{``stage``, ``direction``, ``gate``,
  ``steps``, ``values``}], ``affinity`` [{``from``, ``to``, ``steps``, ``values``}]}]: the finished ones.
- ``failed`` [{``name``, ``method``, ``sharing``, ``aggregator``, CONDITION, ``seed``, ``error``}].
- ``summary`` [{``method``, ``sharing``, ``aggregator``, CONDITION, ``seeds``, ``parameters``, ``seconds``,
  ``metrics`` {metric: {``mean``, ``per_seed`` [number or null], ``ci95`` [low, high] or null}}, ``gain`` null or
  {``tasks`` {task: gain}, ``overall`` gain, ``seeds``} with gain {``delta``, ``per_seed``, ``ci95``, ``note``},
  ``conflict`` [{``group``, ``tasks``: two, ``steps``, ``cosine``}],
  ``affinity`` [{``from``, ``to``, ``steps``, ``mean``, ``ci95``}],
  ``gates`` [{``stage``, ``direction``, ``gate``, ``mean``, ``ci95``, ``spread``, ``expressions``, ``channels``: from
  the most shut to the most open}], ``gates_over_time`` [{``stage``, ``direction``, ``gate``, ``steps``, ``mean``,
  ``ci95``}]}]: one for each method and condition; of series ``mean`` and ``ci95`` have an entry, or null, a step.
- ``comparisons`` [{CONDITION, ``a``, ``b``, ``metric``, ``difference``, ``ci95``, ``per_seed``, ``paired_by`` "seed"}].
- ``environment``: as in ``report.json``.
"""

import math

from synthmtl.report.checks import (
    by_seed,
    check_plain_json,
    count,
    flag,
    integer,
    interval,
    list_of,
    mapping_of,
    number,
    object_of,
    or_null,
    text,
)
from synthmtl.report.schema import COUNTS, ENVIRONMENT, resampled

_COSINE = number(-1, 1)
_CI = or_null(interval(-math.inf, math.inf))
_NUMBER = number()
_SHARE = number(0, 1)
_CONDITION = {"condition": text, "rho": _SHARE, "labels_per_class": or_null(count), "schedule": text}
_CELL = _CONDITION | {
    "name": text,
    "method": text,
    "sharing": text,
    "aggregator": text,
    "seed": integer,
}
_GATE = {"stage": count, "direction": text, "gate": text}
_OPENNESS = _GATE | {
    "mean": _SHARE,
    "spread": number(0),
    "channels": list_of(_SHARE, filled=True),
    "expressions": mapping_of(_SHARE),
}
_TASKS = {"from": text, "to": text}
_SERIES = {"steps": list_of(count), "values": list_of(or_null(_NUMBER))}
_MEANS = {"steps": list_of(count), "mean": list_of(or_null(_NUMBER)), "ci95": list_of(_CI)}
_GAIN = object_of(
    {
        "delta": or_null(_NUMBER),
        "per_seed": list_of(or_null(_NUMBER)),
        "ci95": _CI,
        "note": or_null(text),
    }
)
_SUMMARY = object_of(
    {
        "method": text,
        "sharing": text,
        "aggregator": text,
        **_CONDITION,
        "seeds": list_of(integer, filled=True),
        "parameters": count,
        "seconds": number(0),
        "metrics": mapping_of(
            object_of({"mean": _NUMBER, "per_seed": list_of(or_null(_NUMBER)), "ci95": _CI}), filled=True
        ),
        "gain": or_null(object_of({"tasks": mapping_of(_GAIN), "overall": _GAIN, "seeds": list_of(integer)})),
        "conflict": list_of(
            object_of({"group": text, "tasks": list_of(text), "steps": list_of(count), "cosine": list_of(_COSINE)})
        ),
        "affinity": list_of(object_of(_TASKS | _MEANS)),
        "gates": list_of(object_of(_OPENNESS | {"ci95": _CI})),
        "gates_over_time": list_of(object_of(_GATE | _MEANS)),
    }
)
_COMPARISON = object_of(
    {
        **_CONDITION,
        "a": text,
        "b": text,
        "metric": text,
        "difference": _NUMBER,
        "ci95": _CI,
        "per_seed": list_of(_NUMBER, filled=True),
        "paired_by": by_seed,
    }
)
_STUDY = object_of(
    {
        "title": text,
        "preset": text,
        "tasks": list_of(object_of({"task": text, "metric": text, "lower_is_better": flag}), filled=True),
        "conditions": list_of(object_of(_CONDITION), filled=True),
        "notes": list_of(text),
        "data": object_of(
            {
                "classes": list_of(text),
                "train_counts": COUNTS,
                "validation_counts": COUNTS,
                "test_counts": COUNTS,
                "held_out_faces": count,
                "unedited_error": or_null(number(0)),
                "correlation": mapping_of(mapping_of(_SHARE)),
            },
            {"test_faces": count, "resampled": resampled},
        ),
        "cells": list_of(
            object_of(
                _CELL
                | {
                    "parameters": count,
                    "training_seconds": number(0),
                    "seconds": number(0),
                    "metrics": mapping_of(_NUMBER, filled=True),
                    "gates": list_of(object_of(_OPENNESS)),
                    "gates_over_time": list_of(object_of(_GATE | _SERIES)),
                    "affinity": list_of(object_of(_TASKS | _SERIES)),
                }
            )
        ),
        "failed": list_of(object_of(_CELL | {"error": text})),
        "summary": list_of(_SUMMARY),
        "comparisons": list_of(_COMPARISON),
        "environment": ENVIRONMENT,
    }
)


def validate_study(results: dict) -> None:
    """Check the results of a study against the contract of this module.

    Raises:
        ValueError: naming the path of the first thing that is wrong, as ``cells[0].rho``.
    """
    check_plain_json(results, "report")
    _STUDY(results, "report")
    names = [cell["name"] for cell in (*results["cells"], *results["failed"])]
    if len(set(names)) < len(names):
        raise ValueError("cells: a cell is named twice")
    known = {(entry["method"], entry["condition"]) for entry in results["summary"]}
    for i, entry in enumerate(results["comparisons"]):
        for side in ("a", "b"):
            if (entry[side], entry["condition"]) not in known:
                where = f"comparisons[{i}].{side}"
                raise ValueError(f"{where}: {entry[side]!r} has no summary under {entry['condition']}")
    for i, entry in enumerate(results["summary"]):
        for metric, values in entry["metrics"].items():
            if len(values["per_seed"]) != len(entry["seeds"]):
                raise ValueError(f"summary[{i}].metrics.{metric}: must have a number for each of its seeds")
        for key in ("affinity", "gates_over_time"):
            for k, one in enumerate(entry[key]):
                if not len(one["steps"]) == len(one["mean"]) == len(one["ci95"]):
                    raise ValueError(f"summary[{i}].{key}[{k}]: must have a mean and an interval for each of its steps")
