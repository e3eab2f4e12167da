import json
import subprocess
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image

from synthmtl import commands
from synthmtl.cli import main
from synthmtl.data.image_folder import read_image_folder
from synthmtl.experiment import METHODS
from synthmtl.labels import EXPRESSIONS
from synthmtl.report import validate_report


def write_noise(path, mode="L", size=32):
    channels = {"L": (), "RGB": (3,), "CMYK": (4,), "I;16": ()}[mode]
    dtype, top = (np.uint16, 65536) if mode == "I;16" else (np.uint8, 256)
    pixels = np.random.default_rng(zlib.crc32(str(path.name).encode())).integers(
        0, top, (size, size, *channels), dtype=dtype
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode="CMYK" if mode == "CMYK" else None).save(path)


def write_folder(root, **counts):
    for name, count in counts.items():
        for i in range(count):
            write_noise(root / name / f"{i}.png")
    return root


def snapshot(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.fixture
def refused(capsys, tmp_path):
    """Call the command line with input that it refuses; gives the line that it said: the only one, or the last."""

    def call(*arguments, only=True):
        before = snapshot(tmp_path)
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr().err
        assert code == 2
        lines = said.splitlines()
        assert [line.startswith("synthmtl: ") for line in lines] == [False] * (len(lines) - 1) + [True], said
        assert len(lines) == 1 or not only, said
        assert snapshot(tmp_path) == before
        return lines[-1]

    return call


# What a user does wrong with data.


def break_nothing_there(root):
    pass


def break_empty(root):
    root.mkdir()


def break_one_class(root):
    write_folder(root, happiness=6)


def break_one_image(root):
    write_folder(root, happiness=6, anger=1)


def break_unknown_class(root):
    write_folder(root, happiness=6, grumpiness=6)


def break_corrupt(root):
    write_folder(root, happiness=6, anger=6)
    whole = (root / "anger" / "2.png").read_bytes()
    (root / "anger" / "2.png").write_bytes(whole[: len(whole) // 2])


def break_zero_bytes(root):
    write_folder(root, happiness=6, anger=6)
    (root / "anger" / "2.png").write_bytes(b"")


def break_huge(root):
    write_folder(root, happiness=6, anger=6)
    Image.new("1", (8000, 8000)).save(root / "anger" / "2.png")


def break_animated(root):
    write_folder(root, happiness=6, anger=6)
    frames = [Image.new("L", (32, 32), gray) for gray in (0, 255)]
    frames[0].save(root / "anger" / "2.gif", save_all=True, append_images=frames[1:])


DATA = {
    break_nothing_there: "no such",
    break_empty: "no faces found",
    break_one_class: "add images of at least one more class",
    break_one_image: "class 'anger' has one image",
    break_unknown_class: "unknown expression folder 'grumpiness'",
    break_corrupt: "anger/2.png",
    break_zero_bytes: "anger/2.png: the image file is empty",
    break_huge: "anger/2.png",
    break_animated: "anger/2.gif",
}


@pytest.mark.parametrize("spoil", DATA, ids=lambda spoil: spoil.__name__.removeprefix("break_"))
def test_bad_data(refused, tmp_path, spoil):
    spoil(tmp_path / "faces")
    said = refused("run", "--data", tmp_path / "faces", "--out", tmp_path / "out", "--preset", "smoke")
    assert str(tmp_path / "faces") in said and DATA[spoil] in said


def test_unusual_images_are_read(finished_run, tmp_path, capsys):
    files = [tmp_path / "cmyk.jpg", tmp_path / "deep.png", tmp_path / "color.png"]
    for file, mode in zip(files, ("CMYK", "I;16", "RGB"), strict=True):
        write_noise(file, mode, size=40)
    assert main(["predict", "--model", str(finished_run), *map(str, files)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


# What a user does wrong with options.

QUICKSTART = ("quickstart", "--preset", "smoke")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense", "1"], "--nonsense"),
        (["--faces.nonsense", "1"], "--faces.nonsense"),
        (["--seeds", "[]"], "--seeds is empty"),
        (["--seeds", "a"], "--seeds: expected list, got a"),
        (["--methods", "[nosuch]"], "unknown method 'nosuch': use one of plain,"),
        (["--methods", "[]"], "--methods is empty"),
        (["--model.sharing", "nosuch"], "unknown sharing unit 'nosuch'"),
        (["--synthesis.mode", "nosuch"], "--synthesis.mode is 'nosuch'"),
        (["--recognition.steps", "0"], "steps must be at least 1"),
        (["--recognition.steps", "many"], "--recognition.steps: expected int, got many"),
        (["--precision", "fp64"], "precision must be auto, no, bf16 or fp16"),
        (["--balance.strategy", "nosuch"], "unknown strategy 'nosuch'"),
        (["--balance.feedback.share", "1.5"], "must lie between 0 and 1"),
        (["--faces.image_size", "33"], "image_size 33"),
        (["--faces.train_counts", "{grumpiness: 3, anger: 4}"], "'grumpiness'"),
        (["--resume", "--overwrite"], "exclude each other"),
    ],
    ids=lambda value: value[0] + value[-1] if isinstance(value, list) else "",
)
def test_bad_options(refused, tmp_path, arguments, message):
    assert message in refused(*QUICKSTART, "--out", tmp_path / "out", *arguments)


def test_unknown_preset(refused, tmp_path):
    said = refused("quickstart", "--preset", "nosuch", "--out", tmp_path / "out")
    assert "unknown preset 'nosuch': use smoke, quick or full" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faces:\n  nonsense: 3\n", "unknown option faces.nonsense"),
        ("recognition:\n  steps: many\n", "--recognition.steps: expected int, got many"),
        ("recognition:\n  steps: [\n", "in the configuration file, line 3"),
        (None, "File does not exist"),
    ],
)
def test_bad_configuration_file(refused, tmp_path, text, message):
    file = tmp_path / "options.yaml"
    if text is not None:
        file.write_text(text)
    assert message in refused(*QUICKSTART, "--config", file, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "command"),
        (["nosuch"], "'nosuch'"),
        (["predict"], "required: model, images"),
        (["render"], "required: out"),
    ],
)
def test_incomplete_calls(refused, arguments, message):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("option", "value"), [("--count", "0"), ("--size", "8"), ("--style", "nosuch"), ("--subjects", "0")]
)
def test_bad_rendering(refused, tmp_path, option, value):
    said = refused("render", "--out", tmp_path / "out", option, value)
    assert option.removeprefix("--") in said and value in said


# Folders that are there already.


def command_lines(run, data, out):
    face = next(data.rglob("*.png"))
    return {
        "quickstart": [*QUICKSTART, "--out", out],
        "run": ["run", "--preset", "smoke", "--data", data, "--out", out],
        "render": ["render", "--count", "8", "--out", out],
        "synthesize": ["synthesize", "--model", run, "--expression", "anger", "--out", out, face],
        "balance": ["balance", "--model", run, "--data", data, "--out", out],
    }


@pytest.mark.parametrize("command", ["quickstart", "run", "render", "synthesize", "balance"])
def test_what_is_there_is_not_touched(refused, finished_run, rendered_folder, tmp_path, command):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    call = command_lines(finished_run, rendered_folder, tmp_path / "mine")[command]
    assert "--resume continues it, --overwrite replaces it" in refused(*call)
    assert "not made by synthmtl" in refused(*call, "--overwrite")
    assert "not made by synthmtl" in refused(*call, "--resume")


def test_evaluation_that_is_there_is_not_touched(refused, finished_run, rendered_folder, tmp_path):
    (tmp_path / "scores.json").write_text("{}")
    call = ["evaluate", "--model", finished_run, "--data", rendered_folder, "--out"]
    assert "--overwrite replaces it" in refused(*call, tmp_path / "scores.json")
    assert "is a folder" in refused(*call, tmp_path, "--overwrite")


def test_resuming_with_other_options_names_one(refused, finished_run):
    before = snapshot(finished_run)
    call = [*QUICKSTART, "--precision", "no", "--out", finished_run, "--resume"]
    said = refused(*call, "--recognition.steps", "7")
    assert "another recognition.steps (6 there, 7 now)" in said
    assert snapshot(finished_run) == before


# Checkpoints that are none.


@pytest.mark.parametrize("command", ["predict", "evaluate", "synthesize", "balance"])
@pytest.mark.parametrize("wrong", ["missing", "empty", "data", "foreign", "truncated"])
def test_wrong_checkpoint_folder(refused, finished_run, rendered_folder, tmp_path, command, wrong):
    model = tmp_path / "model"
    if wrong == "data":
        write_folder(model, anger=2)
    elif wrong != "missing":
        model.mkdir()
    if wrong == "foreign":
        (model / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    if wrong == "truncated":
        source = finished_run / "generator"
        (model / "config.json").write_bytes((source / "config.json").read_bytes())
        weights = (source / "diffusion_pytorch_model.safetensors").read_bytes()
        (model / "diffusion_pytorch_model.safetensors").write_bytes(weights[:1000])
    calls = command_lines(model, rendered_folder, tmp_path / "out")
    face = next(rendered_folder.rglob("*.png"))
    calls["predict"] = ["predict", "--model", model, face]
    calls["evaluate"] = ["evaluate", "--model", model, "--data", rendered_folder, "--out", tmp_path / "scores.json"]
    assert str(model) in refused(*calls[command])


def test_wishes_that_the_model_cannot_fulfill(refused, finished_run, rendered_folder, tmp_path):
    face = next(rendered_folder.rglob("*.png"))
    call = ["synthesize", "--model", finished_run, "--out", tmp_path / "out", "--expression"]
    assert "unknown expression 'grumpiness'" in refused(*call, "grumpiness", face)
    assert "no such image file" in refused(*call, "anger", tmp_path / "missing.png")
    call = [
        "synthesize",
        "--model",
        finished_run / "judge" / "model",
        "--out",
        tmp_path / "out",
        "--expression",
        "anger",
    ]
    assert "without a synthesis branch" in refused(*call, face)
    call = ["balance", "--model", finished_run, "--data", rendered_folder, "--out", tmp_path / "out"]
    assert "unknown strategy 'nosuch'" in refused(*call, "--strategy", "nosuch", only=False)
    assert "balancing only adds" in refused(*call, "--strategy", "{happiness: 1}", only=False)
    assert "--attempts is 0" in refused(*call, "--attempts", "0")
    assert "--fill is 'nosuch'" in refused(*call, "--fill", "nosuch")
    assert "no judge there" in refused(*call, "--judge", tmp_path / "missing")
    call = ["evaluate", "--model", finished_run, "--data", rendered_folder, "--out", tmp_path / "scores.json"]
    assert "unknown split 'nosuch'" in refused(*call, "--split", "nosuch")


# What the commands do on good input.


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


def test_predict_answers_for_the_good_ones(finished_run, rendered_folder, tmp_path, capsys):
    face = str(next(rendered_folder.rglob("*.png")))
    assert main(["predict", "--model", str(finished_run), str(tmp_path / "missing.png"), face]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["file"] == face
    assert said.err.count("\n") == 1 and "1 of 2 images" in said.err and "missing.png" in said.err


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


def test_evaluate_a_split_that_is_there_and_one_that_is_split_off(finished_run, rendered_folder, tmp_path):
    for split, count in (("train", 96), ("test", None)):
        out = tmp_path / "new" / f"{split}.json"
        call = ["evaluate", "--model", str(finished_run), "--data", str(rendered_folder), "--split", split]
        assert main([*call, "--out", str(out)]) == 0
        scores = json.loads(out.read_text())
        assert scores["split"] == split and 0 <= scores["macro_f1"] <= 1
        assert scores["ci95"]["macro_f1"][0] <= scores["ci95"]["macro_f1"][1]
        assert scores["count"] == count if count else 0 < scores["count"] < 30


def test_evaluate_a_test_split_alone_with_some_of_the_classes(finished_run, tmp_path):
    write_folder(tmp_path / "faces" / "test", happiness=3, anger=1)
    call = ["evaluate", "--model", str(finished_run), "--data", str(tmp_path / "faces")]
    assert main([*call, "--out", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["count"] == 4 and len(scores["absent"]) == 6


def test_balance(finished_run, rendered_folder, tmp_path, capsys):
    out = tmp_path / "balanced"
    call = ["balance", "--model", str(finished_run), "--data", str(rendered_folder), "--out", str(out), "--originals"]
    call += ["--strategy", "{happiness: 20, fear: 14}"]
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


def test_real_process(tmp_path):
    def call(*arguments):
        return subprocess.run([sys.executable, "-m", "synthmtl.cli", *arguments], capture_output=True, text=True)

    version = call("--version")
    assert version.returncode == 0 and version.stdout.startswith("synthmtl ")
    wrong = call("inspect", str(tmp_path / "missing"))
    assert wrong.returncode == 2 and wrong.stdout == "" and wrong.stderr.count("\n") == 1
