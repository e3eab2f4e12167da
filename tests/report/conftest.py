import copy

import numpy as np
import pytest
import torch

from synthmtl.labels import EXPRESSIONS
from synthmtl.metrics import (
    bootstrap_intervals,
    compare_paired,
    minority_classes,
    recognition_metrics,
    share_of_gap,
)
from synthmtl.report.gate_figures import KINDS, GateMaps
from synthmtl.report.study_schema import validate_study

SKILL = {
    # method: (how often it is right on common expressions, on rare ones)
    "plain": (0.55, 0.03),
    "plain_matched": (0.57, 0.04),
    "class_weighted": (0.53, 0.17),
    "oversampled": (0.55, 0.27),
    "logit_adjusted": (0.52, 0.33),
    "hard_sharing": (0.55, 0.05),
    "gated": (0.57, 0.05),
    "gated_balanced": (0.58, 0.46),
    "diluted": (0.56, 0.24),
    "oracle": (0.58, 0.52),
}
COUNTS = dict(zip(EXPRESSIONS, (400, 400, 250, 250, 120, 20, 20, 20), strict=True))


def build_report(test_faces: int = 640, seeds: int = 3) -> dict:
    """A report whose numbers are those of made-up recognizers: everything in it hangs together."""
    rng = np.random.default_rng(0)
    truth = np.arange(test_faces) % len(EXPRESSIONS)
    minority = list(minority_classes(COUNTS))
    rare = np.isin(truth, [EXPRESSIONS.index(name) for name in minority])
    outputs, methods = {}, {}
    for name, (common, seldom) in SKILL.items():
        right = rng.random((seeds, test_faces)) < np.where(rare, seldom, common)
        outputs[name] = np.where(right, truth, rng.integers(5, size=right.shape))
        scores = [
            recognition_metrics(torch.eye(8)[torch.from_numpy(row)], torch.from_numpy(truth), EXPRESSIONS)
            for row in outputs[name]
        ]
        per_seed = [
            {key: getattr(s, key) for key in ("accuracy", "macro_f1", "balanced_accuracy")}
            | {"minority_recall": sum(s.per_class_recall[m] for m in minority) / len(minority)}
            for s in scores
        ]
        methods[name] = {key: float(np.mean([one[key] for one in per_seed])) for key in per_seed[0]} | {
            "per_class_recall": {c: float(np.mean([s.per_class_recall[c] for s in scores])) for c in EXPRESSIONS},
            "per_class_f1": {c: float(np.mean([s.per_class_f1[c] for s in scores])) for c in EXPRESSIONS},
            "ci95": bootstrap_intervals(outputs[name], truth, EXPRESSIONS, minority=minority, samples=200),
            "confusion": np.sum([s.confusion for s in scores], 0).tolist(),
            "seeds": list(range(seeds)),
            "per_seed": per_seed,
            "seconds": 61.5,
        }
    comparisons = [
        compare_paired(
            outputs["gated_balanced"], outputs[name], truth, EXPRESSIONS, metric=m, minority=minority, samples=200
        ).as_dict("gated_balanced", name)
        for m in ("macro_f1", "minority_recall")
        for name in SKILL
        if name != "gated_balanced"
    ]
    share = share_of_gap(
        outputs["gated_balanced"], outputs["plain"], outputs["oracle"], truth, EXPRESSIONS, samples=200
    )
    requested = {name: 400 - count for name, count in COUNTS.items() if count < 400}
    return {
        "preset": "quick",
        "data": {
            "classes": list(EXPRESSIONS),
            "train_counts": COUNTS,
            "validation_counts": dict.fromkeys(EXPRESSIONS, 40),
            "test_counts": dict.fromkeys(EXPRESSIONS, test_faces // 8),
        },
        "methods": methods,
        "comparisons": comparisons,
        "share_of_gap": [share.as_dict("gated_balanced")],
        "minority": minority,
        "balance": {
            "strategy": "auto",
            "requested": requested,
            "kept": {name: count - 7 for name, count in requested.items()},
            "rejected": {name: 31 for name in requested},
            "mistaken": {name: 0.0625 for name in requested},
        },
        "generation": {"agreement": {"disgust": 0.8125, "anger": 0.75}, "pairs": True, "generator_seeds": [0]},
        "environment": {
            "versions": {"python": "3.12.4", "torch": "2.14.1"},
            "cpu": "2 cores of a processor",
            "device": "cpu",
            "commit": None,
            "command": "synthmtl quickstart --out runs/quickstart",
        },
        "notes": ["One generator seed, three recognizer seeds."],
        "gates": [
            {"method": name, "seeds": 3, "gates": [gate(stage, way, kind) for stage in range(3) for way, kind in KINDS]}
            for name in ("joint training", "gated_balanced")
        ],
    }


def gate(stage: int, direction: str, kind: str) -> dict:
    """One entry of ``gates``; contempt has no validation face."""
    expressions = {name: 0.1 + 0.02 * i for i, name in enumerate(EXPRESSIONS)} | {"contempt": None}
    place = {"stage": stage, "direction": direction, "gate": kind}
    return place | {"mean": 0.2 + 0.1 * stage, "spread": 0.01, "range": [0.1, 0.5], "expressions": expressions}


def quality_card(absent: tuple[str, ...] = ("lpips_diversity",)) -> dict:
    """A card with made-up numbers, some of which are absent."""

    def numbers(value):
        entries = {name: {"value": value, "extractor": "pixels"} for name in ("fid", "kid", "precision")}
        entries["label_agreement"] = {"value": value / 2, "ci95": [0.1, 0.9], "faces": 12}
        entries["subject_kept"] = {"value": 0.5}
        entries |= {name: {"absent": "no weights are here"} for name in absent}
        return entries

    counts = dict.fromkeys(EXPRESSIONS, 3)
    overall = numbers(0.3125)
    overall["subject_kept"] = {"value": 0.5, "real": {"value": 0.4375}}
    overall["label_agreement"]["reference"] = {"value": 0.6875, "on": "test"}
    return {
        "real": {"faces": 24, "counts": counts},
        "synthetic": {"faces": 24, "counts": counts},
        "extractor": {"name": "pixels"},
        "judge": {"name": "Recognizer 0123", "weights": "0123"},
        "notes": ["24 of 99 real faces, drawn at random."],
        "overall": overall,
        "per_expression": {name: numbers(0.25) for name in EXPRESSIONS},
        "closest_pairs": [{"row": 0, "file": ""}],
    }


_REPORT = build_report()


@pytest.fixture
def report() -> dict:
    """A true-to-contract report that a test may change as it likes."""
    return copy.deepcopy(_REPORT)


@pytest.fixture
def card() -> dict:
    """A quality card, for ``generation.quality``."""
    return quality_card()


@pytest.fixture
def faces() -> np.ndarray:
    """(3, 9, 1, 48, 48) uint8: tiles in which every face and pixel differs."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 48)
    tiles = ramp[:, None] * 0.5 + ramp[None, :] * 0.5 + rng.normal(0, 8, (3, 9, 1, 48, 48))
    return tiles.clip(0, 255).astype(np.uint8)


CLASSES = ["neutral", "happiness"]
CONDITION = {"condition": "rho0.5", "rho": 0.5, "labels_per_class": None, "schedule": "joint"}
PLACE = {"stage": 0, "direction": "1_to_0", "gate": "pass"}
GATE = PLACE | {"mean": 0.5, "spread": 0.1, "channels": [0.25, 0.75], "expressions": {"neutral": 0.5, "happiness": 0.6}}
CONFLICT = {"group": "stage 0", "tasks": ["recognition", "synthesis"], "steps": [0, 20], "cosine": [0.2, -0.1]}
OVER_TIME = {"steps": [0, 20], "mean": [0.5, 0.4], "ci95": [[0.4, 0.6], None]}


def entry(method, macro_f1, error):
    def metric(value, spread=0.01):
        return {
            "mean": value,
            "per_seed": [value - spread, value, value + spread],
            "ci95": [value - spread, value + spread],
        }

    gain = {"delta": 0.1, "per_seed": [0.0, 0.1, 0.2], "ci95": [0.0, 0.2], "note": None}
    gated = method == "leaky"
    metrics = {"macro_f1": metric(macro_f1), "synthesis_error": metric(error), "nuisance_read": metric(0.4)}
    metrics |= {f"probe/2/{place}/expression": metric(0.5) for place in ("donor", "receiver_before", "receiver_after")}
    if gated:
        metrics["intervention/shut/all/1_to_0/macro_f1"] = metric(-0.2)
    return {
        "method": method, "sharing": method, "aggregator": "sum", **CONDITION, "seeds": [0, 1, 2], "parameters": 10,
        "seconds": 3.0, "metrics": metrics, "gain": None if method == "none" else
        {"tasks": {"recognition": gain, "synthesis": gain}, "overall": gain, "seeds": [0, 1, 2]},
        "conflict": [CONFLICT] if gated else [],
        "gates": [GATE | {"ci95": [0.4, 0.6]}] if gated else [],
        "gates_over_time": [PLACE | OVER_TIME] if gated else [],
        "affinity": [{"from": "synthesis", "to": "recognition"} | OVER_TIME | {"mean": [0.1, None]}] if gated else [],
    }  # fmt: skip


@pytest.fixture
def results() -> dict:
    """The results of a study that a test may change as it likes."""

    def difference(a, b, metric, value):
        ends = [value - 0.01, value + 0.01]
        return {
            **CONDITION, "a": a, "b": b, "metric": metric, "difference": value, "ci95": ends, "per_seed": [value] * 3,
            "paired_by": "seed",
        }  # fmt: skip

    made = {
        "title": "A study", "preset": "quick", "conditions": [CONDITION], "notes": ["<b>note</b>"],
        "tasks": [
            {"task": "recognition", "metric": "macro_f1", "lower_is_better": False},
            {"task": "synthesis", "metric": "synthesis_error", "lower_is_better": True},
        ],
        "data": {
            "classes": CLASSES, "train_counts": dict.fromkeys(CLASSES, 5), "test_counts": dict.fromkeys(CLASSES, 4),
            "validation_counts": dict.fromkeys(CLASSES, 2), "held_out_faces": 6, "unedited_error": 0.3,
            "correlation": {"0.5": {"yaw": 0.48, "subject": 0.51}},
        },
        "cells": [], "failed": [],
        "summary": [entry("none", 0.5, 0.20), entry("mtan", 0.52, 0.15), entry("leaky", 0.6, 0.151)],
        "comparisons": [
            difference("none", "leaky", "macro_f1", -0.1), difference("mtan", "leaky", "macro_f1", -0.08),
            difference("none", "leaky", "synthesis_error", 0.049),
            difference("mtan", "leaky", "synthesis_error", -0.001),
        ],
        "environment": {"versions": {"torch": "2"}, "cpu": "x", "device": "cpu", "commit": None, "command": "synthmtl"},
    }  # fmt: skip
    validate_study(made)
    return made


@pytest.fixture
def gate_maps() -> GateMaps:
    """Two faces and two gates, one of them shut."""
    ramp = np.linspace(0.1, 0.3, 16)[None, None] * np.ones((2, 16, 1))
    faces = np.full((2, 1, 16, 16), 128, dtype=np.uint8)
    return GateMaps("rho0.5", "leaky", 0, faces, CLASSES, {"0/1_to_0/pass": ramp, "0/0_to_1/take": 0 * ramp})
