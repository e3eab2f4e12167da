"""The main job on faces as users have them, and after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from synthmtl.cli import main
from synthmtl.data.writer import write_image_folder
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.report import validate_report

COUNTS = {"neutral": 14, "happiness": 14, "surprise": 9, "anger": 7}
BRIEF = ["--seeds", "[0]", "--precision", "no", "--preset", "smoke"]
BRIEF += [part for name in ("recognition", "judge", "joint", "finetune") for part in (f"--{name}.steps", "3")]


@pytest.fixture(scope="module")
def web_faces(tmp_path_factory):
    """Rendered faces in an image folder without a word on who is who, as collections from the web are."""
    table = render_faces(RenderConfig(counts=COUNTS, image_size=32, subjects=20, style="wild", seed=5))
    unknown = torch.full_like(table.subject, -1)
    root = tmp_path_factory.mktemp("web") / "faces"
    write_image_folder(table.replace(subject=unknown, session=unknown, attributes={}), root)
    return root


def read_report(out):
    report = json.loads((out / "report.json").read_text())
    validate_report(report)
    return report


def numbers(report):
    """A report without its clock."""
    methods = {name: {k: v for k, v in m.items() if k != "seconds"} for name, m in report["methods"].items()}
    return {part: report[part] for part in ("data", "comparisons", "balance", "generation")} | {"methods": methods}


def test_faces_without_subjects_are_taught_by_rendered_pairs(web_faces, tmp_path, capsys):
    methods = ["plain", "gated", "gated_balanced", "diluted"]
    call = ["run", "--data", str(web_faces), "--out", str(tmp_path / "run"), "--methods", f"[{','.join(methods)}]"]
    assert main([*call, *BRIEF]) == 0
    assert "Synthesis is trained mixed (chosen from the data)" in capsys.readouterr().err
    report = read_report(tmp_path / "run")
    assert list(report["methods"]) == methods
    assert report["data"]["classes"] == ["neutral", "happiness", "surprise", "anger"]
    parts = [report["data"][f"{name}_counts"] for name in ("train", "validation", "test")]
    assert {name: sum(part[name] for part in parts) for name in COUNTS} == COUNTS
    assert any("by image" in note for note in report["notes"])
    assert {c["b"] for c in report["comparisons"] if c["a"] == "gated_balanced"} == {"plain", "gated", "diluted"}
    joint = json.loads((tmp_path / "run/joint/gated-seed0/result.json").read_text())
    assert joint["mode"] == "mixed"
    losses = json.loads((tmp_path / "run/joint/gated-seed0/losses.jsonl").read_text().splitlines()[0])["losses"]
    assert {"generator/pixel", "generator/cycle", "generator/identity"} <= set(losses)


def test_unpaired_training_can_be_forced(web_faces, tmp_path):
    call = ["run", "--data", str(web_faces), "--out", str(tmp_path / "run"), "--methods", "[gated_balanced]", *BRIEF]
    assert main([*call, "--synthesis.mode", "unpaired"]) == 0
    report = read_report(tmp_path / "run")
    assert any("unpaired (forced)" in note for note in report["notes"])
    losses = json.loads((tmp_path / "run/joint/gated-seed0/losses.jsonl").read_text().splitlines()[0])["losses"]
    assert "generator/cycle" in losses and "generator/pixel" not in losses


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--synthesis.mode", "paired"], "paired training needs two expressions of one subject"),
        (["--synthesis.rendered_share", "0.01"], "leave 0 rendered ones"),
        (["--balance.strategy", "{contempt: 20}"], "contempt"),
        (["--finetune.batch_size", "2"], "--finetune.batch_size: a batch of 2 faces is too small for 3 parts"),
        (["--balance.match", "[age]"], "cannot match 'age': the data carry no attribute at all"),
        (["--balance.strategy", "{happiness: 2}"], "strategy wants 2 faces of happiness"),
        (["--joint.seed", "3"], "--joint.seed is 3"),
    ],
)
def test_what_the_faces_do_not_allow_is_said_before_training(web_faces, tmp_path, capsys, options, said):
    call = ["run", "--data", str(web_faces), "--out", str(tmp_path / "run"), "--methods", "[gated_balanced]", *BRIEF]
    assert main([*call, *options]) == 2 and not (tmp_path / "run").exists()
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_labels_is_refused_before_training(web_faces, tmp_path, capsys, split):
    """As competitions give their test faces out."""
    for number, path in enumerate(sorted(web_faces.rglob("*.png"))):
        part = ("validation", "test", "train")[number % 3]
        name = "unlabeled" if part == split else path.parent.name
        (tmp_path / "faces" / part / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "faces" / part / name / f"{path.parent.name}-{path.name}")
    call = ["run", "--data", str(tmp_path / "faces"), "--out", str(tmp_path / "run"), "--methods", "[plain]", *BRIEF]
    assert main(call) == 2 and not (tmp_path / "run").exists()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"synthmtl: {tmp_path / 'faces'}: no face of the {split} split has an expression")
    assert "add some that have, or leave the split out" in said


def test_recognition_alone_needs_no_generator(web_faces, tmp_path):
    call = ["run", "--data", str(web_faces), "--out", str(tmp_path / "run"), "--methods", "[plain]", *BRIEF]
    assert main(call) == 0
    assert read_report(tmp_path / "run")["balance"]["strategy"] == "none"
    assert (tmp_path / "run" / "report.html").exists() and not (tmp_path / "run" / "generator").exists()


def test_balanced_classes_leave_out_what_needs_further_faces(tmp_path):
    call = ["quickstart", "--methods", "[plain,gated_balanced]", *BRIEF, "--out", str(tmp_path / "run")]
    assert main([*call, "--faces.train_counts", "{happiness: 9, anger: 9, fear: 9}"]) == 0
    report = read_report(tmp_path / "run")
    assert list(report["methods"]) == ["plain"] and sum(report["balance"]["requested"].values()) == 0
    assert "Left out gated_balanced: the strategy wants no further face of any class." in report["notes"]


def test_classes_get_the_attributes_mix_that_is_asked_for(tmp_path):
    call = ["quickstart", "--methods", "[gated_balanced]", *BRIEF, "--out", str(tmp_path / "run")]
    counts = "{neutral: 20, happiness: 20, anger: 6}"
    assert main([*call, "--faces.train_counts", counts, "--balance.match", "[skin]"]) == 0
    folder = tmp_path / "run/balance/seed0/imagefolder"
    assert json.loads((folder / "balance.json").read_text())["match"] == ["skin"]
    records = [json.loads(line) for line in (folder / "train/metadata.jsonl").read_text().splitlines()]
    assert len(records) == 14 and all("skin" in record for record in records)


def test_a_generator_that_changes_nothing_costs_its_methods_only(tmp_path, capsys):
    call = ["quickstart", "--methods", "[gated,gated_balanced]", *BRIEF, "--out", str(tmp_path / "run")]
    assert main([*call, "--joint.learning_rate", "1e-9"]) == 0
    report = read_report(tmp_path / "run")
    assert list(report["methods"]) == ["gated"] and sum(report["balance"]["kept"].values()) == 0
    assert "Left out gated_balanced: every synthesized face was rejected." in report["notes"]
    shutil.rmtree(tmp_path / "run")
    alone = [part.replace("gated,", "") for part in call]
    assert main([*alone, "--joint.learning_rate", "1e-9"]) == 2
    assert "nothing to train: every synthesized face was rejected" in capsys.readouterr().err.splitlines()[-1]


def test_killed_run_resumes_to_the_bit(tmp_path):
    call = ["quickstart", "--methods", "[plain,gated_balanced]", *BRIEF, "--joint.steps", "16"]
    call += ["--joint.checkpoint_every_steps", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # The other process must sum in the same order, so it gets as many threads.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-m", "synthmtl.cli", *call, "--out", str(killed)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(killed.glob("joint/*/checkpoints/step-*/state.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "joint/gated-seed0/result.json").exists()
    guide = (killed / "guide/result.json").stat().st_mtime_ns
    # How often a training is saved may change, and nothing that it learns by.
    assert main([*call, "--out", str(killed), "--resume", "--joint.learning_rate", "0.1"]) == 2
    call += ["--joint.checkpoint_every_steps", "5", "--joint.keep_checkpoints", "1"]
    assert main([*call, "--out", str(killed), "--resume"]) == 0
    assert (killed / "guide/result.json").stat().st_mtime_ns == guide
    assert main([*call, "--out", str(whole)]) == 0
    assert numbers(read_report(killed)) == numbers(read_report(whole))
    model = "model/diffusion_pytorch_model.safetensors"
    assert (killed / model).read_bytes() == (whole / model).read_bytes()
    faces = [sorted(p.relative_to(out) for p in out.glob("balance/**/*.png")) for out in (killed, whole)]
    assert faces[0] == faces[1] and faces[0]
    assert all((killed / name).read_bytes() == (whole / name).read_bytes() for name in faces[0])
