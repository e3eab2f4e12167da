"""Generators that are told action units, or valence and arousal, from faces that carry them to faces that do not."""

import dataclasses
import json

import pytest
import torch
from PIL import Image

from synthmtl.cli import main
from synthmtl.data import FaceTable
from synthmtl.data.load import Splits
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.experiment import preset, run_main_job
from synthmtl.experiment.labeler import lacking, told_faces, train_labeler
from synthmtl.experiment.stages import Job
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.labels import ACTION_UNITS
from synthmtl.models import SJMT, FERSNet
from synthmtl.models.inference import load_network, save_network
from synthmtl.report import validate_report
from synthmtl.training import build_accelerator, read_history

CLASSES = ("neutral", "happiness", "fear")


def brief(condition, *, rendered=True):
    """The smoke preset, shorter still."""
    config = preset("smoke", rendered=rendered)
    config.methods, config.seeds, config.precision = ["gated", "gated_balanced"], [0], "no"
    config.model.condition = condition
    for name in ("recognition", "judge", "joint", "finetune"):
        part = dataclasses.replace(getattr(config, name), steps=3, checkpoint_every_minutes=None)
        setattr(config, name, part)
    return config


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """An image folder whose faces carry expressions and nothing else."""
    folder = tmp_path_factory.mktemp("photographs") / "data"
    table = render_faces(RenderConfig(counts={"neutral": 12, "happiness": 12, "fear": 6}, image_size=32, subjects=30))
    bare = FaceTable(table.images, table.classes, expression=table.expression, subject=table.subject)
    write_image_folder(bare.with_classes(CLASSES), folder)
    return folder


def job(config, table, out):
    splits = Splits(train=table, validation=table, test=table, notes=[])
    return Job(config, out, splits, build_accelerator(precision="no"), progress=False)


def test_the_labeler_keeps_its_last_step_however_the_judge_chooses(tmp_path):
    config = brief("action_units", rendered=False)
    config.judge = dataclasses.replace(config.judge, patience=1, evaluate_every=1)
    table = render_faces(RenderConfig(counts={"neutral": 4, "happiness": 4, "fear": 4}, image_size=32, subjects=4))
    folder = train_labeler(job(config, table.with_classes(CLASSES), tmp_path))
    assert [record["step"] for record in read_history(folder / "losses.jsonl")] == [2, 3]


def test_rendered_faces_need_no_labeler(tmp_path):
    run_main_job(brief("valence_arousal"), tmp_path / "run")
    report = json.loads((tmp_path / "run/report.json").read_text())
    validate_report(report)
    count = sum(report["data"]["train_counts"].values())
    assert report["generation"]["targets"] == {"kind": "valence_arousal", "faces": count, "supplied": 0}
    assert not (tmp_path / "run/labeler").exists()
    assert load_network(tmp_path / "run/generator").config.condition == "valence_arousal"


def test_photographs_get_targets_and_no_labels(photographs, tmp_path, capsys):
    config = brief("action_units", rendered=False)
    config.faces.path, config.faces.image_size = str(photographs), 32
    run = tmp_path / "run"
    run_main_job(config, run)
    report = json.loads((run / "report.json").read_text())
    validate_report(report)
    targets, count = report["generation"]["targets"], sum(report["data"]["train_counts"].values())
    assert (targets["kind"], targets["faces"], targets["supplied"]) == ("action_units", count, count)
    assert targets["supplied_by"] == "a network trained on rendered faces"
    assert targets["rendered"]["action_units"]["metric"] == "mean_f1"
    assert any("as targets of synthesis and never as labels" in note for note in report["notes"])
    assert load_network(run / "labeler").tasks == ("action_units",)

    call = ["balance", "--model", str(run), "--data", str(photographs), "--out", str(tmp_path / "set")]
    assert main([*call, "--no-filter"]) == 0
    told = json.loads((tmp_path / "set/balance.json").read_text())["identity"]["targets"]
    assert (told["kind"], told["supplied"]) == ("action_units", count)
    assert f"Of {count} training faces a network supplied them" in (tmp_path / "set/README.md").read_text()

    face = str(next(photographs.rglob("*.png")))
    call = ["synthesize", "--model", str(run), "--out"]
    assert main([*call, str(tmp_path / "smile"), "--action_units", "{AU12: 1, AU6: 0.5}", face]) == 0
    (file,) = (tmp_path / "smile").glob("*.png")
    assert file.name.endswith("-AU12-AU6.png") and Image.open(file).size == (32, 32)
    assert main([*call, str(tmp_path / "fear"), "--expression", "afraid", face]) == 0
    capsys.readouterr()
    for wrong, message in (
        (["--action_units", "{AU99: 1}"], "no action unit 'AU99'"),
        (["--action_units", "{AU12:1}"], "with a space after each colon"),
        (["--action_units", "{AU12: 2}"], "--action_units: give numbers from 0 to 1"),
        (["--valence_arousal", "[0.5, 0.5]"], "the generator in"),
        (["--expression", "fear", "--action_units", "{AU12: 1}"], "give one of --expression"),
        ([], "give one of --expression"),
    ):
        assert main([*call, str(tmp_path / "wrong"), *wrong, face]) == 2
        said = capsys.readouterr().err
        assert message in said and len(said.strip().splitlines()) == 1
        assert not (tmp_path / "wrong").exists()


def test_what_is_supplied_stays_apart(tmp_path):
    torch.manual_seed(0)
    table = render_faces(RenderConfig(counts={"neutral": 6, "fear": 4}, image_size=32, subjects=5))
    units = table.action_units.clone()
    units[::2] = float("nan")
    table = table.replace(action_units=units).with_classes(("neutral", "fear"))
    network = SJMT.sized("tiny", classes=table.classes, tasks=["action_units"])
    save_network(network, tmp_path / "reader")
    config = brief("action_units")
    config.faces.image_size, config.synthesis.labeler = 32, str(tmp_path / "reader")
    here = job(config, table, tmp_path)
    missing = lacking(here)
    assert torch.equal(missing, torch.arange(10) % 2 == 0)
    told = told_faces(here)
    assert torch.equal(told.action_units[~missing], units[~missing]) and not told.action_units.isnan().any()
    assert here.train.action_units[missing].isnan().all()
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, condition="expression"))
    assert told_faces(job(plain, table, tmp_path)) is table


def test_a_labeler_that_does_not_suit(photographs, tmp_path, capsys):
    torch.manual_seed(0)
    readers = {
        "expressions": SJMT.sized("tiny", classes=CLASSES, tasks=["expression"]),
        "large": SJMT.sized("cpu", classes=CLASSES, tasks=["action_units"]),
        "generator": FERSNet.sized("tiny", classes=CLASSES),
    }
    for name, network in readers.items():
        save_network(network, tmp_path / name)
    out = tmp_path / "run"
    call = ["run", "--data", str(photographs), "--out", str(out), "--preset", "smoke", "--model.condition"]
    for options, message in (
        (["action_units", "--synthesis.labeler", str(tmp_path / "expressions")], "does not predict action_units"),
        (["action_units", "--synthesis.labeler", str(tmp_path / "generator")], "does not predict action_units"),
        (
            ["action_units", "--synthesis.labeler", str(tmp_path / "large")],
            "reads faces of 48 px and 1 channel",
        ),
        (["action_units", "--synthesis.labeler", str(tmp_path / "nowhere")], "no model here"),
        (["expression", "--synthesis.labeler", str(tmp_path / "large")], "that is told the expression needs none"),
        (["muscles"], "must be one of expression, action_units, valence_arousal"),
    ):
        assert main([*call, *options]) == 2
        said = capsys.readouterr().err
        assert message in said.replace("\n", " "), said
    assert len(ACTION_UNITS) == 22 and not (out / "guide").exists()


def test_diffusion_too(tmp_path):
    config = preset("smoke", rendered=True, generator="diffusion")
    short = brief("action_units")
    for name in ("recognition", "judge", "joint", "finetune"):
        setattr(config, name, dataclasses.replace(getattr(config, name), steps=2, checkpoint_every_minutes=None))
    config.methods, config.seeds, config.precision = ["gated_balanced"], [0], "no"
    config.model = dataclasses.replace(config.model, condition=short.model.condition)
    config.balance.sampling.steps = 2
    run_main_job(config, tmp_path / "run")
    network = load_network(tmp_path / "run/generator")
    assert network.config.condition == "action_units"
    row = json.loads((tmp_path / "run/balance/seed0/imagefolder/train/metadata.jsonl").read_text().splitlines()[0])
    assert {f"target_{name}" for name in ACTION_UNITS} <= set(row)


def test_the_regularizer_of_classes_needs_classes(tmp_path):
    config = preset("smoke", rendered=True, generator="diffusion")
    config.model.condition, config.synthesis.denoising.balancing = "action_units", 1.0
    with pytest.raises(InputError, match="set balancing to 0"):
        run_main_job(config, tmp_path / "run")
