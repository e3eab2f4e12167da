import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from synthmtl.cli import main, say_errors_in_one_line

_spec = importlib.util.spec_from_file_location("noise", Path(__file__).with_name("noise.py"))
noise = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(noise)
write_folder = noise.write_folder


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
        ([], "name a command (quickstart, "),
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


# Trainings that diverge.


@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_that_diverges_says_so_in_one_line(tmp_path, capfd, workers):
    wild = {"learning_rate": "1e30", "clip_norm": "null", "optimizer": "sgd"}
    call = [*QUICKSTART, "--methods", "[plain]", "--precision", "no", "--workers", str(workers)]
    call += [part for name, value in wild.items() for part in (f"--recognition.{name}", value)]
    assert main([*call, "--out", str(tmp_path / "out")]) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "diverged" in line]
    assert line == said.splitlines()[-1] and line.startswith("synthmtl: plain seed ")
    assert "recognition diverged at step " in line
    assert "start anew with a lower learning_rate, or with a clip_norm; --resume would diverge again" in line


def test_other_errors_of_running_keep_their_traceback():
    def call():
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        say_errors_in_one_line(call)


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
    for option, value in {"--judge": finished_run / "judge", "--quantile": 0.9, "--mistaken-at-most": 0.5}.items():
        assert f"leave {option} out" in refused(*call, "--no-filter", option, value)
    call = ["evaluate", "--model", finished_run, "--data", rendered_folder, "--out", tmp_path / "scores.json"]
    assert "unknown split 'nosuch'" in refused(*call, "--split", "nosuch")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_no_text_are_printed_all_the_same(tmp_path, monkeypatch, encoding):
    write_folder(tmp_path / "faces", happy=2, anger=2)
    (tmp_path / "faces" / "anger" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no picture")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding, errors="strict"))
    assert main(["inspect", str(tmp_path / "faces")]) == 0
    sys.stdout.flush()
    assert rb"caf\udce9.png: not an image" in sys.stdout.buffer.getvalue()


def test_real_process(tmp_path):
    def call(*arguments):
        return subprocess.run([sys.executable, "-m", "synthmtl.cli", *arguments], capture_output=True, text=True)

    version = call("--version")
    assert version.returncode == 0 and version.stdout.startswith("synthmtl ")
    wrong = call("inspect", str(tmp_path / "missing"))
    assert wrong.returncode == 2 and wrong.stdout == "" and wrong.stderr.count("\n") == 1
