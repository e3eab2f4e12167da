"""Studies of heads: every measure of the study of recognition and synthesis, by one network for all tasks."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from synthmtl.cli import main
from synthmtl.data.writer import write_image_folder
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.metrics.multitask import HEADLINES, headline_replicates, task_intervals
from synthmtl.models.inference import load_network
from synthmtl.report.study_schema import validate_study
from synthmtl.study import preset
from synthmtl.study import results as results_module
from synthmtl.study.checks import check_study
from synthmtl.study.config import Cell, Condition
from synthmtl.study.head_measures import head_scores
from synthmtl.study.heads import head_network, parameter_count
from synthmtl.study.results import Bootstrap, compare, gains, summarize
from synthmtl.study.tasks import study_tasks

TINY = ["--preset", "smoke", "--precision", "no", "--joint.steps", "4", "--grid.rho", "[0.0]"]


def study(out, tasks, *options):
    return main(["study", "--out", str(out), "--tasks", f"[{tasks}]", *TINY, *options])


def results_of(out):
    results = json.loads((out / "results.json").read_text())
    validate_study(results)
    return results


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory):
    out = tmp_path_factory.mktemp("pair") / "out"
    grid = ["--grid.sharing", "[none,hard,leaky]", "--grid.seeds", "[0,1]"]
    assert study(out, "expression,landmarks", *grid) == 0
    return out


def test_both_tasks_are_scored_compared_and_set_against_their_single_networks(landmarks):
    results = results_of(landmarks)
    assert results["failed"] == [] and results["data"]["unedited_error"] is None
    assert results["tasks"] == [
        {"task": "expression", "metric": "macro_f1", "lower_is_better": False},
        {"task": "landmarks", "metric": "nme", "lower_is_better": True},
    ]
    none, hard, leaky = results["summary"]
    assert none["gain"] is None
    for entry in (hard, leaky):
        assert set(entry["gain"]["tasks"]) == {"expression", "landmarks"}
        # An error that falls is a gain.
        single, together = (one["metrics"]["nme"]["per_seed"] for one in (none, entry))
        relative = [(a - b) / a for a, b in zip(single, together, strict=True)]
        assert entry["gain"]["tasks"]["landmarks"]["per_seed"] == pytest.approx(relative)
    for entry in results["summary"]:
        low, high = entry["metrics"]["nme"]["ci95"]
        assert low <= entry["metrics"]["nme"]["mean"] <= high
    metrics = {one["metric"] for one in results["comparisons"]}
    assert {"macro_f1", "nme", "expression_read", "nuisance_read"} <= metrics and "synthesis_error" not in metrics


def test_gates_conflict_affinity_probes_and_interventions_are_measured(landmarks):
    by_method = {entry["method"]: entry["metrics"] for entry in results_of(landmarks)["summary"]}
    leaky, hard, none = by_method["leaky"], by_method["hard"], by_method["none"]
    for stage in range(3):
        # Behind the last stage each head reads its own branch, and the tasks have no parameter of its unit in common.
        assert (f"conflict/unit {stage}/cosine" in leaky) == (stage < 2) and f"gate/{stage}/1_to_0/pass" in leaky
        assert {f"probe/{stage}/{place}/yaw" for place in ("donor", "message", "receiver_after")} <= set(leaky)
    assert {"affinity/expression_to_landmarks", "affinity/landmarks_to_expression"} <= set(leaky) & set(hard)
    assert "intervention/swap/all/nme" in leaky and "intervention/shut/0/1_to_0/macro_f1" in leaky
    assert "conflict/stem/cosine" in hard and not any(name.startswith("gate/") for name in hard)
    assert "expression_read" in none and not any(name.startswith(("conflict", "affinity", "gate")) for name in none)


def test_page_figures_and_rows(landmarks):
    page = (landmarks / "report.html").read_text()
    assert "Δ landmarks %" in page and "Landmarks, NME" in page and "Synthesis error" not in page
    figures = {path.name for path in (landmarks / "figures").iterdir()}
    assert {"pairs_nme-rho0.png", "pairs_macro_f1-rho0.png", "gates_maps-rho0-leaky.png"} <= figures
    assert {"interventions-rho0.png", "interventions_nme-rho0.png"} <= figures
    assert "numbers, from 0: expression, landmarks." in page
    assert "ecognition" not in page  # there is none
    assert "gates_maps-rho0-hard.png" not in figures and not any("synthesis" in name for name in figures)
    with (landmarks / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row["metric"] == "nme"]) == 6


def test_finished_cells_are_kept_and_the_grid_grows(landmarks, capsys):
    before = {path: path.stat().st_mtime_ns for path in landmarks.glob("cells/*/result.json")}
    grid = ["--grid.sharing", "[none,hard,leaky,hard_matched]", "--grid.seeds", "[0,1]"]
    assert study(landmarks, "expression,landmarks", *grid, "--resume") == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert len(results_of(landmarks)["cells"]) == 8
    assert study(landmarks, "expression,action_units", *grid, "--resume") == 2
    assert "belongs to a run with another tasks" in capsys.readouterr().err


def test_action_units_and_affect(tmp_path):
    options = ["--grid.sharing", "[none,mtan]", "--grid.seeds", "[0]", "--measures.networks", "true"]
    assert study(tmp_path / "out", "action_units,valence_arousal", *options) == 0
    folder = tmp_path / "out" / "cells"
    assert load_network(folder / "mtan-sum-rho0-seed0/network").tasks == ("action_units", "valence_arousal")
    for task in ("action_units", "valence_arousal"):
        assert load_network(folder / f"none-single-rho0-seed0/network_{task}").tasks == (task,)
    results = results_of(tmp_path / "out")
    for entry in results["summary"]:
        assert 0 <= entry["metrics"]["mean_f1"]["mean"] <= 1 and -1 <= entry["metrics"]["ccc"]["mean"] <= 1
        assert "macro_f1" not in entry["metrics"]
    assert {one["metric"] for one in results["comparisons"]} >= {"mean_f1", "ccc"}


def test_three_tasks_are_told_apart(tmp_path):
    tasks = ["landmarks", "action_units", "expression"]
    options = ["--grid.sharing", "[adopt,cross_stitch]", "--grid.seeds", "[0]", "--measures.interventions", "false"]
    assert study(tmp_path / "out", ",".join(tasks), *options) == 0
    results = results_of(tmp_path / "out")
    adopt, mixed = results["summary"]
    assert {"nme", "mean_f1", "macro_f1"} <= {one["metric"] for one in results["comparisons"]}
    pairs = {("landmarks", "action_units"), ("landmarks", "expression"), ("action_units", "expression")}
    assert {tuple(one["tasks"]) for one in mixed["conflict"] if one["group"] == "stem"} == pairs
    each = [mixed["metrics"][f"conflict/stem/{a}+{b}/cosine"]["mean"] for a, b in pairs]
    assert mixed["metrics"]["conflict/stem/cosine"]["mean"] == pytest.approx(sum(each) / 3)
    assert len({(one["from"], one["to"]) for one in mixed["affinity"]}) == 9
    # What adopts has gates toward the first task only.
    assert {gate["direction"] for gate in adopt["gates"]} == {"1_to_0", "2_to_0"}
    maps = {path.name for path in (tmp_path / "out/figures").glob("gates_maps*")}
    assert maps == {"gates_maps-rho0-adopt-landmarks.png"}
    page = (tmp_path / "out/report.html").read_text()
    assert "from the second (action units)" in page and "all tasks were trained together" in page


def test_interrupted_cell_goes_on_as_if_nothing_had_been(landmarks, tmp_path, interrupted):
    options = ["--grid.sharing", "[leaky]", "--grid.seeds", "[0]", "--joint.checkpoint_every_steps", "1"]
    with interrupted():
        assert study(tmp_path / "cut", "expression,landmarks", *options) == 130
    assert study(tmp_path / "cut", "expression,landmarks", *options, "--resume") == 0
    file = "cells/leaky-sum-rho0-seed0/result.json"
    one, other = (json.loads((out / file).read_text()) for out in (landmarks, tmp_path / "cut"))
    for name in ("metrics", "conflict", "gates", "gates_over_time", "affinity"):
        assert one[name] == other[name], name


@pytest.mark.parametrize(
    ("tasks", "options", "said"),
    [
        ("expression", [], "or two or more of expression, action_units, landmarks, valence_arousal"),
        ("landmarks,landmarks", [], "or two or more of"),
        ("landmarks,synthesis", [], "give [expression, synthesis], or two or more of"),
        ("expression,identity", [], "or two or more of"),
        ("expression,landmarks", ["--model.tasks", "[expression]"], "--model.tasks is ['expression']"),
        ("expression,landmarks", ["--model.joint", "apart"], "--model.joint is for --tasks [expression, synthesis]"),
        ("expression,landmarks", ["--synthesis.edits", "17"], "--synthesis.edits is for --tasks"),
        ("expression,landmarks", ["--synthesis.weights.pixel", "5"], "--synthesis.weights.pixel is for --tasks"),
        ("expression,landmarks", ["--recognition.steps", "3"], "--recognition.steps is for --tasks"),
        ("expression,landmarks", ["--model.prediction", "flow"], "--model.prediction is for --tasks"),
        ("expression,landmarks", ["--model.task_weights", "{landmark: 1}"], "--model.task_weights is 'landmark'"),
        ("expression,landmarks", ["--joint.patience", "2"], "--joint.patience is for --tasks [expression, synthesis]"),
        ("expression,landmarks", ["--joint.evaluate_every", "2"], "heads keep the weights of the last step"),
        ("action_units,landmarks", ["--label_smoothing", "0.1"], "--label_smoothing is for the task expression"),
        ("expression,landmarks", ["--grid.schedules", "[two_step]"], "it must be [joint] without synthesis"),
        ("expression,landmarks", ["--grid.labels_per_class", "[2]"], "it must be [null] without synthesis"),
        ("expression,landmarks", ["--grid.sharing", "[none,leeky]"], "unknown sharing unit 'leeky'"),
    ],
)
def test_what_cannot_be_studied_is_refused_in_one_line(tasks, options, said, tmp_path, capsys):
    assert study(tmp_path / "out", tasks, *options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0] and not (tmp_path / "out").exists(), lines


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tasks", "[expression,landmarks]"], "--tasks: the faces carry no landmarks, only expression"),
        (["--model.condition", "action_units"], "--model.condition is 'action_units', which not all faces carry"),
    ],
)
def test_photographs_without_the_labels_are_refused_before_training(options, said, tmp_path, capsys):
    faces = render_faces(RenderConfig(counts={"neutral": 12, "fear": 12}, image_size=32, subjects=24))
    bare = faces.replace(
        landmarks=torch.full_like(faces.landmarks, torch.nan),
        action_units=torch.full_like(faces.action_units, torch.nan),
        valence_arousal=torch.full_like(faces.valence_arousal, torch.nan),
        attributes={},
    )
    write_image_folder(bare, tmp_path / "faces")
    call = ["study", "--out", str(tmp_path / "out"), *TINY, "--faces.path", str(tmp_path / "faces"), *options]
    assert main(call) == 2 and said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_landmarks_that_no_test_face_could_be_scored_by_are_refused(tmp_path, capsys):
    faces = render_faces(RenderConfig(counts={"neutral": 12, "fear": 12}, image_size=32, subjects=24))
    faces.landmarks[:, 36] = torch.nan  # an outer eye corner: the others can still be learned
    write_image_folder(faces.replace(attributes={}), tmp_path / "faces")
    assert study(tmp_path / "out", "expression,landmarks", "--faces.path", str(tmp_path / "faces")) == 2
    assert "no test face has both outer eye corners" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_weight_of_the_units_penalty_may_be_chosen():
    config = preset("smoke")
    config.tasks, config.synthesis.weights.sharing = ["expression", "landmarks"], 0.5
    check_study(config)


def test_matched_trunk_is_as_large_as_the_gated_network():
    config = preset("smoke")
    for tasks in (["expression", "landmarks"], ["landmarks", "action_units"]):
        leaky, matched = (head_network(config, name, ("neutral", "fear"), tasks) for name in ("leaky", "hard_matched"))
        assert matched.config.sharing == "hard"
        assert parameter_count(matched) == pytest.approx(parameter_count(leaky), rel=0.02)


def test_gains_know_which_way_is_better():
    def cells(macro_f1, nme):
        cell = Cell("leaky", "sum", Condition(0.0), 0)
        return {
            seed: (cell, {"metrics": {"macro_f1": a, "nme": b}})
            for seed, (a, b) in enumerate(zip(macro_f1, nme, strict=True))
        }

    found = gains(
        cells([0.6, 0.6], [0.04, 0.06]), cells([0.5, 0.5], [0.05, 0.05]), study_tasks(["expression", "landmarks"])
    )
    assert found["tasks"]["expression"]["per_seed"] == pytest.approx([0.2, 0.2])
    assert found["tasks"]["landmarks"]["per_seed"] == pytest.approx([0.2, -0.2])
    assert found["overall"]["per_seed"] == pytest.approx([0.2, 0.0])
    undefined = {0: (None, {"metrics": {"macro_f1": 0.5}})}
    assert gains(undefined, undefined, study_tasks(["expression", "landmarks"])) is None


def test_replicates_are_drawn_jointly():
    faces = render_faces(RenderConfig(counts={"neutral": 10, "fear": 10}, image_size=32, subjects=10))
    generator = torch.Generator().manual_seed(0)
    near, far = (faces.landmarks + size * torch.randn(20, 68, 2, generator=generator) for size in (0.01, 0.03))
    seeds = [{"landmarks": near}, {"landmarks": near.roll(1, 0)}]
    found = headline_replicates([seeds, seeds, [{"landmarks": far}] * 2], faces, samples=200)["landmarks"]
    assert found.shape == (3, 200) and np.array_equal(found[0], found[1])
    alone = task_intervals(seeds, faces, samples=200)["landmarks"]
    assert alone.metric == HEADLINES["landmarks"]
    assert np.quantile(found[0], [0.025, 0.975]).tolist() == pytest.approx(alone.ci95)
    better, worse = headline_replicates([[{"landmarks": near}], [{"landmarks": far}]], faces, samples=50)["landmarks"]
    assert (better < worse).all()


def test_comparisons_of_hand_made_cells(monkeypatch):
    faces = render_faces(RenderConfig(counts={"neutral": 12, "fear": 12}, image_size=32, subjects=12))
    config, condition, generator = preset("smoke"), Condition(0.0), torch.Generator().manual_seed(0)
    config.tasks = ["landmarks", "valence_arousal"]
    noise = torch.randn(3, 24, 68, 2, generator=generator)
    arrays, finished = {}, {}
    for method, size in (("good", 0.01), ("same", 0.01), ("bad", 0.03)):
        finished[method] = {}
        for seed in range(3):
            outputs = {
                "landmarks": faces.landmarks + size * noise[seed],
                "valence_arousal": faces.valence_arousal.roll(seed, 0),
            }
            cell = Cell(method, "sum", condition, seed)
            arrays[cell] = {f"test/{task}": values for task, values in outputs.items()}
            found = {"parameters": 1, "seconds": 1.0, "metrics": head_scores(outputs, faces)}
            recorded = dict.fromkeys(("conflict", "affinity", "gates", "gates_over_time"), [])
            finished[method][seed] = (cell, found | recorded)
    monkeypatch.setattr(results_module, "cell_arrays", lambda job, cell: arrays[cell])
    bootstrap = Bootstrap(SimpleNamespace(config=config, splits=SimpleNamespace(test=faces)), {condition: finished})

    same = {one["metric"]: one for one in compare(bootstrap, condition, "good", "same")}
    assert set(same) == {"nme", "ccc"}
    assert all(one["difference"] == 0 and one["ci95"] == [0, 0] for one in same.values())
    other = {one["metric"]: one for one in compare(bootstrap, condition, "good", "bad")}
    low, high = other["nme"]["ci95"]
    assert low <= other["nme"]["difference"] <= high < 0 and other["ccc"]["ci95"] == [0, 0]
    for entry in (summarize(bootstrap, condition, name, finished) for name in finished):
        for metric in ("nme", "ccc"):
            low, high = entry["metrics"][metric]["ci95"]
            assert low < entry["metrics"][metric]["mean"] < high
