"""Whether every benchmark runs; how fast anything is, is for the table."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if re.search(r"^def rows\(", p.read_text(), re.M))


def run(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def test_every_benchmark_gives_rows():
    done = run("--tiny")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert lines[0] == ["benchmark", "case", "ours", "plain", "ratio", "wanted"]
    assert sorted({line[0] for line in lines[2:]}) == NAMES
    for line in lines[2:]:
        assert len(line) == 6, line
        if "not installed" in line[1] or "does not compute" in line[1]:  # what the plain way takes is not there
            assert line[4] == "", line
        else:
            assert math.isfinite(float(line[4])) and float(line[4]) > 0, line


def test_unknown_names_are_refused():
    done = run("nosuch")
    assert done.returncode == 2 and re.search(r"no benchmark 'nosuch': use some of sharing, .*growth", done.stderr)
