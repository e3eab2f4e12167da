"""Real processes: several that train together, and one that is killed and starts again."""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from synthmtl.training import latest, read_history

SCRIPT = Path(__file__).with_name("launched.py")


def run(*arguments, launcher=(), environment=None):
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "WORLD_SIZE"))}
    clean |= {"OMP_NUM_THREADS": "1"} | (environment or {})
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def accelerate_launch():
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", str(free_port())]
    return ["-m", "accelerate.commands.launch", *options]


def records(path):
    """The history without its clock."""
    return [
        {name: value for name, value in record.items() if name != "images_per_second"}
        for record in read_history(path / "losses.jsonl")
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Twelve steps in one process."""
    out = tmp_path_factory.mktemp("uninterrupted")
    code, errors = run(out, 12, 10)
    assert code == 0, errors
    return out


def test_killed_run_resumes_to_the_bit(uninterrupted, tmp_path):
    code, _ = run(tmp_path, 12, 10, 7)
    assert code == -signal.SIGKILL
    assert latest(tmp_path / "checkpoints").name == "step-000005"
    assert read_history(tmp_path / "losses.jsonl")[-1]["step"] == 6
    # What a writer leaves that was killed in the middle of a checkpoint and of a line.
    shutil.copytree(tmp_path / "checkpoints" / "step-000005", tmp_path / "checkpoints" / ".step-000007")
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"step": 7, "los')
    code, errors = run(tmp_path, 12, 10)
    assert code == 0, errors
    assert records(tmp_path) == records(uninterrupted)
    expected, resumed = (load_file(path / "final.safetensors") for path in (uninterrupted, tmp_path))
    for name, value in expected.items():
        assert torch.equal(resumed[name], value), name
    for part in ("weights", "best"):
        expected, resumed = (
            load_file(path / "checkpoints" / "step-000012" / f"{part}.safetensors")
            for path in (uninterrupted, tmp_path)
        )
        assert expected and all(torch.equal(resumed[name], value) for name, value in expected.items())
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_two_processes_train_as_one(uninterrupted, tmp_path, in_memory):
    environment = {} if in_memory else {"WITHOUT_SHARED_MEMORY": "1"}
    code, errors = run(tmp_path, 12, 10, launcher=accelerate_launch(), environment=environment)
    assert code == 0, errors
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["processes"] == 2
    possible = hasattr(os, "posix_fallocate") and platform.machine() in ("x86_64", "AMD64")
    assert result["in_memory"] == (in_memory and possible)
    first, second = records(uninterrupted), records(tmp_path)
    assert [record["step"] for record in first] == [3, 4, 6, 8, 9, 12, 12]
    for a, b in zip(first, second, strict=True):
        assert a["step"] == b["step"] and a.keys() == b.keys()
        for kind in ("losses", "evaluation"):
            assert a.get(kind, {}) == pytest.approx(b.get(kind, {}), abs=1e-5)
    for name, value in load_file(uninterrupted / "final.safetensors").items():
        torch.testing.assert_close(load_file(tmp_path / "final.safetensors")[name], value, atol=1e-4, rtol=0)
