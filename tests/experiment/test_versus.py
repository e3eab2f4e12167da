"""Two finished runs side by side, written by hand."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from synthmtl.errors import InputError
from synthmtl.experiment.config import preset
from synthmtl.experiment.stages import Job, load_data
from synthmtl.experiment.versus import compare_runs, format_comparison, open_rival
from synthmtl.experiment.workspace import describe_data
from synthmtl.training import build_accelerator


@pytest.fixture
def runs(tmp_path):
    """A run whose recognizers are always right in ``one``, and always name the first class in ``two``."""
    config = preset("smoke", rendered=True)
    config.faces.train_counts = {"neutral": 16, "happiness": 16, "sadness": 16, "fear": 2}
    splits, render = load_data(config.faces)
    labels, classes = splits.test.expression, len(splits.test.classes)
    right = torch.nn.functional.one_hot(labels, classes).float()
    blind = torch.nn.functional.one_hot(torch.zeros_like(labels), classes).float()
    for name, generator, outputs, seeds in (("one", "diffusion", right, [0, 1]), ("two", "gan", blind, [1, 2])):
        out = tmp_path / name
        for seed in seeds:
            folder = out / f"cells/gated_balanced/seed{seed}"
            folder.mkdir(parents=True)
            save_file({"test": outputs}, folder / "predictions.safetensors")
            (folder / "result.json").write_text("{}")
        (out / "joint/gated-seed0").mkdir(parents=True)
        (out / "joint/gated-seed0/result.json").write_text(json.dumps({"seconds": 90.0}))
        card = {"overall": {"kid": {"value": 0.01}, "fid": {"absent": "few"}}, "closest_pairs": [1]}
        generation = {"generator": generator, "judged_recall": {"fear": 0.5, "anger": 1.0}, "quality": card}
        report = {"generation": generation, "methods": {"gated_balanced": {"macro_f1": 0.5}}}
        (out / "report.json").write_text(json.dumps(report))
        (out / "options.json").write_text(json.dumps(dataclasses.asdict(config)))
    job = Job(config, tmp_path / "one", splits, build_accelerator(precision="no"), render)
    return job, tmp_path


def test_differences_are_paired_over_the_seeds_that_both_have(runs):
    job, folder = runs
    found = compare_runs(job, open_rival(job, folder / "two"))
    assert [entry["generator"] for entry in found["runs"]] == ["diffusion", "gan"]
    f1, rare = found["comparisons"]
    assert (f1["method"], f1["a"], f1["b"], f1["seeds"]) == ("gated_balanced", "diffusion", "gan", [1])
    classes = len(job.splits.test.classes)
    share = 2 / (classes + 1)  # F1 of a class that is named for every face, one in so many of them rightly
    assert f1["difference"] == pytest.approx(1 - share / classes)
    assert (rare["metric"], rare["difference"]) == ("minority_recall", 1.0)
    assert "closest_pairs" not in found["runs"][0]["quality"]


def test_the_table_says_what_is_absent(runs):
    job, folder = runs
    lines = format_comparison(compare_runs(job, open_rival(job, folder / "two"))).splitlines()
    assert lines[0].split() == ["diffusion", "gan"]
    assert lines[1].split()[-2:] == ["1.500", "1.500"] and lines[2].split()[-2:] == ["0.750", "0.750"]
    assert [line.split() for line in lines[3:5]] == [["kid", "0.010", "0.010"], ["fid", "-", "-"]]
    assert "diffusion - gan +" in lines[5] and lines[5].endswith("1 seeds")


def test_faces_in_a_folder_may_have_changed_between_the_runs(runs):
    job, folder = runs
    job = dataclasses.replace(job, render=None)  # as if they had been read
    open_rival(job, folder / "two")  # early versions did not write the faces down
    described = describe_data(job.splits.tables())
    (folder / "two/data.json").write_text(json.dumps(described))
    open_rival(job, folder / "two")
    for split in described:
        other = described | {split: described[split] | {"fingerprint": "other"}}
        (folder / "two/data.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=f"two: is a run on other faces: the {split} split has changed"):
            open_rival(job, folder / "two")
    (folder / "two/data.json").write_text(json.dumps({}) + "{")
    with pytest.raises(InputError, match="is no finished run"):
        open_rival(job, folder / "two")


def test_only_finished_runs_on_the_same_faces(runs):
    job, folder = runs
    with pytest.raises(InputError, match="is no finished run"):
        open_rival(job, folder)
    other = dataclasses.replace(job.config, faces=dataclasses.replace(job.config.faces, render_seed=5))
    with pytest.raises(InputError, match="run on other faces"):
        open_rival(dataclasses.replace(job, config=other), folder / "two")
