"""A tiny study end to end: what it leaves, what it survives, what it refuses."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from synthmtl.cli import main
from synthmtl.models.inference import load_network
from synthmtl.report.study_schema import validate_study
from synthmtl.study import cells, preset, training
from synthmtl.study.checks import check_study
from synthmtl.study.config import Condition, grid_cells, network_options
from synthmtl.study.job import load_study
from synthmtl.training import build_accelerator

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
    mine = {row["metric"]: row["value"] for row in rows if row["cell"] == "leaky-sum-rho0-seed0"}
    for name in ("@0", "@2", "/happiness", "/channel0"):
        assert 0 < float(mine[f"gate/0/1_to_0/pass{name}"]) < 1
    assert -1 < float(mine["affinity/recognition_to_synthesis@0"]) < 1


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
    assert -1 < leaky["affinity/synthesis_to_recognition"] < 1
    assert {"expression_read", "nuisance_read"} <= set(leaky) and {"expression_read", "nuisance_read"} <= set(single)
    # Tasks on their own share nothing: no conflict, no gates, and no donor to read.
    assert not [name for name in single if name.startswith(("conflict", "gate", "intervention", "affinity"))]
    assert not [name for name in single if "/donor/" in name or "/message/" in name]


def test_what_is_recorded_is_drawn(broken_study):
    out = broken_study[0]
    leaky = next(entry for entry in results_of(out)["summary"] if entry["method"] == "leaky")
    assert len(leaky["gates_over_time"]) == 12 and len(leaky["affinity"]) == 4
    assert all(one["steps"] == [0, 2] and one["ci95"] == [None, None] for one in leaky["gates_over_time"])
    assert all(gate["channels"] == sorted(gate["channels"]) for gate in leaky["gates"])
    kinds = {path.name.split("-")[0] for path in (out / "figures").glob("*.png")}
    assert {"gates_time", "gates_channels", "gates_expressions", "gates_maps", "affinity", "over"} <= kinds
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == len(list((out / "figures").glob("*.png"))) and "ρ = 0, leaky, seed 0" in page


def test_recording_changes_nothing(tmp_path):
    config = preset("smoke")
    config.precision, config.joint.steps, config.recognition.steps = "no", 4, 4
    config.model = dataclasses.replace(config.model, dropout=0.2)
    grid = config.grid
    grid.sharing, grid.rho, grid.seeds, grid.schedules = ["sparse"], [0.0], [0], ["joint", "two_step"]
    off = {name: 0 for name in ("conflict_every", "gates_every", "affinity_every")}
    job = load_study(config, tmp_path, build_accelerator(precision="no"))
    job.progress = False
    for cell in grid_cells(grid):
        states, looks = [], []
        for name, measures in (("with", config.measures), ("without", dataclasses.replace(config.measures, **off))):
            options = dataclasses.replace(config, measures=measures)
            trained = training.train_cell(dataclasses.replace(job, config=options), cell, tmp_path / name / cell.name)
            states.append(trained.recognizer.state_dict())
            looks.append(trained.looks)
        assert {name: {one["step"] for one in records} for name, records in looks[0].items()} == (
            {"affinity": {0}, "gates": {0, 2}, "conflict": {0, 2}} if cell.condition.schedule == "joint"
            else {"gates": {0, 2}}
        ) and looks[1] == {}  # fmt: skip
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("sharing", ["none", "hard"])
def test_patience_is_for_what_is_selected(monkeypatch, tmp_path, sharing):
    config, found = preset("smoke"), {}
    config.grid.sharing, config.grid.rho, config.grid.seeds = [sharing], [0.0], [0]
    config.joint = dataclasses.replace(config.joint, evaluate_every=1, patience=2)
    check_study(config)
    job = load_study(config, tmp_path, build_accelerator(precision="no"))

    def train(*, config, directory, select_by, **rest):
        found[directory.name] = (select_by, config.patience)
        return SimpleNamespace(seconds=0.0)

    monkeypatch.setattr(training, "fit", train)
    training.train_cell(job, grid_cells(config.grid)[0], tmp_path)
    selected = ("macro_f1", 2)
    assert found == ({"recognition": selected, "synthesis": (None, None)} if sharing == "none" else {"joint": selected})


@pytest.mark.parametrize("schedule", ["joint", "two_step"])
def test_cells_learn_from_annotators_votes(monkeypatch, tmp_path, schedule):
    config = preset("smoke")
    config.grid.sharing, config.grid.rho, config.grid.seeds, config.grid.schedules = ["leaky"], [0.0], [0], [schedule]
    job = load_study(config, tmp_path, build_accelerator(precision="no"))
    torch.manual_seed(0)
    votes = torch.rand(len(job.train), len(job.train.classes)).softmax(1)
    (cell,), losses = grid_cells(config.grid), []

    def step_once(job, objective, stream, *arguments, **options):
        losses.append(float(objective(stream(0))["expression"]))
        return 0.0

    monkeypatch.setattr(training, "fit_cell", step_once)
    for shares in (None, votes):
        train = job.train if shares is None else job.train.replace(expression_distribution=shares)
        job.splits = dataclasses.replace(job.splits, train=train)
        training.train_cell(job, cell, tmp_path)
    assert losses[-1] != losses[len(losses) // 2 - 1]


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


def test_a_study_may_grow(tmp_path, capsys):
    first = ["--grid.sharing", "[none]", "--grid.rho", "[0.0]", "--grid.seeds", "[0]"]
    assert study(tmp_path / "grown", *first) == 0
    files = list((tmp_path / "grown").glob("cells/*/result.json"))
    kept = files[0].stat().st_mtime_ns
    more = ["--grid.sharing", "[hard,none]", "--grid.rho", "[0.0,0.9]", "--grid.seeds", "[0]"]
    assert study(tmp_path / "grown", *more, "--resume") == 0
    results = results_of(tmp_path / "grown")
    assert len(files) == 1 and files[0].stat().st_mtime_ns == kept
    assert len(results["cells"]) == 4 and not results["failed"]
    assert study(tmp_path / "grown", *first, "--resume") == 2
    assert "belongs to a run with another grid.sharing" in capsys.readouterr().err


def test_interrupted_cell_goes_on_as_if_nothing_had_been(broken_study, tmp_path, interrupted):
    options = ["--grid.sharing", "[leaky]", "--grid.rho", "[0.0]", "--joint.checkpoint_every_steps", "1"]
    with interrupted():
        assert study(tmp_path / "cut", *options) == 130
    assert study(tmp_path / "cut", *options, "--resume") == 0
    file = "cells/leaky-sum-rho0-seed0/result.json"
    one, other = (json.loads((out / file).read_text()) for out in (broken_study[0], tmp_path / "cut"))
    assert [record["step"] for record in one["conflict"]] == [record["step"] for record in other["conflict"]]
    for name in ("metrics", "conflict", "gates", "gates_over_time", "affinity"):
        assert one[name] == other[name], name
    assert not list((tmp_path / "cut").glob("cells/*/*/checkpoints"))


def test_two_steps_leave_the_donor_as_it_is(tmp_path):
    options = ["--grid.sharing", "[cross_stitch]", "--grid.rho", "[0.0]", "--grid.schedules", "[two_step]"]
    options += ["--grid.labels_per_class", "[2]", "--synthesis.labels", "false", "--measures.networks", "true"]
    assert study(tmp_path / "out", *options) == 0
    results = results_of(tmp_path / "out")
    assert "synthesis_error_drawn" not in results["cells"][0]["metrics"]
    (condition,) = results["conditions"]
    assert condition == {
        "condition": "rho0-labels2-two_step", "rho": 0.0, "labels_per_class": 2, "schedule": "two_step",
    }  # fmt: skip
    assert "ρ = 0, 2 labels a class, synthesis first" in (tmp_path / "out/report.html").read_text()
    folder = tmp_path / "out/cells/cross_stitch-sum-rho0-labels2-two_step-seed0"
    editor, recognizer = (load_network(folder / name).state_dict() for name in ("editor", "recognizer"))
    kept = ("encoder.stem.", "encoder.branches.1.", "decoder.", "style.")
    changed = {name for name in editor if not torch.equal(editor[name], recognizer[name])}
    assert not [name for name in changed if name.startswith(kept)]
    assert any(name.startswith("encoder.branches.0.") for name in changed)


def test_variants_of_a_unit_are_rows_of_their_own():
    config = preset("smoke")
    config.grid.sharing = ["leaky", "leaky_half"]
    config.unit_options = {"leaky": {"kernel_size": 3, "gate_bias": -1.0}}
    config.variants = {"open": {"unit": "leaky", "gate_bias": 2.0}}
    options = network_options(config, "open")
    assert (options.sharing, options.sharing_options) == ("leaky", {"kernel_size": 3, "gate_bias": 2.0})
    assert network_options(config, "leaky").sharing_options == {"kernel_size": 3, "gate_bias": -1.0}


def test_conditions_of_a_grid_have_names_and_cells():
    grid = preset("smoke").grid
    grid.sharing, grid.seeds = ["none", "leaky"], [7]
    grid.labels_per_class, grid.schedules = [2, None], ["joint", "two_step"]
    assert Condition(0.5).name == "rho0.5"
    names = [cell.name for cell in grid_cells(grid)]
    assert len(set(names)) == len(names) == 16
    assert names[:2] == ["none-single-rho0-labels2-seed7", "leaky-sum-rho0-labels2-seed7"]
    assert names[-1] == "leaky-sum-rho0.9-two_step-seed7"


def test_few_labels_are_the_same_for_every_unit_and_of_every_class():
    from synthmtl.faces import RenderConfig, render_faces

    table = render_faces(RenderConfig(counts=6, image_size=32, subjects=8))
    rows = training.labelled_rows(table, 2, seed=3)
    assert torch.bincount(table.expression[rows]).tolist() == [2] * 8
    assert torch.equal(rows, training.labelled_rows(table, 2, seed=3))
    assert not torch.equal(rows, training.labelled_rows(table, 2, seed=4))
    assert len(training.labelled_rows(table, None, seed=3)) == len(table)
    shares = torch.full((len(table), len(table.classes)), torch.nan)
    shares[:5] = 1 / len(table.classes)  # annotators' votes, of faces without a label
    voted = table.replace(expression=torch.where(torch.arange(len(table)) < 9, -1, table.expression))
    voted = voted.replace(expression_distribution=shares)
    every = training.labelled_rows(voted, None, seed=3)
    assert every.tolist() == [row for row in range(len(table)) if row < 5 or row >= 9]
    assert (voted.expression[training.labelled_rows(voted, 2, seed=3)] >= 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--grid.seeds", "[0,1,0]"], "--grid.seeds has 0 twice"),
        (["--grid.sharing", "[none,leaky,none]"], "--grid.sharing has 'none' twice"),
        (["--grid.sharing", "[none,leeky]"], "unknown sharing unit 'leeky': use one of none, hard, leaky"),
        (["--grid.aggregators", "[pcgard]"], "unknown aggregator 'pcgard': use one of sum"),
        (["--grid.rho", "[1.5]"], "--grid.rho is 1.5: it must be in [0, 1]"),
        (["--faces.path", "FER", "--grid.rho", "[0.5]"], "--grid.rho is [0.5]: it must be [0] with --faces.path"),
        (
            ["--faces.path", "FER", "--grid.rho", "[0]", "--faces.subjects", "[9,9,9]"],
            "--faces.subjects is for rendered",
        ),
        (
            ["--faces.on_leak", "warn"],
            "--faces.on_leak is for faces that are read, and these are rendered: leave it out",
        ),
        (["--precision", "fp16", "--grid.aggregators", "[dwa]"], "aggregator dwa does not work in precision fp16"),
        (["--grid.schedules", "[two_step]", "--grid.aggregators", "[dwa]"], "must be [sum] with --grid.schedules two"),
        (["--grid.labels_per_class", "[0]"], "--grid.labels_per_class is 0: it must be at least 1, or null"),
        (["--variants", "{open: {unit: leeky}}", "--grid.sharing", "[open]"], "--variants.open.unit is 'leeky'"),
        (["--variants", "{leaky: {unit: nddr}}", "--grid.sharing", "[leaky]"], "'leaky' must be a new name"),
        (["--variants", "{open: {unit: leaky, bias: 2}}", "--grid.sharing", "[open]"], "has no option 'bias'"),
        (["--variants", "{open: {unit: leaky, bias: 2}}"], "unit 'leaky' has no option 'bias'"),
        (["--unit_options", "{leeky: {kernel_size: 3}}"], "--unit_options is 'leeky': it must be one of hard, leaky"),
        (["--unit_options", "{nddr: {kernel_size: 3}}"], "unit 'nddr' has no option 'kernel_size'"),
        (["--aggregator_options", "{pcgard: {c: 1}}"], "--aggregator_options is 'pcgard': it must be one of sum"),
        (["--grid.rho", "[0.1234567,0.1234568]"], "--grid.rho has two values that are both called rho0.123457"),
        (
            ["--synthesis.labels", "false", "--model.condition", "action_units"],
            "--synthesis.labels false is for --model.condition expression: action_units would tell as much",
        ),
        (["--unit_options", "{leaky: {kernel: 3}}"], "unit 'leaky' has no option 'kernel'"),
        (["--joint.aggregator", "dwa"], "--joint.aggregator is 'dwa': it must be in --grid.aggregators"),
        (["--joint.aggregator_options", "{c: 0.3}"], "no aggregator to read them: leave them out"),
        (["--joint.precision", "bf16"], "--joint.precision is 'bf16': it must be in --precision"),
        (["--recognition.precision", "no"], "--recognition.precision is 'no': it must be in --precision"),
        (["--joint.seed", "3"], "--joint.seed is 3: every training has a seed of its own, leave it out"),
        (["--recognition.seed", "3"], "--recognition.seed is 3: every training"),
        (["--grid.schedules", "[two_step]", "--joint.patience", "2"], "it is --recognition.patience that counts"),
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


def test_a_part_of_a_grid_need_not_use_all_that_its_configuration_has(tmp_path, caplog):
    """The rest is checked, and said to be unused."""
    (tmp_path / "study.yaml").write_text(
        "grid: {sharing: [none, hard, wide]}\nvariants: {wide: {unit: leaky, kernel_size: 3}}\n"
        "unit_options: {nddr: {}}\naggregator_options: {dwa: {temperature: 1.5}}\n"
    )
    caplog.set_level("INFO", "synthmtl")
    out = tmp_path / "out"
    part = ["--grid.sharing", "[none,hard]", "--grid.rho", "[0.0]"]
    assert study(out, "--config", str(tmp_path / "study.yaml"), *part) == 0
    assert {cell["sharing"] for cell in results_of(out)["cells"]} == {"none", "hard"}
    for said in (
        "--variants: not in the grid, so not used: wide",
        "--unit_options: not in the grid, so not used: nddr",
    ):
        assert said in caplog.text
    assert "--aggregator_options: not in the grid, so not used: dwa" in caplog.text


def test_typo_in_the_configuration_file(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text("grid:\n  sharing: [none, leaky]\nshedule: joint\n")
    assert main(["study", "--config", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "shedule" in lines[0] and not (tmp_path / "out").exists()
