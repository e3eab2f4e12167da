"""How much commands say: ``--quiet``, ``--json``, and the line at the end that says where the results are."""

import json
import logging
import shutil

import pytest

from synthmtl.cli import main
from synthmtl.commands.talk import counted
from synthmtl.progress import ProgressLine


@pytest.fixture
def say(capsys):
    """Call the command line, which must succeed, and give what it said: (stdout, stderr)."""

    def call(*arguments):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr()

    return call


def command_lines(run, data, tmp_path):
    """Every command that ends quickly, and what its last line on stdout or, if that is a machine's, stderr names."""
    face = next(data.rglob("*.png"))
    network = run / "judge" / "model"
    made = tmp_path / "made"
    return {
        "render": (["--out", tmp_path / "out", "--count", 8, "--size", 32], tmp_path / "out"),
        "inspect": ([data], data),
        "evaluate": (["--model", run, "--data", data, "--out", tmp_path / "out.json"], tmp_path / "out.json"),
        "predict": (["--model", run, face], run),
        "synthesize": (["--model", run, "--expression", "fear", "--out", tmp_path / "out", face], tmp_path / "out"),
        "balance": (
            ["--model", run, "--data", data, "--out", tmp_path / "out", "--strategy", "{fear: 14}"], tmp_path / "out",
        ),
        "score": (
            ["--real", data, "--synthetic", made, "--features", network, "--out", tmp_path / "out.json"],
            tmp_path / "out.json",
        ),
    }  # fmt: skip


COMMANDS = ["render", "inspect", "evaluate", "predict", "synthesize", "balance", "score"]


@pytest.fixture
def command(request, finished_run, rendered_folder, tmp_path):
    """A command line by the name that the test is parametrized with, and what its last line names."""
    made = tmp_path / "made" / "train"
    for expression in ("fear", "anger"):
        for file in sorted((rendered_folder / "train" / expression).glob("*.png"))[:3]:
            (made / expression).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, made / expression)
    arguments, named = command_lines(finished_run, rendered_folder, tmp_path)[request.param]
    return [request.param, *arguments], str(named)


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_the_last_line_says_where_the_results_are(command, say):
    words, named = command
    said = say(*words)
    last = (said.err if words[0] in ("predict", "synthesize") else said.out).splitlines()[-1]
    assert named in last


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_quiet_leaves_the_results_alone(command, say):
    words, _ = command
    said = say(*words, "--quiet")
    assert said.err == "" and said.out


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "predict"], indirect=True)
def test_json_is_all_that_is_printed(command, say):
    words, named = command
    found = json.loads(say(*words, "--json").out)
    assert named in (found.get("out"), found.get("path"))


def test_json_of_the_main_job(finished_run, say):
    call = ("quickstart", "--preset", "smoke", "--precision", "no", "--out", finished_run, "--resume")
    found = json.loads(say(*call, "--json").out)
    report = json.loads((finished_run / "report.json").read_text())
    assert found["report"] == str(finished_run / "report.html")
    assert {name: entry["macro_f1"] for name, entry in found["methods"].items()} == {
        name: entry["macro_f1"] for name, entry in report["methods"].items()
    }
    said = say(*call, "--quiet")  # the options do not belong to what the folder holds
    assert said.err == "" and said.out.splitlines()[-1] == f"report: {finished_run / 'report.html'}"


def test_a_new_call_talks_again(say, rendered_folder, tmp_path, capsys):
    log = logging.getLogger("synthmtl")
    say("render", "--out", tmp_path / "out", "--count", 8, "--size", 32, "--quiet")
    assert not ProgressLine(2, 0, "", show=True).show and log.handlers[0].level == logging.ERROR
    assert main(["predict", "--model", str(tmp_path / "missing"), "face.png", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("synthmtl: ")
    say("inspect", rendered_folder)
    assert ProgressLine(2, 0, "", show=True).show and log.handlers[0].level == logging.NOTSET


def test_one_is_not_many():
    assert [counted(n, "face") for n in (0, 1, 2, 1500)] == ["0 faces", "1 face", "2 faces", "1,500 faces"]
