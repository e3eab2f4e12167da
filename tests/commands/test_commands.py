"""What the commands do on good input; what they say to bad input is in ``test_cli.py``."""

import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from jsonargparse import Namespace
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from synthmtl import commands
from synthmtl.cli import build_parser, main
from synthmtl.commands.in_the_run import as_in_the_run
from synthmtl.commands.main_job import main_job_config
from synthmtl.data.load import load_splits
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.errors import InputError
from synthmtl.experiment import METHODS
from synthmtl.labels import EXPRESSIONS
from synthmtl.report import validate_report

QUICKSTART = ("quickstart", "--preset", "smoke")


_spec = importlib.util.spec_from_file_location("noise", Path(__file__).parents[1] / "noise.py")
noise = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(noise)
write_folder, write_noise = noise.write_folder, noise.write_noise


def snapshot(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_unusual_images_are_read(finished_run, tmp_path, capsys):
    files = [tmp_path / "cmyk.jpg", tmp_path / "deep.png", tmp_path / "color.png"]
    for file, mode in zip(files, ("CMYK", "I;16", "RGB"), strict=True):
        write_noise(file, mode, size=40)
    assert main(["predict", "--model", str(finished_run), *map(str, files)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_finished_quickstart(finished_run):
    report = json.loads((finished_run / "report.json").read_text())
    validate_report(report)
    assert list(report["methods"]) == list(METHODS)
    assert all(scores["seeds"] == [0, 1] for scores in report["methods"].values())
    assert any("numbers mean nothing" in note for note in report["notes"])
    assert report["balance"]["kept"] == report["balance"]["requested"]
    page = (finished_run / "report.html").read_text()
    assert all(name in page for name in METHODS)
    for sheet in (finished_run / "figures/contact_sheet.png", finished_run / "balance/seed0/imagefolder"):
        assert sheet.exists()
    assert Image.open(finished_run / "figures/contact_sheet.png").size[0] > 9 * 32
    card = (finished_run / "balance/seed0/imagefolder/README.md").read_text()
    assert card.startswith("---\n")


def test_resuming_a_finished_run_changes_no_cell(finished_run, capsys):
    kept = [finished_run / part for part in ("cells", "joint", "guide", "judge", "balance")]
    before = {part: {p: t for p, t in snapshot(part).items() if p.is_file()} for part in kept}
    report = json.loads((finished_run / "report.json").read_text())
    capsys.readouterr()
    assert main([*QUICKSTART, "--precision", "no", "--out", str(finished_run), "--resume"]) == 0
    assert {part: {p: t for p, t in snapshot(part).items() if p.is_file()} for part in kept} == before
    again = json.loads((finished_run / "report.json").read_text())
    for part in ("data", "methods", "comparisons", "share_of_gap", "balance", "generation"):
        assert again[part] == report[part], part
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*METHODS, "report:"]


def test_predict(finished_run, rendered_folder, capsys):
    files = [str(path) for path in sorted(rendered_folder.rglob("*.png"))[:3]]
    assert main(["predict", "--model", str(finished_run), *files]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["file"] for answer in answers] == files
    for answer in answers:
        assert list(answer) == ["file", "expression", "probabilities"]
        probabilities = answer["probabilities"]
        assert set(probabilities) == set(EXPRESSIONS)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert answer["expression"] == max(probabilities, key=probabilities.get)


def test_predict_says_the_same_of_a_face_and_its_mirror_image(finished_run, rendered_folder, tmp_path, capsys):
    face, mirrored = next(rendered_folder.rglob("*.png")), tmp_path / "mirrored.png"
    ImageOps.mirror(Image.open(face)).save(mirrored)
    assert main(["predict", "--model", str(finished_run), str(face), str(mirrored)]) == 0
    one, other = (json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines())
    assert one == pytest.approx(other, abs=2e-6)


def test_predict_answers_for_the_good_ones(finished_run, rendered_folder, tmp_path, capsys):
    face = str(next(rendered_folder.rglob("*.png")))
    assert main(["predict", "--model", str(finished_run), str(tmp_path / "missing.png"), face]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["file"] == face
    assert said.err.count("\n") == 1 and "1 of 2 images" in said.err and "missing.png" in said.err


def test_edits_of_files_with_long_names(finished_run, tmp_path):
    source = tmp_path / f"{'é' * 120}.png"  # 240 bytes
    write_noise(source, "L", size=40)
    call = ["synthesize", "--model", str(finished_run), "--expression", "happy", "--out", str(tmp_path / "out")]
    assert main([*call, str(source)]) == 0
    assert [file.name for file in (tmp_path / "out").glob("*.png")] == [f"00000-{'é' * 50}-happiness.png"]


def test_synthesize(finished_run, rendered_folder, tmp_path, capsys):
    faces = [str(path) for path in sorted(rendered_folder.rglob("*.png"))[:2]]
    call = ["synthesize", "--model", str(finished_run), "--expression", "happy", "--out", str(tmp_path / "out"), *faces]
    assert main(call) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 2 and sorted(written) == sorted(str(path) for path in (tmp_path / "out").glob("*.png"))
    pixels = [np.asarray(Image.open(path)) for path in written]
    assert all(image.shape == (32, 32) and image.dtype == np.uint8 for image in pixels)
    assert main([*call, "--overwrite"]) == 0
    for path, image in zip(written, pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


def test_what_was_made_is_told_though_an_image_cannot_be_read(finished_run, rendered_folder, tmp_path, capsys):
    face, out = str(next(rendered_folder.rglob("*.png"))), tmp_path / "out"
    call = ["synthesize", "--model", str(finished_run), "--expression", "happy", "--json", "--out", str(out)]
    assert main([*call, face, str(tmp_path / "missing.png")]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == {"out": str(out), "files": [str(path) for path in out.glob("*.png")]}
    assert "1 of 2 images" in said.err
    assert main([*call[:-1], str(tmp_path / "none"), str(tmp_path / "missing.png")]) == 2
    assert capsys.readouterr().out == "" and not (tmp_path / "none").exists()


def test_synthesis_goes_on_where_it_ended(finished_run, rendered_folder, tmp_path, capsys):
    faces = sorted(rendered_folder.rglob("*.png"))[:3]
    late, out = tmp_path / "late.png", tmp_path / "out"
    named = [str(faces[0]), str(late), str(faces[2])]
    call = ["synthesize", "--model", str(finished_run), "--expression", "happy", "--out", str(out), *named]
    assert main(call) == 2
    made = sorted(path.name for path in out.glob("*.png"))
    assert [name[:5] for name in made] == ["00000", "00002"]  # the place of a face among those that were named
    stamps = {name: (out / name).stat().st_mtime_ns for name in made}
    late.write_bytes(faces[1].read_bytes())
    capsys.readouterr()
    assert main([*call, "--resume"]) == 0
    assert [Path(line).name[:11] for line in capsys.readouterr().out.splitlines()[1:2]] == ["00001-late-"]
    assert {name: (out / name).stat().st_mtime_ns for name in made} == stamps
    assert len(list(out.glob("*.png"))) == 3
    # Faces of another generator do not go on beside them, though it has the same path.
    model = tmp_path / "model"
    shutil.copytree(next(path for path in finished_run.rglob("generator") if path.is_dir()), model)
    other = ["synthesize", "--model", str(model), "--expression", "happy", "--out", str(tmp_path / "other"), named[0]]
    assert main(other) == 0
    weights = next(model.glob("*.safetensors"))
    save_file({name: value + 0.01 for name, value in load_file(weights).items()}, weights)
    capsys.readouterr()
    assert main([*other, "--resume"]) == 2
    assert "belongs to a run with another generator" in capsys.readouterr().err


def test_render_and_inspect(rendered_folder, capsys):
    before = snapshot(rendered_folder)
    call = ["render", "--out", str(rendered_folder), "--count", "96", "--size", "32", "--subjects", "12", "--seed", "3"]
    assert main([*call, "--resume"]) == 0
    assert snapshot(rendered_folder) == before
    capsys.readouterr()
    assert main(["inspect", str(rendered_folder)]) == 0
    assert "happiness" in capsys.readouterr().out
    assert main(["inspect", str(rendered_folder), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)
    table = read_image_folder(rendered_folder, image_size=32, channels=1)["train"]
    assert table.counts() == dict.fromkeys(EXPRESSIONS, 12)


def test_inspect_looks_at_some_frames_of_videos_and_not_of_photographs(rendered_folder, tmp_path, capsys):
    for frame in range(1, 10):
        write_noise(tmp_path / "Images" / "SN001" / f"{frame}.png")
    labels = tmp_path / "ActionUnit_Labels" / "SN001" / "SN001_au1.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("".join(f"{frame},{frame % 6}\n" for frame in range(1, 10)))
    capsys.readouterr()
    for options, faces in (((), 9), (("--every", "4"), 3)):
        assert main(["inspect", str(tmp_path), "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out)["faces"] == faces
    for option in ("every", "peaks"):
        assert main(["inspect", str(rendered_folder), f"--{option}", "2"]) == 2
        said = capsys.readouterr()
        assert not said.out and f"{option} is 2, and image_folder has no such option" in said.err.splitlines()[-1]


def test_evaluate_a_split_that_is_there_and_one_that_is_split_off(finished_run, rendered_folder, tmp_path):
    whole = write_folder(tmp_path / "faces", **{"train/happiness": 6, "train/anger": 5, "test/anger": 2})
    write_folder(whole, **{"validation/happiness": 3})
    for data, split, count in ((whole, "train", 11), (whole, "test", 2), (rendered_folder, "test", None)):
        out = tmp_path / "new" / f"{split}{count}.json"
        call = ["evaluate", "--model", str(finished_run), "--data", str(data), "--split", split]
        assert main([*call, "--out", str(out)]) == 0
        scores = json.loads(out.read_text())
        assert scores["split"] == split and 0 <= scores["macro_f1"] <= 1
        assert scores["ci95"]["macro_f1"][0] <= scores["ci95"]["macro_f1"][1]
        assert scores["count"] == count if count else 0 < scores["count"] < 30


def test_training_faces_are_those_that_the_run_trained_on(finished_run, rendered_folder, tmp_path):
    """Where only train is there, the run held a part of it out."""
    splits = load_splits(rendered_folder, image_size=32, channels=1)
    out = tmp_path / "scores.json"
    call = ["evaluate", "--model", str(finished_run), "--data", str(rendered_folder), "--split", "train"]
    assert main([*call, "--out", str(out)]) == 0
    scores = json.loads(out.read_text())
    assert scores["count"] == len(splits.train) < 96 - len(splits.test) and scores["notes"] == splits.notes


def test_evaluate_a_test_split_alone_with_some_of_the_classes(finished_run, tmp_path):
    write_folder(tmp_path / "faces" / "test", happiness=3, anger=1)
    call = ["evaluate", "--model", str(finished_run), "--data", str(tmp_path / "faces")]
    assert main([*call, "--out", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["count"] == 4 and len(scores["absent"]) == 6


def test_leaks_stop_a_run_and_a_balancing_if_so_wished(finished_run, rendered_folder, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    for split in ("train", "test"):
        shutil.copytree(rendered_folder / "train", data / split)
        (data / split / "metadata.jsonl").unlink()
    for call in (
        ["run", "--preset", "smoke", "--faces.on_leak"],
        ["balance", "--model", str(finished_run), "--on-leak"],
    ):
        assert main([*call, "error", "--data", str(data), "--out", str(out)]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "of 96 test faces have a look-alike in train (" in line and "set on_leak to drop" in line
        assert not out.exists()


def test_balance(finished_run, rendered_folder, tmp_path, capsys):
    out = tmp_path / "balanced"
    call = ["balance", "--model", str(finished_run), "--data", str(rendered_folder), "--out", str(out), "--originals"]
    call += ["--strategy", "{happiness: 20, fear: 14}", "--json"]
    assert main(call) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["kept"] == summary["requested"] and sum(summary["missing"].values()) == 0
    rows = [json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text().splitlines()]
    counts = Counter(row["expression"] for row in rows)
    assert (counts["happiness"], counts["fear"]) == (20, 14)
    made = Counter(row["expression"] for row in rows if row["synthetic"])
    assert made == {name: count for name, count in summary["kept"].items() if count}
    assert all((out / "train" / row["file_name"]).is_file() for row in rows)
    assert (out / "README.md").read_text().startswith("---\n")
    assert (out / "balance.json").is_file() and (out / "contact_sheet.png").is_file()
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main([*call, "--resume"]) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    for path in [out / "train" / "metadata.jsonl", *(out / "train").rglob("*.png")]:
        path.unlink()
    assert main([*call, "--resume"]) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files


def test_bad_usage_of_balance_is_found_before_anything_is_replaced(
    finished_run, rendered_folder, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    write_folder(out, fear=1)
    (out / "options.json").write_text("{}")
    before = snapshot(tmp_path)
    call = ["balance", "--model", str(finished_run), "--data", str(rendered_folder), "--strategy", "{fear: 14}"]
    for wrong, message in (
        (["--sources", "none"], "this generator edits faces: only a diffusion model makes new ones"),
        (["--judge", str(finished_run / "generator")], "the judge is the generator itself"),
    ):
        assert main([*call, *wrong, "--out", str(out), "--overwrite"]) == 2
        assert main([*call, *wrong, "--out", str(tmp_path / "new")]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert snapshot(tmp_path) == before

    def no_labeler(*parts):
        raise InputError("the network does not predict action_units")

    monkeypatch.setattr("synthmtl.commands.balance._targets", no_labeler)
    assert main([*call, "--out", str(out), "--overwrite"]) == 2
    assert "does not predict action_units" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("command", "wrong", "message"),
    [
        ("run", ["--faces.path", "others"], "--faces.path is others, --data is faces: leave --faces.path out"),
        ("run", ["--faces.train_counts", "{fear: 3, anger: 3}"], "--faces.train_counts is for rendered faces"),
        ("run", ["--faces.validation_per_class", "3"], "--faces.validation_per_class is for rendered faces"),
        ("run", ["--faces.test_per_class", "3"], "--faces.test_per_class is for rendered faces"),
        ("run", ["--faces.subjects", "[9,4,4]"], "--faces.subjects is for rendered faces"),
        ("run", ["--faces.render_seed", "1"], "--faces.render_seed is for rendered faces, and these are read"),
        ("run", ["--faces.nuisance_correlation", "0.5"], "--faces.nuisance_correlation is for rendered faces"),
        (
            "quickstart",
            ["--faces.format", "rafdb"],
            "--faces.format is for faces that are read, and these are rendered",
        ),
        ("quickstart", ["--faces.ferplus", "votes.csv"], "--faces.ferplus is for faces that are read"),
        ("quickstart", ["--faces.ferplus_rule", "majority"], "--faces.ferplus_rule is for faces that are read"),
        ("quickstart", ["--faces.split_seed", "1"], "--faces.split_seed is for faces that are read"),
        ("quickstart", ["--faces.on_bad_image", "skip"], "--faces.on_bad_image is for faces that are read"),
        ("quickstart", ["--faces.on_leak", "warn"], "--faces.on_leak is for faces that are read"),
    ],
)
def test_options_of_other_faces_are_refused(tmp_path, capsys, command, wrong, message):
    data = ["--data", "faces"] if command == "run" else []
    assert main([command, *data, "--preset", "smoke", "--out", str(tmp_path / "out"), *wrong]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_defaults_of_every_preset_suit_all_faces(preset):
    of = {}
    for command, data in (("run", ["--data", "faces"]), ("quickstart", [])):
        call = [command, *data, "--preset", preset, "--out", "out"]
        config = main_job_config(build_parser(call).parse_args(call)[command])
        assert config.preset == preset and config.faces.path == ("faces" if data else None)
        of[command] = config
    call = ["run", "--data", "faces", "--faces.path", "faces", "--faces.on_leak", "warn", "--out", "out"]
    assert main_job_config(build_parser(call).parse_args(call)["run"]).faces.on_leak == "warn"
    call = ["quickstart", "--faces.path", "faces", "--preset", preset, "--out", "out"]
    assert main_job_config(build_parser(call).parse_args(call)["quickstart"]) == of["run"]


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert commands.COMMANDS[command].about.split()[0] in text and "--out" in text or command in ("predict", "inspect")


def test_configuration_file_then_command_line(tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("seeds: [4, 5]\nrecognition:\n  steps: 9\n  batch_size: 8\n")
    call = [*QUICKSTART, "--out", "out", "--config", str(tmp_path / "options.yaml"), "--recognition.steps", "11"]
    with pytest.raises(SystemExit) as stop:
        main([*call, "--print_config"])
    assert stop.value.code == 0
    options = yaml.safe_load(capsys.readouterr().out)
    assert options["seeds"] == [4, 5]
    assert (options["recognition"]["steps"], options["recognition"]["batch_size"]) == (11, 8)
    assert options["model"]["size"] == "tiny"


@pytest.mark.parametrize("model", ["", "generator", "cells/plain/seed0"])
def test_faces_are_split_as_the_run_did(tmp_path, model):
    def found(data, /, **options):
        (tmp_path / "options.json").write_text(json.dumps(options))
        return as_in_the_run(Namespace(model=str(tmp_path / model), data=str(tmp_path / data)))

    (tmp_path / model).mkdir(parents=True, exist_ok=True)
    read = {"split_seed": 3, "format": "rafdb", "every": 5, "peaks": 2, "ferplus": None}
    told = {"path": str(tmp_path / "faces")} | read
    assert found("faces", faces=told) == read
    assert found("others", faces=told) == {"split_seed": 3}  # how other data are to be read is not known
    mixed = {"other": {"path": None, "split_seed": 1}, "mine": {"path": str(tmp_path / "faces"), "split_seed": 2}}
    assert found("faces", data=mixed) == {"split_seed": 2}
    assert found("others", data=mixed) == found("faces", command="balance", data="faces") == {}
    (tmp_path / "options.json").unlink()
    assert as_in_the_run(Namespace(model=str(tmp_path / model), data="faces")) == {}


def test_evaluate_scores_what_the_run_held_out(finished_run, rendered_folder, tmp_path, capsys):
    run, options = tmp_path / "run", json.loads((finished_run / "options.json").read_text())
    shutil.copytree(finished_run, run)
    options["faces"]["split_seed"] = 5
    (run / "options.json").write_text(json.dumps(options))
    faces = tmp_path / "faces"
    shutil.copytree(rendered_folder / "train", faces)  # without splits
    (faces / "metadata.jsonl").unlink(missing_ok=True)
    found = {}
    for name, more in {"run": [], "five": ["--split_seed", "5"], "zero": ["--split_seed", "0"]}.items():
        out = tmp_path / f"{name}.json"
        call = ["evaluate", "--model", str(run / "model"), "--data", str(faces), "--split", "test", "--out", str(out)]
        assert main([*call, *more]) == 0
        found[name] = json.loads(out.read_text())
    assert found["run"] == found["five"] and found["run"]["notes"] != found["zero"]["notes"]
