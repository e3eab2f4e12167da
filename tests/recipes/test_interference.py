"""The recipe by a real launcher: two processes share the cells, each training whole ones."""

import json

from synthmtl.report.study_schema import validate_study

OPTIONS = ["--preset", "smoke", "--precision", "no", "--joint.steps", "2", "--measures.interventions", "false"]
OPTIONS += ["--grid.sharing", "[none,leaky]", "--grid.rho", "[0.0]", "--grid.seeds", "[0]"]


def test_two_processes_share_the_cells(launch, tmp_path):
    done = launch("interference", "--out", tmp_path / "out", *OPTIONS, processes=2)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    validate_study(results)
    assert [cell["name"] for cell in results["cells"]] == ["none-single-rho0-seed0", "leaky-sum-rho0-seed0"]
    # Each counts as alone: nothing is averaged over them, and one of them tells the result.
    assert results["environment"]["processes"] == 1
    assert [line.split()[:3] for line in done.stdout.splitlines()[:-1]] == [["rho", "0", "none"], ["rho", "0", "leaky"]]

    again = launch("interference", "--out", tmp_path / "out", *OPTIONS, processes=2)
    assert again.returncode != 0 and "--resume continues it" in again.stderr
