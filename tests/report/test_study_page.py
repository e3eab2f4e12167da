"""The page and figures of a study, from results made by hand."""

import copy

import numpy as np
import pytest

from synthmtl.report.gate_figures import KINDS, gate_kinds, maps_figure
from synthmtl.report.panels import legend_below, panels
from synthmtl.report.study_figures import curves, draw_study_figures
from synthmtl.report.study_page import focus_rows, study_findings, study_summary, write_study_page
from synthmtl.report.study_schema import validate_study


def test_summary_says_what_is_shown_and_what_is_not(results):
    assert study_summary(results)[0].startswith(f"{len(results['cells'])} of ")
    title, said = study_findings(results)[-1]
    assert title == "ρ = 0.5"
    assert "highest mean macro-F1 was 0.600 (leaky)" in said
    assert "leaky was above none and mtan" in said
    assert (
        "lowest mean synthesis error was 0.150 (mtan), where leaky was below none and could not be told from mtan"
        in said
    )


def test_a_smoke_run_has_no_findings(results):
    results["preset"] = "smoke"
    assert "mean nothing" in study_summary(results)[-1] and study_findings(results) == []


def test_differences_are_turned_toward_the_focus(results):
    rows = focus_rows(results, "rho0.5")
    assert rows["none"]["macro_f1"]["difference"] == 0.1
    assert rows["none"]["macro_f1"]["ci95"] == pytest.approx([0.09, 0.11])


def test_a_map_is_drawn_where_the_gate_is_open(gate_maps, tmp_path):
    from matplotlib.image import imread

    drawn, flat = gate_maps, copy.deepcopy(gate_maps)
    flat.maps["0/1_to_0/pass"][:] = 0.2
    pictures = [imread(maps_figure(one, tmp_path / "maps.png")) for one in (drawn, flat)]
    assert pictures[0].shape == pictures[1].shape and not np.array_equal(*pictures)


def test_gates_are_named_by_the_tasks_that_they_stand_between():
    assert gate_kinds(("expression", "valence_arousal"))["0_to_1", "take"][0] == "z to valence arousal"
    assert KINDS["1_to_0", "pass"][0] == "r to recognition" and KINDS["0_to_1", "pass"][0] == "r to synthesis"
    three = gate_kinds(("landmarks", "expression", "action_units"))
    assert three["2_to_0", "pass"][0] == "r action units to landmarks"
    for tasks in (2, 3, 4):
        kinds = gate_kinds([f"task {i}" for i in range(tasks)])
        assert len(set(kinds.values())) == len(kinds) == 2 * tasks * (tasks - 1)


def test_legend_names_what_any_panel_shows(tmp_path):
    figure, grid = panels(2, 2.0, 1.7)
    grid[0].plot([0, 1], label="one")
    grid[1].plot([0, 1], label="one")
    grid[1].plot([1, 0], label="other")
    before = figure.get_figheight()
    legend_below(figure)
    assert [text.get_text() for text in figure.legends[0].texts] == ["one", "other"]
    assert figure.get_figheight() == before
    for i in range(12):
        grid[0].plot([0, i], label=f"a long name of direction {i}")
    legend_below(figure)
    assert figure.get_figheight() > before


def test_curves_over_correlation_and_labels(results, tmp_path):
    summary = []
    for rho in (0.0, 0.9):
        for labels in (2, 8, None):
            where = {"condition": f"{rho}-{labels}", "rho": rho, "labels_per_class": labels, "schedule": "two_step"}
            summary += [one | where for one in results["summary"]]
    drawn = curves(summary, ["macro_f1", "synthesis_error"], tmp_path)
    assert [(one.kind, one.subject) for one in drawn] == [
        ("rho", "2 labels a class, synthesis first"),
        ("rho", "8 labels a class, synthesis first"),
        ("rho", "synthesis first"),
        ("labels_per_class", "ρ = 0, synthesis first"),
        ("labels_per_class", "ρ = 0.9, synthesis first"),
    ]
    assert len({one.path for one in drawn}) == 5 and all(one.path.is_file() for one in drawn)


def test_page_holds_tables_and_figures(results, gate_maps, tmp_path):
    figures = draw_study_figures(results, tmp_path / "figures", [gate_maps])
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


@pytest.mark.parametrize("editing", [True, False])
@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ("people", "test people, with all of their faces,"),
        ("faces", "single test faces (too narrow where several show one person),"),
        (None, "test people (single faces where these are unknown or few),"),
    ],
)
def test_page_says_what_was_resampled(results, tmp_path, drawn, said, editing):
    results["data"] |= {"resampled": drawn} if drawn else {}
    results["data"] |= {} if editing else {"unedited_error": None}
    page = " ".join(write_study_page(results, tmp_path / "report.html").read_text().split())
    errors = "synthesis errors seeds and people, " if editing else ""
    assert f"scores resample seeds and {said} {errors}everything else seeds alone." in page


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r["summary"][0].update(rho=2), "summary[0].rho"),
        (lambda r: r["comparisons"][1].update(a="nobody"), "comparisons[1].a: 'nobody' has no summary"),
        (lambda r: r["summary"][1]["metrics"]["macro_f1"].update(per_seed=[0.1]), "summary[1].metrics.macro_f1"),
        (lambda r: r["summary"][2]["gates_over_time"][0].update(mean=[0.5]), "summary[2].gates_over_time[0]"),
        (lambda r: r["summary"][2]["gates"][0].update(channels=[1.5]), "summary[2].gates[0].channels[0]"),
        (lambda r: r["data"].update(resampled="subjects"), "data.resampled: must be 'people' or 'faces'"),
        (lambda r: r["data"].update(unedited_error=float("nan")), "data.unedited_error"),
        (lambda r: r.pop("failed"), "failed: missing"),
    ],
)
def test_what_breaks_the_contract_is_named(results, spoil, said):
    spoil(results)
    with pytest.raises(ValueError) as error:
        validate_study(results)
    assert said in str(error.value)
