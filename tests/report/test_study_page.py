"""The page and figures of a study, from results made by hand."""

import numpy as np
import pytest

from synthmtl.report.study_figures import curves, draw_study_figures
from synthmtl.report.study_gate_figures import GateMaps, maps_figure
from synthmtl.report.study_page import focus_rows, study_summary, write_study_page
from synthmtl.report.study_schema import validate_study

CLASSES = ["neutral", "happiness"]
CONDITION = {"condition": "rho0.5", "rho": 0.5, "labels_per_class": None, "schedule": "joint"}
PLACE = {"stage": 0, "direction": "1_to_0", "gate": "pass"}
GATE = PLACE | {"mean": 0.5, "spread": 0.1, "channels": [0.25, 0.75], "expressions": {"neutral": 0.5, "happiness": 0.6}}
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
        "conflict": [{"group": "stage 0", "steps": [0, 20], "cosine": [0.2, -0.1]}] if gated else [],
        "gates": [GATE | {"ci95": [0.4, 0.6]}] if gated else [],
        "gates_over_time": [PLACE | OVER_TIME] if gated else [],
        "affinity": [{"from": "synthesis", "to": "recognition"} | OVER_TIME | {"mean": [0.1, None]}] if gated else [],
    }  # fmt: skip


@pytest.fixture
def results():
    def difference(a, b, metric, value):
        ends = [value - 0.01, value + 0.01]
        return {
            **CONDITION, "a": a, "b": b, "metric": metric, "difference": value, "ci95": ends, "per_seed": [value] * 3,
            "paired_by": "seed",
        }  # fmt: skip

    made = {
        "title": "A study", "preset": "quick", "conditions": [CONDITION], "notes": ["<b>note</b>"],
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


def test_summary_says_what_is_shown_and_what_is_not(results):
    said = study_summary(results)[-1]
    assert "highest mean macro-F1 was 0.600 (leaky)" in said
    assert "leaky was above none and mtan" in said
    assert "in synthesis error it was below none and could not be told from mtan" in said


def test_differences_are_turned_toward_the_focus(results):
    rows = focus_rows(results, "rho0.5")
    assert rows["none"]["macro_f1"]["difference"] == 0.1
    assert rows["none"]["macro_f1"]["ci95"] == pytest.approx([0.09, 0.11])


def gate_maps():
    ramp = np.linspace(0.1, 0.3, 16)[None, None] * np.ones((2, 16, 1))
    faces = np.full((2, 1, 16, 16), 128, dtype=np.uint8)
    return GateMaps("rho0.5", "leaky", 0, faces, CLASSES, {"0/1_to_0/pass": ramp, "0/0_to_1/take": 0 * ramp})


def test_a_map_is_drawn_where_the_gate_is_open(tmp_path):
    from matplotlib.image import imread

    drawn, flat = gate_maps(), gate_maps()
    flat.maps["0/1_to_0/pass"][:] = 0.2
    pictures = [imread(maps_figure(one, tmp_path / "maps.png")) for one in (drawn, flat)]
    assert pictures[0].shape == pictures[1].shape and not np.array_equal(*pictures)


def test_curves_over_correlation_and_labels(results, tmp_path):
    summary = []
    for rho in (0.0, 0.9):
        for labels in (2, 8, None):
            where = {"condition": f"{rho}-{labels}", "rho": rho, "labels_per_class": labels, "schedule": "two_step"}
            summary += [one | where for one in results["summary"]]
    drawn = curves(summary, tmp_path)
    assert [(one.kind, one.subject) for one in drawn] == [
        ("rho", "2 labels a class, synthesis first"),
        ("rho", "8 labels a class, synthesis first"),
        ("rho", "synthesis first"),
        ("labels_per_class", "ρ = 0, synthesis first"),
        ("labels_per_class", "ρ = 0.9, synthesis first"),
    ]
    assert len({one.path for one in drawn}) == 5 and all(one.path.is_file() for one in drawn)


def test_page_holds_tables_and_figures(results, tmp_path):
    figures = draw_study_figures(results, tmp_path / "figures", [gate_maps()])
    kinds = {figure.kind for figure in figures}
    assert {"gains", "scores", "pairs_macro_f1", "conflict", "affinity", "read", "probes", "interventions"} <= kinds
    assert {f"gates{part}" for part in ("", "_time", "_channels", "_expressions", "_maps")} <= kinds
    assert [figure.path.is_file() for figure in figures] == [True] * len(figures)
    page = write_study_page(results, tmp_path / "report.html", figures).read_text()
    assert page.count("data:image/png;base64,") == len(figures)
    assert "http" not in page and "<script" not in page and "&lt;b&gt;note" in page
    assert "+10.0" in page and "meaningless" not in page
    assert 'class="above">−0.049<' in page and 'class="above">+0.100<' in page  # less error, more recognized: gains
    assert "ρ = " in page and "Ρ" not in page  # the capital reads as a P


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r["summary"][0].update(rho=2), "summary[0].rho"),
        (lambda r: r["comparisons"][1].update(a="nobody"), "comparisons[1].a: 'nobody' has no summary"),
        (lambda r: r["summary"][1]["metrics"]["macro_f1"].update(per_seed=[0.1]), "summary[1].metrics.macro_f1"),
        (lambda r: r["summary"][2]["gates_over_time"][0].update(mean=[0.5]), "summary[2].gates_over_time[0]"),
        (lambda r: r["summary"][2]["gates"][0].update(channels=[1.5]), "summary[2].gates[0].channels[0]"),
        (lambda r: r["data"].update(unedited_error=float("nan")), "data.unedited_error"),
        (lambda r: r.pop("failed"), "failed: missing"),
    ],
)
def test_what_breaks_the_contract_is_named(results, spoil, said):
    spoil(results)
    with pytest.raises(ValueError) as error:
        validate_study(results)
    assert said in str(error.value)
