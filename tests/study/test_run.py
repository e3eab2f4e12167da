"""A study whose processes are killed by the system."""

import json
import subprocess
import sys

from synthmtl.report.study_schema import validate_study

KILLED = """
import os, signal, sys, time
from pathlib import Path

from synthmtl.cli import main
from synthmtl.study import cells, run

whole = cells.run_cell
out = Path(sys.argv[1])


def run_cell(job, cell):
    def killed(*arguments):  # as soon as another cell is finished
        while not (out / "cells" / "none-single-rho0-seed0" / "result.json").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    if cell.sharing == "leaky":
        cells.train_cell = killed
    whole(job, cell)


if __name__ == "__main__":
    run.run_cell = run_cell
    options = ["--preset", "smoke", "--precision", "no", "--workers", "2", "--joint.steps", "2"]
    grid = ["--grid.sharing", "[none,leaky,hard,mtan]", "--grid.rho", "[0.0]", "--grid.seeds", "[0]"]
    sys.exit(main(["study", "--out", str(out), *options, *grid]))
"""


def test_a_killed_worker_costs_the_cells_that_it_cuts_off_and_no_others(tmp_path):
    script, out = tmp_path / "study.py", tmp_path / "out"
    script.write_text(KILLED)
    done = subprocess.run([sys.executable, script, out], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "a worker process was killed" in done.stderr
    results = json.loads((out / "results.json").read_text())
    validate_study(results)
    failed = {cell["sharing"]: cell["error"] for cell in results["failed"]}
    assert failed["leaky"].startswith("cut off: its process was killed")
    # What the other worker was at goes with it, and what had not begun is trained by new ones.
    assert {"none", "mtan"} <= {cell["sharing"] for cell in results["cells"]} and set(failed) <= {"leaky", "hard"}
    assert not (out / "cells" / "mtan-sum-rho0-seed0" / "failed.json").exists()
