"""Recipes started as their users start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def launch():
    """``launch(name, *arguments, processes=1)``: ``accelerate launch recipes/NAME.py`` on the CPU, a thread each."""

    def run(name, *arguments, processes=1):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--multi_gpu", "--main_process_port", str(port)] if processes > 1 else ["--cpu"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE", "WORLD_SIZE"))}
        return subprocess.run(
            [*command, str(RECIPES / f"{name}.py"), *map(str, arguments)],
            env=clean | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return run
