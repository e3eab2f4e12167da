"""The recipes of the multi-task systems, on rendered faces and on tiny data in published layouts."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from synthmtl.cli import say_errors_in_one_line
from synthmtl.labels import EXPRESSIONS
from synthmtl.metrics.multitask import HEADLINES
from synthmtl.models.gcn import AFFECT

RECIPES = Path(__file__).parents[2] / "recipes"
SYSTEMS = ("residual_mtl", "sjmt", "emotion_gcn")
SMOKE = ["--preset", "smoke", "--precision", "no"]

_spec = importlib.util.spec_from_file_location("layouts", Path(__file__).with_name("layouts.py"))
layouts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(layouts)


def run(monkeypatch, name, *arguments):
    script = RECIPES / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    return say_errors_in_one_line(runpy.run_path(str(script), run_name="recipe")["main"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_variant_by_every_seed(name, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    config = RECIPES / f"configs/{name}_rendered_cpu.yaml"
    assert run(monkeypatch, name, "--config", config, "--out", out, *SMOKE, "--seeds", "[3,4]") == 0
    results = json.loads((out / "results.json").read_text())
    first, *others = results["variants"]
    assert first == {"residual_mtl": "residual_mtl", "sjmt": "selective", "emotion_gcn": "emotion_gcn"}[name]
    assert {c["b"] for c in results["comparisons"]} == set(others)
    for entry in results["variants"].values():
        assert entry["seeds"] == [3, 4]
        for where, tasks in entry["scores"].items():
            assert where in results["scored"]
            for task, score in tasks.items():
                assert score["metric"] == HEADLINES[task] and len(score["per_seed"]) == 2
                assert score["ci95"][0] <= score["value"] <= score["ci95"][1]
    printed = capsys.readouterr().out
    assert all(f"| `{variant}` |" in printed for variant in results["variants"])

    cell = out / f"cells/{first}/seed3/outputs.safetensors"
    before = load_file(cell)
    cell.with_name("result.json").unlink()
    assert run(monkeypatch, name, "--config", config, "--out", out, *SMOKE, "--seeds", "[3,4]", "--resume") == 0
    after = load_file(cell)
    assert all((before[key] == after[key]).all() for key in before), "a cell is a function of its seed"
    assert run(monkeypatch, name, "--config", config, "--out", out, *SMOKE, "--seeds", "[3]", "--resume") == 2
    assert "belongs to a run with another seeds" in capsys.readouterr().err


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_processes_train_as_one(name, launch, tmp_path, monkeypatch):
    """The longest way through: two data sets, association or CCC, a unit that shares between branches."""
    first = {"residual_mtl": "residual_mtl", "sjmt": "selective", "emotion_gcn": "emotion_gcn"}[name]
    options = ["--config", RECIPES / f"configs/{name}_rendered_cpu.yaml", *SMOKE]
    options += ["--only", f"[{first}]", "--seeds", "[0]", "--model.sharing", "leaky"]
    assert run(monkeypatch, name, "--out", tmp_path / "one", *options) == 0
    done = launch(name, "--out", tmp_path / "two", *options, processes=2)
    assert done.returncode == 0, done.stderr
    found = []
    for out in ("one", "two"):
        lines = (tmp_path / out / f"cells/{first}/seed0/losses.jsonl").read_text().splitlines()
        found.append([json.loads(line)["losses"]["system/loss"] for line in lines])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("name", SYSTEMS)
def test_configs_on_rendered_faces_score_nobody_whom_they_train_on(name):
    from synthmtl.commands.options import recipe_options, recipe_parser
    from synthmtl.systems.job import check_people

    kind = runpy.run_path(str(RECIPES / f"{name}.py"), run_name="recipe")["Options"]
    config = RECIPES / f"configs/{name}_rendered_cpu.yaml"
    given = recipe_parser(kind, prog=name).parse_args(["--config", str(config), "--out", "x"])
    check_people(recipe_options(kind, given))


def test_a_batch_that_does_not_divide_is_said_before_anything_is_written(launch, tmp_path):
    out = tmp_path / "run"
    options = ["--variants", "{odd: {training.batch_size: 15}}", "--tracker", "none"]
    done = launch("sjmt", "--out", out, *SMOKE, *options, processes=2)
    assert done.returncode != 0 and not out.exists()
    assert "variants.odd: training.batch_size must be a multiple of the 2 processes, not 15" in done.stderr


def test_what_nothing_can_be_scored_by_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys):
    random = torch.Generator().manual_seed(0)
    for number in range(60):
        split = ("train", "validation", "test")[number % 3]
        label = "unlabeled" if split == "test" else ("anger", "happiness")[number // 3 % 2]
        pixels = interpolate(torch.rand(1, 1, 6, 6, generator=random), size=(32, 32), mode="bicubic")
        path = tmp_path / "set" / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0, 0].mul(255).clamp(0, 255).byte().numpy()).save(path)
    names = [f"unlabeled/{path.name}" for path in (tmp_path / "set/test/unlabeled").iterdir()]
    (tmp_path / "set/test/metadata.jsonl").write_text("".join(f'{{"file_name": "{name}"}}\n' for name in names))
    out = tmp_path / "run"
    options = ["--out", out, *SMOKE, "--tracker", "none", "--seeds", "[0]", "--variants", "{selective: {}}"]
    options += ["--model.tasks", "[expression]"]
    assert run(monkeypatch, "sjmt", *options, "--data", f"{{c: {{path: {tmp_path / 'set'}}}}}") == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "variants.selective: no scored split carries a label of expression, compound (c/test: no label)" in last
    assert not out.exists()
    data = f"{{c: {{path: {tmp_path / 'set'}}}, rendered: {{style: studio}}}}"
    assert run(monkeypatch, "sjmt", *options, "--data", data) == 0
    results = json.loads((out / "results.json").read_text())
    said = [note for note in results["notes"] if "so nothing is scored there" in note]
    assert said == ["c/test carries no label of what the variants predict, so nothing is scored there."]


def test_a_run_goes_on_with_the_word_vectors_that_it_began_with(tmp_path, monkeypatch, capsys):
    words = (*EXPRESSIONS, *AFFECT)
    vectors, out = tmp_path / "vectors.txt", tmp_path / "run"

    def write(shift):
        vectors.write_text("".join(f"{word} {i + shift} {i * shift}\n" for i, word in enumerate(words)))

    write(1)
    common = ["--out", out, *SMOKE, "--tracker", "none", "--only", "[emotion_gcn]", "--model.node_vectors", vectors]
    assert run(monkeypatch, "emotion_gcn", *common, "--seeds", "[0]") == 0
    write(2)
    assert run(monkeypatch, "emotion_gcn", *common, "--seeds", "[0,1]", "--resume") == 2
    assert "belongs to a run with another files.model.node_vectors (" in capsys.readouterr().err
    write(1)
    assert run(monkeypatch, "emotion_gcn", *common, "--seeds", "[0,1]", "--resume") == 0
    recorded = json.loads((out / "options.json").read_text())
    assert recorded["model"]["node_vectors"] == str(vectors) and list(recorded["files"]) == ["model.node_vectors"]


@pytest.mark.parametrize(
    ("name", "makers"),
    [
        ("residual_mtl", {"landmarks": layouts.w300, "expressions": layouts.rafdb}),
        ("sjmt", {"expressions": layouts.rafdb, "action_units": layouts.emotionet, "videos": layouts.affwild2}),
        ("emotion_gcn", {"affectnet": layouts.affectnet}),
    ],
)
def test_published_configs_on_published_layouts(name, makers, tmp_path, monkeypatch):
    config = RECIPES / f"configs/{name}_published.yaml"
    options = [f"--data.{data}.path={make(tmp_path / data)}" for data, make in makers.items()]
    out = tmp_path / "run"
    if name == "emotion_gcn":
        options += ["--model.pretrained=false"]  # its weights are a download
    assert run(monkeypatch, name, "--config", config, "--out", out, *options, *SMOKE, "--seeds", "[0]") == 0
    results = json.loads((out / "results.json").read_text())
    scored = {task for entry in results["variants"].values() for scores in entry["scores"].values() for task in scores}
    assert scored >= {"expression", {"residual_mtl": "landmarks", "sjmt": "action_units"}.get(name, "valence_arousal")}


def test_mixture_configs_name_data_and_options_that_exist():
    """They are for photographs, so their options are checked here, and their mixtures in the tests of the room."""
    from synthmtl.commands.options import recipe_options, recipe_parser
    from synthmtl.systems.config import check_options

    for name in SYSTEMS:
        for config in sorted((RECIPES / "configs").glob(f"{name}_*.yaml")):
            kind = runpy.run_path(str(RECIPES / f"{name}.py"), run_name="recipe")["Options"]
            given = recipe_parser(kind, prog=name).parse_args(["--config", str(config), "--out", "x"])
            options = recipe_options(kind, given)
            check_options(options)
            assert set(options.data) == set(yaml.safe_load(config.read_text())["data"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.tasks", "[expression,synthesis]"], "synthesis is FERSNet's"),
        (["--model.tasks", "[smile]"], "unknown task 'smile'"),
        (["--model.sharing", "lleaky"], "unknown sharing unit 'lleaky'"),
        (["--data.rendered.labels", "[expressions]"], "unknown task 'expressions'"),
        (["--sampling", "{rendered: 0}"], "all weights are 0"),
        (["--sampling", "{fer: 1}"], "a weight for 'fer'"),
        (["--data.rendered.labels", "[valence_arousal]"], "no training face carries any of"),
        (["--losses.weights", "{landmark: 2}"], "unknown task 'landmark'"),
        (["--losses.normalization", "none"], "normalization"),
        (["--only", "[all]"], "unknown variant 'all'"),
        (["--sources", "[]"], "sources: name at least one data set"),
        (["--losses.association", "-0.5"], "losses.association must be at least 0"),
        (["--losses.association_warmup", "2"], "losses.association_warmup lies in [0, 1], not 2"),
        (["--variants", "{a: {model.size: huge}}"], "model.size is 'huge': it must be one of published, cpu, tiny"),
    ],
)
def test_bad_options_end_in_one_line(options, said, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert run(monkeypatch, "sjmt", "--out", out, *SMOKE, *options) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("synthmtl: ") and said in last
