"""What a balanced set is worth to another recognizer, on rendered faces marked as synthesized."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from synthmtl.cli import say_errors_in_one_line
from synthmtl.data.writer import write_image_folder
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.labels import EXPRESSIONS
from synthmtl.models.inference import load_network

RECIPE = Path(__file__).parents[2] / "recipes" / "downstream.py"
COUNTS = dict.fromkeys(EXPRESSIONS, 12) | {"anger": 8, "fear": 2}
ADDED = {"anger": 4, "fear": 10}
OPTIONS = ["--preset", "smoke", "--precision", "no", "--faces.image_size", "32", "--backbone", "mobilenet_v3_small"]
OPTIONS += ["--seeds", "[0,1]", "--faces.train_counts", json.dumps(COUNTS), "--faces.subjects", "[6,4,4]"]
OPTIONS += ["--faces.validation_per_class", "4", "--faces.test_per_class", "2"]


@pytest.fixture
def balanced(tmp_path):
    made = render_faces(RenderConfig(counts=ADDED, image_size=32, subjects=6, seed=9))
    made = made.with_classes(EXPRESSIONS).replace(synthetic=torch.ones(len(made), dtype=torch.bool), attributes={})
    write_image_folder(made, tmp_path / "balanced")
    return tmp_path / "balanced"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *map(str, arguments)])
    return say_errors_in_one_line(runpy.run_path(str(RECIPE), run_name="recipe")["main"])


def test_three_sets_by_two_seeds(balanced, tmp_path, launch, monkeypatch, capsys):
    out = tmp_path / "run"
    call = ["--out", out, "--balanced", balanced, *OPTIONS]
    done = launch("downstream", *call)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    assert list(results["methods"]) == ["original", "oversampled", "balanced"] and results["minority"] == ["fear"]
    assert "original: 82 faces (neutral 12," in done.stdout and "fear 2," in done.stdout
    for name in ("oversampled", "balanced"):
        even = ", ".join(f"{expression} 12" for expression in EXPRESSIONS)
        assert f"{name}: 96 faces ({even})" in done.stdout
    metrics = ["macro_f1", "accuracy", "minority_recall"]
    compared = [(entry["b"], entry["metric"]) for entry in results["comparisons"]]
    assert compared == [(other, metric) for other in ("original", "oversampled") for metric in metrics]
    assert load_network(out / "balanced/seed1").config.backbone == "mobilenet_v3_small"
    assert (out / "macro_f1.png").stat().st_size > 1000

    (out / "balanced/seed1/result.json").unlink()  # the last training, as if it had been killed at its end
    assert run(monkeypatch, *call, "--resume") == 0
    assert json.loads((out / "results.json").read_text())["comparisons"] == results["comparisons"]
    capsys.readouterr()
    assert run(monkeypatch, "--out", tmp_path / "other", "--balanced", tmp_path / "nowhere", *OPTIONS) == 2
    assert "no such folder or file" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_real_faces_are_no_balanced_set(tmp_path, monkeypatch, capsys):
    write_image_folder(render_faces(RenderConfig(counts=2, image_size=32, subjects=2)), tmp_path / "real")
    assert run(monkeypatch, "--out", tmp_path / "out", "--balanced", tmp_path / "real", *OPTIONS) == 2
    assert capsys.readouterr().err.strip().endswith("no face is marked synthetic: give what synthmtl balance wrote")
