import json
import math

import numpy as np
import pytest

from synthmtl.report import validate_report


def test_a_true_report_passes_and_survives_json(report):
    validate_report(report)
    validate_report(json.loads(json.dumps(report, allow_nan=False)))


def test_further_keys_are_allowed_everywhere(report):
    report["remark"] = {"anything": [1, None, "text"]}
    report["methods"]["plain"]["parameters"] = 12
    report["comparisons"][0]["remark"] = "new"
    validate_report(report)


def test_what_may_be_left_out_may_be_left_out(report):
    for key in ("preset", "notes", "minority", "share_of_gap"):
        del report[key]
    for entry in report["methods"].values():
        del entry["confusion"], entry["minority_recall"], entry["ci95"]["minority_recall"]
    report["comparisons"] = [one for one in report["comparisons"] if one["metric"] == "macro_f1"]
    validate_report(report)


def test_scores_of_absent_classes_are_null(report):
    report["methods"]["plain"]["per_class_recall"]["contempt"] = None
    validate_report(report)


@pytest.mark.parametrize("key", ["data", "methods", "comparisons", "balance", "generation", "environment"])
def test_every_part_of_the_contract_is_required(report, key):
    del report[key]
    with pytest.raises(ValueError, match=f"^{key}: missing"):
        validate_report(report)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("data", "classes"), ["neutral", "neutral"], r"data\.classes: a class is named twice"),
        (("data", "train_counts", "fear"), 1.5, r"data\.train_counts\.fear: must be a count"),
        (("data", "train_counts", "fear"), -1, r"data\.train_counts\.fear: must be a count"),
        (("data", "test_counts", "boredom"), 3, r"data\.test_counts\.boredom: is not one of the classes"),
        (("data", "test_counts"), {}, r"data\.test_counts\.neutral: missing"),
        (("data", "resampled"), "subjects", r"data\.resampled: must be 'people' or 'faces', not 'subjects'"),
        (("data", "test_people"), -1, r"data\.test_people: must be a count"),
        (("methods",), {}, "methods: is empty"),
        (("methods", "plain", "accuracy"), 55.0, r"methods\.plain\.accuracy: 55.0 is not within 0 and 1"),
        (("methods", "plain", "accuracy"), True, r"methods\.plain\.accuracy: must be a number"),
        (("methods", "plain", "accuracy"), "0.5", r"methods\.plain\.accuracy: must be a number"),
        (("methods", "plain", "macro_f1"), math.nan, r"methods\.plain\.macro_f1: nan is not allowed"),
        (("methods", "plain", "macro_f1"), np.float32(0.5), r"methods\.plain\.macro_f1: float32 is not a JSON type"),
        (("methods", "plain", "seconds"), math.inf, r"methods\.plain\.seconds: inf is not allowed"),
        (
            ("methods", "plain", "ci95", "accuracy"),
            [0.6, 0.5],
            r"methods\.plain\.ci95\.accuracy: must be \[low, high\]",
        ),
        (("methods", "plain", "ci95", "accuracy"), [0.6], r"methods\.plain\.ci95\.accuracy"),
        (("methods", "plain", "ci95"), {}, r"methods\.plain\.ci95\.accuracy: missing"),
        (("methods", "plain", "per_class_f1", "anger"), 2, r"methods\.plain\.per_class_f1\.anger"),
        (("methods", "plain", "seeds"), [0, 1], r"methods\.plain\.per_seed: 3 entries for 2 seeds"),
        (("methods", "plain", "per_seed", 0, "minority_recall"), 2, r"methods\.plain\.per_seed\[0\]\.minority_recall"),
        (("methods", "plain", "seeds"), [], r"methods\.plain\.seeds: is empty"),
        (("methods", "plain", "confusion"), [[1, 2], [3, 4]], r"methods\.plain\.confusion: must be 8 rows"),
        (("comparisons", 0, "b"), "magic", r"comparisons\[0\]\.b: 'magic' is not one of the methods"),
        (("comparisons", 0, "paired_by"), "face", r"comparisons\[0\]\.paired_by: must be 'seed'"),
        (("comparisons", 0, "difference"), None, r"comparisons\[0\]\.difference: must be a number"),
        (("share_of_gap", 0, "share"), None, r"share_of_gap\[0\]: share and ci95 must be null together"),
        (("balance", "kept", "boredom"), 3, r"balance\.kept\.boredom: is not one of the classes"),
        (("balance", "strategy"), 3, r"balance\.strategy: must be text"),
        (("generation", "fid"), math.nan, r"generation\.fid: nan is not allowed"),
        (("generation", 3), 1, "generation: key 3 is not text"),
        (("environment", "versions", "torch"), 2.9, r"environment\.versions\.torch: must be text"),
        (("notes",), "one", "notes: must be a list"),
        (("gates", 0, "gates", 0, "mean"), 1.5, r"gates\[0\]\.gates\[0\]\.mean: 1.5 is not within 0 and 1"),
        (("gates", 1, "gates", 0, "expressions"), {}, r"gates\[1\]\.gates\.expressions\.neutral: missing"),
        (("minority",), ["boredom"], r"minority\.boredom: is not one of the classes"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(report, path, value, message):
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        validate_report(report)


def test_a_strategy_may_be_counts(report):
    report["balance"]["strategy"] = {"anger": 100}
    validate_report(report)


def test_a_quality_card_is_part_of_the_contract(report, card):
    report["generation"]["quality"] = card
    validate_report(report)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("judge"), r"generation\.quality\.judge: missing"),
        (lambda c: c["overall"].update(fid={}), r"generation\.quality\.overall\.fid\.absent: missing"),
        (lambda c: c["overall"].update(fid={"value": None}), r"generation\.quality\.overall\.fid\.value: must be"),
        (lambda c: c["per_expression"].pop("fear"), r"generation\.quality\.per_expression\.fear: missing"),
        (lambda c: c["per_expression"]["fear"].pop("kid"), r"per_expression\.fear: must have the numbers of overall"),
    ],
)
def test_a_broken_quality_card_is_named(report, card, spoil, message):
    report["generation"]["quality"] = card
    spoil(card)
    with pytest.raises(ValueError, match=message):
        validate_report(report)
