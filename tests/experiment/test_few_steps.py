"""Solvers by evaluations, of a denoiser that never learned anything."""

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.experiment import few_steps
from synthmtl.experiment.config import preset
from synthmtl.experiment.few_steps import FewStepsOptions, measure_few_steps
from synthmtl.experiment.stages import Job, load_data, plain_network, save
from synthmtl.training import build_accelerator


@pytest.fixture
def job(tmp_path):
    config = preset("smoke", rendered=True, generator="diffusion")
    splits, render = load_data(config.faces)
    job = Job(config, tmp_path, splits, build_accelerator(precision="no"), render)
    torch.manual_seed(0)
    save(job, plain_network(job), tmp_path / "judge/model")
    return job


@pytest.fixture
def measure(job):
    torch.manual_seed(1)
    network = job.config.model.build(job.train.classes, job.config.faces).eval()
    judge = plain_network(job).eval()

    def run(**options):
        options = {"evaluations": [2, 1], "features": str(job.out / "judge/model")} | options
        return measure_few_steps(job, network, judge, FewStepsOptions(**options))

    return run


def test_a_row_for_each_solver_and_number(job, measure):
    found = measure(quick=1, thorough=2)
    assert [(row["solver"], row["steps"], row["evaluations"]) for row in found["rows"]] == [
        ("dpm", 1, 1), ("dpm", 2, 2), ("ddim", 1, 1), ("ddim", 2, 2),
    ]  # fmt: skip
    assert found["faces"] == len(job.splits.validation) and found["features"] == "Recognizer"
    for row in found["rows"]:
        assert row["ci95"][0] <= row["kid"] <= row["ci95"][1] and 0 <= row["agreement"] <= 1 and row["seconds"] > 0
    verdict = found["verdict"]
    assert (verdict["quick"], verdict["thorough"]) == ("dpm, 1 evaluations", "ddim, 2 evaluations")
    assert verdict["kid_within"] == (found["rows"][0]["kid"] <= found["rows"][3]["ci95"][1])
    assert verdict["times_faster"] == pytest.approx(found["rows"][3]["seconds"] / found["rows"][0]["seconds"])


def test_a_step_with_guidance_takes_two_evaluations(job, measure):
    job.config.balance.sampling.guidance_scale = 2.0
    found = measure(evaluations=[1, 2, 3, 5], solvers=["dpm"])
    assert [(row["steps"], row["evaluations"]) for row in found["rows"]] == [(1, 2), (2, 4)]
    assert found["verdict"] is None


def test_what_was_measured_is_not_measured_again(measure, monkeypatch):
    first = measure(evaluations=[1], solvers=["dpm"])

    def refuse(*args, **kwargs):
        raise AssertionError("edited again")

    monkeypatch.setattr(few_steps, "edit_faces", refuse)
    assert measure(evaluations=[1], solvers=["dpm"]) == first
    with pytest.raises(AssertionError, match="edited again"):
        measure(evaluations=[1, 3], solvers=["dpm"])


def test_other_features_are_measured_anew(job, measure):
    first = measure(evaluations=[1], solvers=["dpm"])
    torch.manual_seed(2)
    save(job, plain_network(job), job.out / "other")
    second = measure(evaluations=[1], solvers=["dpm"], features=str(job.out / "other"))
    assert second["rows"][0]["kid"] != first["rows"][0]["kid"]
    assert second["rows"][0]["agreement"] == first["rows"][0]["agreement"]


def test_targets_are_other_expressions_evenly(job):
    table = job.splits.validation
    target = few_steps._other_expressions(table)
    assert (target != table.expression).all()
    for k in range(len(table.classes)):
        counts = target[table.expression == k].bincount(minlength=len(table.classes))
        assert counts[k] == 0 and counts[torch.arange(len(counts)) != k].max() <= 1 + counts.sum() // (len(counts) - 1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"solvers": ["flow"]}, "solvers has 'flow': v prediction takes dpm, ddim"),
        ({"evaluations": []}, "numbers from 1 to 500"),
        ({"evaluations": [8, 0]}, r"not \[8, 0\]"),
    ],
)
def test_plans_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        FewStepsOptions(**options).plan("v")
