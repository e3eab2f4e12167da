"""A tiny study end to end: what it leaves, what it survives, what it refuses."""

import csv
import json

import pytest
import torch

from synthmtl.cli import main
from synthmtl.models.inference import load_network
from synthmtl.report.study_schema import validate_study
from synthmtl.study import cells, training

TINY = [
    "--preset",
    "smoke",
    "--precision",
    "no",
    "--grid.seeds",
    "[0]",
    "--joint.steps",
    "4",
    "--recognition.steps",
    "4",
]
GRID = ["--grid.sharing", "[none,leaky]", "--grid.rho", "[0.0,0.9]"]


def study(out, *options):
    return main(["study", "--out", str(out), *TINY, *options])


def results_of(out):
    results = json.loads((out / "results.json").read_text())
    validate_study(results)
    return results


@pytest.fixture(scope="module")
def broken_study(tmp_path_factory):
    """A grid of four cells of which one could not be trained, and the exit code."""
    out = tmp_path_factory.mktemp("study") / "out"
    whole = cells.train_cell

    def break_one(job, cell, directory):
        if cell.name == "leaky-sum-rho0.9-seed0":
            raise RuntimeError("out of\nmemory")
        return whole(job, cell, directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "train_cell", break_one)
        code = study(out, *GRID)
    return out, code


def test_failed_cell_is_reported_and_costs_itself_only(broken_study):
    out, code = broken_study
    results = results_of(out)
    assert code == 1
    assert [cell["name"] for cell in results["failed"]] == ["leaky-sum-rho0.9-seed0"]
    assert results["failed"][0]["error"] == "RuntimeError: out of memory"
    names = ["none-single-rho0-seed0", "leaky-sum-rho0-seed0", "none-single-rho0.9-seed0"]
    assert [cell["name"] for cell in results["cells"]] == names
    page = (out / "report.html").read_text()
    assert "RuntimeError: out of memory" in page and "Every number on this page is meaningless" in page
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["cell"] for row in rows if row["metric"] == "macro_f1"} == set(names)
    assert [row["value"] for row in rows if row["metric"] == "error"] == ["RuntimeError: out of memory"]


def test_what_is_measured(broken_study):
    single, leaky, _ = (cell["metrics"] for cell in results_of(broken_study[0])["cells"])
    for group in ("stem", "stage 0", "unit 2", "joint"):
        assert -1 <= leaky[f"conflict/{group}/cosine"] <= 1
    for stage in range(3):
        for direction in ("0_to_1", "1_to_0"):
            assert 0 < leaky[f"gate/{stage}/{direction}/pass"] < 1
            assert f"intervention/shut/{stage}/{direction}/synthesis_error" in leaky
        for place in ("donor", "message", "receiver_before", "receiver_after"):
            assert f"probe/{stage}/{place}/subject" in leaky
    assert {"expression_read", "nuisance_read"} <= set(leaky) and {"expression_read", "nuisance_read"} <= set(single)
    # Tasks on their own share nothing: no conflict, no gates, and no donor to read.
    assert not [name for name in single if name.startswith(("conflict", "gate", "intervention"))]
    assert not [name for name in single if "/donor/" in name or "/message/" in name]


def test_gain_is_relative_to_single_tasks_of_the_same_seed(broken_study):
    summary = {(entry["method"], entry["rho"]): entry for entry in results_of(broken_study[0])["summary"]}
    single, leaky = summary["none", 0.0], summary["leaky", 0.0]
    errors = [entry["metrics"]["synthesis_error"]["mean"] for entry in (single, leaky)]
    assert leaky["gain"]["tasks"]["synthesis"]["delta"] == pytest.approx((errors[0] - errors[1]) / errors[0])
    assert single["gain"] is None
    low, high = leaky["metrics"]["synthesis_error"]["ci95"]
    assert low <= errors[1] <= high


def test_resume_trains_what_is_missing_only(broken_study):
    out = broken_study[0]
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}
    assert len(before) == 3 and study(out, *GRID, "--resume") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    results = results_of(out)
    assert len(results["cells"]) == 4 and not results["failed"]
    assert {(one["a"], one["b"], one["rho"]) for one in results["comparisons"]} == {
        ("none", "leaky", 0.0),
        ("none", "leaky", 0.9),
    }


def test_another_configuration_is_refused(broken_study, capsys):
    out = broken_study[0]
    before = (out / "options.json").read_text()
    assert study(out, *GRID, "--resume", "--joint.steps", "5") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "belongs to a run with another joint.steps (4 there, 5 now)" in said[0]
    assert study(out, *GRID) == 2 and "--resume continues it" in capsys.readouterr().err
    assert (out / "options.json").read_text() == before


def test_interrupted_cell_goes_on_as_if_nothing_had_been(broken_study, tmp_path, monkeypatch):
    options = ["--grid.sharing", "[leaky]", "--grid.rho", "[0.0]", "--joint.checkpoint_every_steps", "1"]
    whole = training.KeptConflict.__call__

    def stop(recorder, step, losses):
        if step == 2:
            raise KeyboardInterrupt
        whole(recorder, step, losses)

    with monkeypatch.context() as patch:
        patch.setattr(training.KeptConflict, "__call__", stop)
        assert study(tmp_path / "cut", *options) == 130
    assert study(tmp_path / "cut", *options, "--resume") == 0
    file = "cells/leaky-sum-rho0-seed0/result.json"
    one, other = (json.loads((out / file).read_text()) for out in (broken_study[0], tmp_path / "cut"))
    assert [record["step"] for record in one["conflict"]] == [record["step"] for record in other["conflict"]]
    for name in ("metrics", "conflict", "gates"):
        assert one[name] == other[name], name
    assert not list((tmp_path / "cut").glob("cells/*/*/checkpoints"))


def test_two_steps_leave_the_donor_as_it_is(tmp_path):
    options = ["--grid.sharing", "[cross_stitch]", "--grid.rho", "[0.0]", "--schedule", "two_step"]
    options += ["--labels_per_class", "2", "--synthesis.labels", "false", "--measures.networks", "true"]
    assert study(tmp_path / "out", *options) == 0
    results = results_of(tmp_path / "out")
    assert "synthesis_error_drawn" not in results["cells"][0]["metrics"]
    assert results["labels_per_class"] == 2 and results["schedule"] == "two_step"
    folder = tmp_path / "out/cells/cross_stitch-sum-rho0-seed0"
    editor, recognizer = (load_network(folder / name).state_dict() for name in ("editor", "recognizer"))
    kept = ("encoder.stem.", "encoder.branches.1.", "decoder.", "style.")
    changed = {name for name in editor if not torch.equal(editor[name], recognizer[name])}
    assert not [name for name in changed if name.startswith(kept)]
    assert any(name.startswith("encoder.branches.0.") for name in changed)


def test_few_labels_are_the_same_for_every_unit_and_of_every_class():
    from synthmtl.faces import RenderConfig, render_faces

    table = render_faces(RenderConfig(counts=6, image_size=32, subjects=8))
    rows = training.labelled_rows(table, 2, seed=3)
    assert torch.bincount(table.expression[rows]).tolist() == [2] * 8
    assert torch.equal(rows, training.labelled_rows(table, 2, seed=3))
    assert not torch.equal(rows, training.labelled_rows(table, 2, seed=4))
    assert len(training.labelled_rows(table, None, seed=3)) == len(table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--grid.seeds", "[0,1,0]"], "--grid.seeds has 0 twice"),
        (["--grid.sharing", "[none,leaky,none]"], "--grid.sharing has 'none' twice"),
        (["--grid.sharing", "[none,leeky]"], "unknown sharing unit 'leeky': use one of none, hard, leaky"),
        (["--grid.aggregators", "[pcgard]"], "unknown aggregator 'pcgard': use one of sum"),
        (["--grid.rho", "[1.5]"], "--grid.rho is 1.5: it must be in [0, 1]"),
        (["--faces.path", "FER", "--grid.rho", "[0.5]"], "--grid.rho is [0.5]: it must be [0] with --faces.path"),
        (["--schedule", "two_step", "--grid.aggregators", "[dwa]"], "must be [sum] with --schedule two_step"),
        (["--unit_options", "{leaky: {kernel: 3}}"], "unit 'leaky' has no option 'kernel'"),
        (["--joint.aggregator", "dwa"], "--joint.aggregator is 'dwa': it must be in --grid.aggregators"),
        (["--grid.sharring", "[leaky]"], "grid.sharring"),
        (["--model.generator", "diffusion"], "--model.generator is 'diffusion': it must be gan in a study"),
        (["--preset", "smole"], "unknown preset 'smole': use smoke, quick or full"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, said, tmp_path, capsys):
    assert main(["study", "--out", str(tmp_path / "out"), *TINY[2:], *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_typo_in_the_configuration_file(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text("grid:\n  sharing: [none, leaky]\nshedule: joint\n")
    assert main(["study", "--config", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "shedule" in lines[0] and not (tmp_path / "out").exists()
