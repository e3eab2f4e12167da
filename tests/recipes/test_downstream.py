"""What a balanced set is worth to another recognizer, on rendered faces marked as synthesized."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from synthmtl.cli import say_errors_in_one_line
from synthmtl.data.load import load_splits
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.experiment.config import FaceOptions
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.labels import EXPRESSIONS
from synthmtl.models.inference import load_network

RECIPE = Path(__file__).parents[2] / "recipes" / "downstream.py"
COUNTS = dict.fromkeys(EXPRESSIONS, 12) | {"anger": 8, "fear": 2}
ADDED = {"anger": 4, "fear": 10}
BRIEF = ["--preset", "smoke", "--precision", "no", "--faces.image_size", "32", "--backbone", "mobilenet_v3_small"]
BRIEF += ["--seeds", "[0,1]"]
OPTIONS = [*BRIEF, "--faces.train_counts", json.dumps(COUNTS), "--faces.subjects", "[6,4,4]"]
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
    assert not [note for note in results["notes"] if "photographs" in note]  # rendered faces have no source
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


def test_edits_of_held_out_faces_are_no_training_faces(tmp_path, monkeypatch, capsys):
    faces = tmp_path / "faces"
    write_image_folder(render_faces(RenderConfig(counts=6, image_size=32, subjects=12)), faces)
    splits = load_splits(faces, image_size=32, channels=1)
    sources = [*splits.train.files[:5], splits.validation.files[0], *splits.test.files[:2]]
    made = render_faces(RenderConfig(counts={"fear": 8}, image_size=32, subjects=4, seed=9))
    made = made.replace(synthetic=torch.ones(8, dtype=torch.bool), attributes={})
    for name, rows in (("good", range(5)), ("bad", range(8))):
        extra = [{"source_file": sources[row].removeprefix(f"{tmp_path}/")} for row in rows]
        write_image_folder(made.select(list(rows)), tmp_path / name, extra=extra)
    call = ["--out", tmp_path / "out", "--faces.path", faces, *BRIEF, "--balanced"]
    assert run(monkeypatch, *call, tmp_path / "bad") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "3 of 8 synthesized faces are edits of faces that are held out here: give the --faces options" in said
    assert not (tmp_path / "out").exists()
    recipe = runpy.run_path(str(RECIPE), run_name="recipe")
    good = recipe["Options"](balanced=str(tmp_path / "good"), faces=FaceOptions(path=str(faces), image_size=32))
    assert recipe["synthesized_faces"](good, splits).counts() == dict.fromkeys(EXPRESSIONS, 0) | {"fear": 5}


@pytest.fixture
def named(tmp_path):
    """named(sources) → the recipe, splits of a folder of faces, and a balanced set whose faces name these sources."""
    faces = tmp_path / "faces"
    write_image_folder(render_faces(RenderConfig(counts=6, image_size=32, subjects=12)), faces)

    def make(sources):
        splits = load_splits(faces, image_size=32, channels=1)
        made = render_faces(RenderConfig(counts={"fear": 3}, image_size=32, subjects=3, seed=9))
        made = made.replace(synthetic=torch.ones(3, dtype=torch.bool), attributes={})
        write_image_folder(made, tmp_path / "named", extra=[{"source_file": name} for name in sources(splits)])
        return runpy.run_path(str(RECIPE), run_name="recipe"), splits, tmp_path / "named"

    return make


def options(recipe, balanced, **given):
    return recipe["Options"](balanced=str(balanced), faces=FaceOptions(image_size=32), **given)


def test_a_set_whose_photographs_are_all_unknown_is_refused_unless_that_is_wanted(named):
    recipe, splits, balanced = named(lambda splits: ["other/a.png", "other/b.png", None])
    with pytest.raises(InputError, match=r"2 of 3 .* are not found .*other/a.png.* --on_unknown_source warn"):
        recipe["synthesized_faces"](options(recipe, balanced), splits)
    before = len(splits.notes)
    assert len(recipe["synthesized_faces"](options(recipe, balanced, on_unknown_source="warn"), splits)) == 3
    assert len(splits.notes) == before + 1 and "2 of 3 synthesized faces" in splits.notes[-1]


def test_photographs_that_are_in_part_unknown_are_told_and_new_faces_are_not(named, caplog):
    recipe, splits, balanced = named(lambda splits: [splits.train.files[0], "other/b.png", None])
    assert len(recipe["synthesized_faces"](options(recipe, balanced), splits)) == 3
    assert "1 of 3 synthesized faces are edits of photographs that are not found" in splits.notes[-1]
    assert splits.notes[-1] in caplog.text
    for sources in ([None] * 3, splits.train.files[:3]):
        before = list(splits.notes)
        recipe["check_sources"](options(recipe, balanced), list(sources), splits)
        assert splits.notes == before


def test_the_set_in_the_folder_that_is_replaced_stays(balanced, tmp_path, monkeypatch, capsys):
    (tmp_path / "options.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, "--out", tmp_path, "--overwrite", "--balanced", balanced, *OPTIONS) == 2
    assert f"holds {balanced}, which is read, so it is not replaced" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
