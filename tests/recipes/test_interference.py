"""The recipe by a real launcher: two processes share the cells, each training whole ones."""

import json
from pathlib import Path

import pytest

from synthmtl.commands.options import recipe_options
from synthmtl.commands.study import study_parser
from synthmtl.report.study_schema import validate_study
from synthmtl.study import StudyConfig
from synthmtl.study.checks import check_study
from synthmtl.study.config import grid_cells

CONFIGS = sorted((Path(__file__).parents[2] / "recipes/configs").glob("interference_*.yaml"))
CELLS = {"initialization": 42, "labels": 252, "rendered": 150, "ablations": 100, "filter": 60, "pairs": 36}

OPTIONS = ["--preset", "smoke", "--precision", "no", "--joint.steps", "2", "--measures.interventions", "false"]
OPTIONS += ["--grid.sharing", "[none,leaky]", "--grid.rho", "[0.0]", "--grid.seeds", "[0]"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configs_hold_options_that_exist_and_suit_each_other(config):
    call = ["--config", str(config), "--out", "unused"]
    options = recipe_options(StudyConfig, study_parser(call, prog="interference.py").parse_args(call))
    if config.stem.endswith("fer2013"):
        options.faces.path = "FER2013"
    check_study(options)
    cells = len(grid_cells(options.grid))
    assert cells == CELLS.get(config.stem.removeprefix("interference_"), cells)


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
