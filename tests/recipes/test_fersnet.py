"""The recipe by a real launcher, on one process and on two."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from synthmtl.cli import main, say_errors_in_one_line
from synthmtl.commands.main_job import main_job_config, main_job_parser
from synthmtl.experiment.checks import check_config
from synthmtl.report import validate_report
from synthmtl.training import read_history

RECIPE = Path(__file__).parents[2] / "recipes" / "fersnet.py"
# Two processes sum in another order than one, which changes last digits (1e-7). Adam makes whole steps of gradients
# that are zero but for such digits, so joint training goes by gradient descent here. Rounded to 8 bits, they change
# a gray level here and there in synthesized faces, so fine-tuning is compared from the same generator and faces.
OPTIONS = ["--preset", "smoke", "--precision", "no", "--methods", "[plain,gated_balanced]", "--seeds", "[0]"]
OPTIONS += ["--generator_seeds", "0"]
OPTIONS += ["--joint.optimizer", "sgd", "--joint.learning_rate", "0.05"]
OPTIONS += ["--finetune.optimizer", "sgd", "--finetune.learning_rate", "0.01"]
OPTIONS += [part for name in ("recognition", "judge", "joint", "finetune") for part in (f"--{name}.log_every", "1")]
OPTIONS += [part for name in ("recognition", "judge", "joint", "finetune") for part in (f"--{name}.steps", "4")]


CONFIGS = ["rendered_cpu", "fer2013_cpu", "ckplus_published"]
CONFIGS += ["diffusion_rendered_cpu", "diffusion_fer2013_cpu", "diffusion_gpu"]
CONFIGS += ["confounded_rendered_cpu", "confounded_diffusion_cpu"]


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_hold_options_that_exist_and_suit_each_other(name):
    file = RECIPE.parent / f"configs/{name}.yaml"
    faces = [] if "rendered" in name or "confounded" in name else ["--faces.path", "FACES"]
    argv = ["--config", str(file), "--out", "run", *faces]
    config = main_job_config(main_job_parser(argv, prog="fersnet.py").parse_args(argv))
    check_config(config, world=4)
    assert config.model.generator == ("diffusion" if "diffusion" in name else "gan")
    assert (config.joint.ema_decay is not None) == ("diffusion" in name)


def losses(path):
    return [record["losses"] for record in read_history(path / "losses.jsonl") if "losses" in record]


def assert_same_losses(one, two):
    one, two = losses(one), losses(two)
    assert len(one) == len(two) == 4
    for step, (a, b) in enumerate(zip(one, two, strict=True)):
        norms = {name for name in a if name.endswith("gradient_norm")}
        for names, tolerance in ((a.keys() - norms, 1e-4), (norms, 1e-3)):
            assert {n: b[n] for n in names} == pytest.approx({n: a[n] for n in names}, rel=tolerance, abs=1e-6), step


def test_two_processes_train_as_one(launch, tmp_path):
    assert main(["quickstart", "--out", str(tmp_path / "one"), *OPTIONS]) == 0
    done = launch("fersnet", "--out", tmp_path / "two", *OPTIONS, processes=2)
    assert done.returncode == 0, done.stderr
    assert not re.search("FutureWarning|UserWarning", done.stderr), done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["plain", "gated_balanced", "report:"]
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    validate_report(second)
    assert (first["environment"]["processes"], second["environment"]["processes"]) == (1, 2)
    assert second["balance"]["requested"] == first["balance"]["requested"]
    for part in ("guide", "judge", "joint/gated-seed0", "cells/plain/seed0"):
        assert_same_losses(tmp_path / "one" / part, tmp_path / "two" / part)

    again = tmp_path / "again"
    shutil.copytree(tmp_path / "two", again, ignore=shutil.ignore_patterns("cells"))
    assert main(["quickstart", "--out", str(again), "--resume", *OPTIONS]) == 0
    assert_same_losses(again / "cells/gated_balanced/seed0", tmp_path / "two/cells/gated_balanced/seed0")


def test_one_process_and_what_it_refuses(launch, tmp_path, monkeypatch, capsys):
    options = [*OPTIONS, "--methods", "[plain]"]
    done = launch("fersnet", "--out", tmp_path / "run", *options, processes=1)
    assert done.returncode == 0, done.stderr
    validate_report(json.loads((tmp_path / "run" / "report.json").read_text()))
    assert done.stdout.startswith("plain ")
    monkeypatch.setattr(sys, "argv", [str(RECIPE), "--out", str(tmp_path / "run"), *options])
    assert say_errors_in_one_line(runpy.run_path(str(RECIPE), run_name="recipe")["main"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--resume continues it" in said
