"""The diffusion recipe by a real launcher, beside a run with the decoder."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

from PIL import Image

from synthmtl.cli import main, say_errors_in_one_line
from synthmtl.commands.main_job import main_job_config, main_job_parser
from synthmtl.report import validate_report

RECIPE = Path(__file__).parents[2] / "recipes" / "diffusion.py"
OPTIONS = ["--preset", "smoke", "--precision", "no", "--seeds", "[0]", "--methods", "[gated_balanced]"]
OPTIONS += [part for name in ("recognition", "judge", "joint", "finetune") for part in (f"--{name}.steps", "2")]


def test_solvers_and_generators_are_compared(launch, tmp_path, monkeypatch, capsys):
    assert main(["quickstart", "--out", str(tmp_path / "gan"), *OPTIONS]) == 0
    call = ["--out", tmp_path / "run", *OPTIONS, "--few_steps.evaluations", "[1,2]", "--against", tmp_path / "gan"]
    done = launch("diffusion", *call)
    assert done.returncode == 0, done.stderr
    validate_report(json.loads((tmp_path / "run/report.json").read_text()))
    found = json.loads((tmp_path / "run/few_steps.json").read_text())
    assert [(row["solver"], row["evaluations"]) for row in found["rows"]] == [
        ("dpm", 1), ("dpm", 2), ("ddim", 1), ("ddim", 2),
    ]  # fmt: skip
    assert Image.open(tmp_path / "run/few_steps.png").size[0] > 1000
    compared = json.loads((tmp_path / "run/against.json").read_text())
    assert [entry["generator"] for entry in compared["runs"]] == ["diffusion", "gan"]
    assert [entry["metric"] for entry in compared["comparisons"]] == ["macro_f1"]
    assert done.stdout.count("evaluations: KID") == 4 and "diffusion - gan" in done.stdout

    recipe = runpy.run_path(str(RECIPE), run_name="recipe")["main"]
    for wrong, said in (
        (["--model.generator", "gan"], "for gan take recipes/fersnet.py"),
        (["--few_steps.features", "nosuch"], "or the folder of a saved network"),
        (["--against", tmp_path / "nowhere"], "finish it first, or give another --against"),
    ):  # before anything is trained
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *map(str, [*call, "--out", tmp_path / "late", *wrong])])
        assert say_errors_in_one_line(recipe) == 2 and not (tmp_path / "late").exists()
        assert capsys.readouterr().err.strip().endswith(said)


def test_photographs_that_have_changed_since_the_other_run_are_refused_before_training(
    rendered_folder, tmp_path, monkeypatch, capsys
):
    call = ["--out", str(tmp_path / "run"), *OPTIONS, "--faces.path", str(rendered_folder)]
    parser = main_job_parser(["--model.generator", "diffusion", *call], prog="diffusion.py")
    faces = main_job_config(parser.parse_args(call)).faces
    rival = tmp_path / "rival"
    rival.mkdir()
    (rival / "options.json").write_text(json.dumps({"faces": dataclasses.asdict(faces)}))
    (rival / "report.json").write_text("{}")
    (rival / "data.json").write_text(json.dumps({"train": {"faces": 7, "fingerprint": "of the faces at that time"}}))
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *call, "--against", str(rival)])
    assert say_errors_in_one_line(runpy.run_path(str(RECIPE), run_name="recipe")["main"]) == 2
    said = capsys.readouterr().err
    assert "the train split has changed since, from 7 faces" in said and not (tmp_path / "run").exists()
