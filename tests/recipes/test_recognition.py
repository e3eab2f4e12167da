"""Recognition from scratch: scores of whole splits, with and without what training has seen."""

import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from synthmtl import metrics
from synthmtl.cli import main, say_errors_in_one_line
from synthmtl.data.table import attribute_words
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.experiment.config import FaceOptions
from synthmtl.models import Recognizer

_spec = importlib.util.spec_from_file_location("layouts", Path(__file__).with_name("layouts.py"))
layouts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(layouts)

RECIPE = Path(__file__).parents[2] / "recipes" / "recognition.py"
OPTIONS = ["--preset", "smoke", "--precision", "no", "--faces.image_size", "32", "--training.optimizer", "sgd"]


@pytest.fixture
def faces(tmp_path):
    """Rendered faces in two splits; eight of the validation faces lie in train as well."""
    for split, seed in (("train", 5), ("validation", 6)):
        options = ["--count", "48", "--size", "32", "--subjects", "6", "--seed", str(seed)]
        assert main(["render", "--out", str(tmp_path / split), *options]) == 0
    folder = tmp_path / "faces"
    for split in ("train", "validation"):
        for file in (tmp_path / split).rglob("*.png"):
            if file.name == "contact_sheet.png":
                continue
            goal = folder / split / file.parent.name / file.name
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, goal)
    for file in sorted((folder / "validation").rglob("*.png"))[:8]:
        shutil.copy(file, folder / "train" / file.parent.name / f"seen-{file.name}")
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *map(str, arguments)])
    return say_errors_in_one_line(runpy.run_path(str(RECIPE), run_name="recipe")["main"])


def test_scores_with_and_without_seen_faces(faces, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert run(monkeypatch, "--out", out, "--faces.path", faces, *OPTIONS) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores["splits"]) == ["validation"]
    validation = scores["splits"]["validation"]
    # The same people in the same sessions, with another expression, may look alike, too.
    assert validation["count"] == 48 and 32 <= validation["without_leaks"]["count"] <= 40
    low, high = validation["ci95"]["macro_f1"]
    assert low <= validation["macro_f1"] <= high
    model = Recognizer.from_pretrained(out / "model", low_cpu_mem_usage=False)
    assert sum(p.numel() for p in model.parameters()) == scores["parameters"]

    assert run(monkeypatch, "--out", out, "--faces.path", faces, *OPTIONS) == 2
    assert run(monkeypatch, "--out", out, "--faces.path", faces, *OPTIONS, "--seed", "1", "--resume") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("synthmtl: ")]
    assert "--resume continues it" in said[-2] and "another seed" in said[-1]
    assert run(monkeypatch, "--out", out, "--faces.path", faces, *OPTIONS, "--resume") == 0
    assert json.loads((out / "scores.json").read_text())["splits"] == scores["splits"]


def test_edits_of_scored_faces_do_not_train(faces):
    """What ``balance`` wrote, put beside the training faces: nothing but its source file tells whose edit a face is."""
    read = runpy.run_path(str(RECIPE))["read"]
    options = FaceOptions(path=str(faces), image_size=32, on_leak="warn")
    held_out = sorted((faces / "validation").rglob("*.png"))[:6]
    own = [file for file in sorted((faces / "train").rglob("*.png")) if not file.name.startswith("seen-")][:4]
    before = read(options)["train"]
    made = before.select(torch.arange(10)).replace(synthetic=torch.ones(10, dtype=torch.bool))
    extra = [{"source_file": file.relative_to(faces).as_posix()} for file in (*held_out, *own)]
    write_image_folder(made, faces, "train", names=[f"made-{i}" for i in range(10)], extra=extra)
    train = read(options)["train"]
    kept = attribute_words(train.select(train.synthetic), "source_file")
    assert len(train) == len(before) + 4 and set(kept) == {file.relative_to(faces).as_posix() for file in own}


def test_leaks_are_refused_if_so_wished(faces, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert run(monkeypatch, "--out", out, "--faces.path", faces, *OPTIONS, "--faces.on_leak", "error") == 2
    assert "of 48 validation faces have a look-alike in train (8 equal in every pixel" in capsys.readouterr().err
    assert not out.exists()


def test_data_without_a_second_split_is_refused(faces, tmp_path, monkeypatch, capsys):
    shutil.rmtree(faces / "validation")
    assert run(monkeypatch, "--out", tmp_path / "run", "--faces.path", faces, *OPTIONS) == 2
    assert "another one to score" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_votes_of_annotators_and_what_only_renders_have(faces, tmp_path, monkeypatch, capsys):
    data = ["--out", tmp_path / "run", "--faces.path", faces]
    assert run(monkeypatch, *data, "--faces.ferplus", tmp_path / "fer2013new.csv", *OPTIONS) == 2
    assert "fer" in capsys.readouterr().err.lower()
    assert run(monkeypatch, *data, "--faces.nuisance_correlation", "0.5", *OPTIONS) == 2
    assert "nuisance_correlation is for rendered faces" in capsys.readouterr().err
    assert run(monkeypatch, *data, "--training.seed", "4", *OPTIONS) == 2
    assert "--training.seed is 4" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_two_processes_score_as_one(launch, faces, tmp_path, monkeypatch):
    options = ["--faces.path", faces, *OPTIONS]
    assert run(monkeypatch, "--out", tmp_path / "one", *options) == 0
    done = launch("recognition", "--out", tmp_path / "two", *options, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("validation: accuracy")
    found = []
    for out in ("one", "two"):
        lines = (tmp_path / out / "losses.jsonl").read_text().splitlines()
        found.append([json.loads(line)["losses"]["recognition/loss"] for line in lines])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_the_format_reaches_the_reader(tmp_path, monkeypatch, capsys):
    (tmp_path / "faces").mkdir()
    where = ["--out", tmp_path / "run", "--faces.path", tmp_path / "faces"]
    assert run(monkeypatch, *where, "--faces.format", "rafdb", *OPTIONS) == 2
    assert "no faces found: give the folder of RAF-DB" in capsys.readouterr().err
    assert run(monkeypatch, *where, "--faces.format", "raf", *OPTIONS) == 2
    assert "unknown format 'raf': use one of " in capsys.readouterr().err


def test_frames_of_videos_are_chosen(tmp_path):
    read, root = runpy.run_path(str(RECIPE))["read"], layouts.affwild2(tmp_path)
    options = {"path": str(root), "image_size": 8, "on_leak": "warn"}
    for every in (1, 3):
        tables = read(FaceOptions(**options, every=every))
        frames = len(range(0, 14, every))
        assert {name: len(table) for name, table in tables.items()} == {"train": 3 * frames, "validation": frames}
    with pytest.raises(InputError, match="peaks is 2, and affwild2 has no such option"):
        read(FaceOptions(**options, peaks=2))


def test_data_in_the_folder_that_is_replaced_stay(faces, tmp_path, monkeypatch, capsys):
    (tmp_path / "options.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, "--out", tmp_path, "--overwrite", "--faces.path", faces, *OPTIONS) == 2
    assert f"holds {faces}, which is read, so it is not replaced" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_split_that_training_has_seen_whole_has_no_scores_without_it(faces, tmp_path, monkeypatch, capsys):
    shutil.rmtree(faces / "validation")
    shutil.copytree(faces / "train", faces / "validation")
    out = tmp_path / "run"
    assert run(monkeypatch, "--out", out, "--faces.path", faces, *OPTIONS) == 0
    validation = json.loads((out / "scores.json").read_text())["splits"]["validation"]
    assert validation["count"] == 56 and validation["without_leaks"] is None
    assert "validation: every labelled face has a look-alike in train" in capsys.readouterr().err


def test_a_trained_network_outlives_what_goes_wrong_with_its_scores(faces, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise InputError("no intervals today")

    monkeypatch.setattr(metrics, "bootstrap_intervals", broken)
    assert run(monkeypatch, "--out", tmp_path / "run", "--faces.path", faces, *OPTIONS) == 2
    assert Recognizer.from_pretrained(tmp_path / "run/model", low_cpu_mem_usage=False).classes
    assert not (tmp_path / "run/scores.json").exists()


def test_a_split_without_an_expression_is_refused_before_training(faces, tmp_path, monkeypatch, capsys):
    (faces / "validation").rename(tmp_path / "labelled")
    (faces / "validation/unlabeled").mkdir(parents=True)
    for number, file in enumerate((tmp_path / "labelled").rglob("*.png")):
        shutil.copy(file, faces / f"validation/unlabeled/{number}.png")
    assert run(monkeypatch, "--out", tmp_path / "run", "--faces.path", faces, *OPTIONS) == 2
    assert "no validation face has an expression, so nothing can be scored" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_options_of_read_faces_are_refused_where_they_are_rendered(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--out", tmp_path / "run", *OPTIONS, "--faces.on_leak", "drop") == 2
    assert "--faces.on_leak is for faces that are read, and these are rendered" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
