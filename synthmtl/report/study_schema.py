"""What ``results.json`` of a study holds, and the check that it holds it.

The contract; further keys are allowed everywhere, and a number that does not exist is null, never NaN:

- ``title``, ``preset``, ``schedule``: text. ``labels_per_class``: count or null. ``notes`` [text].
- ``data``: ``classes``; ``train_counts``, ``validation_counts``, ``test_counts`` {class: faces}; ``held_out_faces``;
  ``unedited_error``, the synthesis error of leaving faces as they are; ``correlation`` {rho: {nuisance: measured}}.
- ``cells`` [{``name``, ``method``, ``sharing``, ``aggregator``, ``rho``, ``seed``, ``parameters``,
  ``training_seconds``, ``seconds``, ``metrics`` {metric: number}}]: the finished ones.
- ``failed`` [{``name``, ``method``, ``sharing``, ``aggregator``, ``rho``, ``seed``, ``error``}].
- ``summary`` [{``method``, ``sharing``, ``aggregator``, ``rho``, ``seeds``, ``parameters``, ``seconds``,
  ``metrics`` {metric: {``mean``, ``per_seed`` [number or null], ``ci95`` [low, high] or null}}, ``gain`` null or
  {``tasks`` {task: gain}, ``overall`` gain, ``seeds``} with gain {``delta``, ``per_seed``, ``ci95``, ``note``},
  ``conflict`` [{``group``, ``steps``, ``cosine``}], ``gates`` [{``stage``, ``direction``, ``gate``, ``mean``,
  ``spread``, ``expressions``}]}]: one for each method and rho.
- ``comparisons`` [{``rho``, ``a``, ``b``, ``metric``, ``difference``, ``ci95``, ``per_seed``, ``paired_by`` "seed"}].
- ``environment``: as in ``report.json``.
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
    text,
)
from synthmtl.report.schema import COUNTS, ENVIRONMENT

_COSINE = number(-1, 1)
_CI = or_null(interval(-math.inf, math.inf))
_NUMBER = number()
_SHARE = number(0, 1)
_CELL = {
    "name": text,
    "method": text,
    "sharing": text,
    "aggregator": text,
    "rho": _SHARE,
    "seed": integer,
}
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
        "rho": _SHARE,
        "seeds": list_of(integer, filled=True),
        "parameters": count,
        "seconds": number(0),
        "metrics": mapping_of(
            object_of({"mean": _NUMBER, "per_seed": list_of(or_null(_NUMBER)), "ci95": _CI}), filled=True
        ),
        "gain": or_null(object_of({"tasks": mapping_of(_GAIN), "overall": _GAIN, "seeds": list_of(integer)})),
        "conflict": list_of(object_of({"group": text, "steps": list_of(count), "cosine": list_of(_COSINE)})),
        "gates": list_of(
            object_of(
                {
                    "stage": count,
                    "direction": text,
                    "gate": text,
                    "mean": _SHARE,
                    "spread": number(0),
                    "expressions": mapping_of(_SHARE),
                }
            )
        ),
    }
)
_COMPARISON = object_of(
    {
        "rho": _SHARE,
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
        "schedule": text,
        "labels_per_class": or_null(count),
        "notes": list_of(text),
        "data": object_of(
            {
                "classes": list_of(text, filled=True),
                "train_counts": COUNTS,
                "validation_counts": COUNTS,
                "test_counts": COUNTS,
                "held_out_faces": count,
                "unedited_error": number(0),
                "correlation": mapping_of(mapping_of(_SHARE)),
            }
        ),
        "cells": list_of(
            object_of(
                _CELL
                | {
                    "parameters": count,
                    "training_seconds": number(0),
                    "seconds": number(0),
                    "metrics": mapping_of(_NUMBER, filled=True),
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
    known = {(entry["method"], entry["rho"]) for entry in results["summary"]}
    for i, entry in enumerate(results["comparisons"]):
        for side in ("a", "b"):
            if (entry[side], entry["rho"]) not in known:
                raise ValueError(f"comparisons[{i}].{side}: {entry[side]!r} has no summary at rho {entry['rho']}")
    for i, entry in enumerate(results["summary"]):
        for metric, values in entry["metrics"].items():
            if len(values["per_seed"]) != len(entry["seeds"]):
                raise ValueError(f"summary[{i}].metrics.{metric}: must have a number for each of its seeds")
