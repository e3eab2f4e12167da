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
    }


def quality_card(absent: tuple[str, ...] = ("lpips_diversity",)) -> dict:
    """A card with made-up numbers, some of which are absent."""

    def numbers(value):
        entries = {name: {"value": value, "extractor": "pixels"} for name in ("fid", "kid", "precision")}
        entries["label_agreement"] = {"value": value / 2, "ci95": [0.1, 0.9], "faces": 12}
        entries |= {name: {"absent": "no weights are here"} for name in absent}
        return entries

    counts = dict.fromkeys(EXPRESSIONS, 3)
    overall = numbers(0.3125)
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
