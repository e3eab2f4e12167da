"""Pairs of photographs in the main job: which faces are mapped, what teaches, and what the run says of it."""

import dataclasses
import json

import pytest
import torch
from PIL import Image

from synthmtl.cli import main
from synthmtl.data import FaceTable
from synthmtl.data.load import Splits
from synthmtl.data.pairs import PairIndex
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.experiment import preset, run_main_job
from synthmtl.experiment.generation import edit_sources, taught_edits
from synthmtl.experiment.mapped import careless, map_photographs, mapped_pairs, neutral_rows
from synthmtl.experiment.stages import Job
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.models import SJMT
from synthmtl.models.inference import load_network, save_network
from synthmtl.report import validate_report
from synthmtl.training import build_accelerator

CLASSES = ("neutral", "happiness", "fear")


def photographs(**columns):
    """Faces without pairs, as photographs are; ``columns`` are kept of what rendered faces know."""
    config = RenderConfig(counts=dict(zip(CLASSES, (12, 12, 6), strict=True)), image_size=32, subjects=30, seed=2)
    table = render_faces(config).with_classes(CLASSES)
    known = {name: getattr(table, name) for name in columns if columns[name]}
    return FaceTable(table.images, table.classes, expression=table.expression, **known)


def brief():
    config = preset("smoke", rendered=False)
    config.methods, config.seeds, config.precision = ["gated", "gated_balanced"], [0], "no"
    config.faces.image_size, config.synthesis.mapped_share = 32, 0.4
    for name in ("recognition", "judge", "joint", "finetune"):
        part = dataclasses.replace(getattr(config, name), steps=3, checkpoint_every_minutes=None)
        setattr(config, name, part)
    return config


def splits_of(table):
    return Splits(train=table, validation=table, test=table, notes=[])


def job(table, out, config=None):
    out.mkdir(exist_ok=True)
    return Job(config or brief(), out, splits_of(table), build_accelerator(precision="no"), progress=False)


def test_photographs_with_landmarks_become_pairs(tmp_path):
    table = photographs(landmarks=True)
    here = job(table, tmp_path)
    folder = map_photographs(here)
    assert not (tmp_path / "landmarks").exists()  # nothing had to be read
    assert json.loads((folder / "result.json").read_text()) == {"photographs": 12, "mapped": 12}
    pairs = mapped_pairs(here)
    assert pairs.counts() == dict.fromkeys(CLASSES, 12)
    # Every face has both other expressions of the same photograph as partners, and no other face.
    index = PairIndex(pairs)
    assert len(index) == 36 and set(index.counts.tolist()) == {2}
    neutral = pairs.images[pairs.expression == 0]
    known = {face.numpy().tobytes() for face in table.images[neutral_rows(table)]}
    assert {face.numpy().tobytes() for face in neutral} == known
    assert Image.open(folder / "sheet.png").width > 4 * 32


def test_it_is_the_same_again_and_bounded(tmp_path):
    table = photographs(landmarks=True)
    first, again = (job(table, tmp_path / name) for name in ("first", "again"))
    for here in (first, again):
        map_photographs(here)
    assert torch.equal(mapped_pairs(first).images, mapped_pairs(again).images)
    config = brief()
    config.synthesis.mapped_subjects = 5
    few = job(table, tmp_path / "few", config)
    map_photographs(few)
    assert torch.equal(mapped_pairs(few).images, mapped_pairs(first).images[: 5 * len(CLASSES)])


def test_what_may_be_mapped():
    table = photographs()
    assert torch.equal(neutral_rows(table), torch.where(table.expression == 0)[0])
    made = table.replace(synthetic=torch.arange(len(table)) % 2 == 0)
    assert torch.equal(neutral_rows(made), torch.where((table.expression == 0) & ~made.synthetic)[0])
    assert not len(neutral_rows(table.select(table.expression > 0).with_classes(CLASSES[1:])))


def test_framing_is_careless_at_least():
    config = brief().augmentation
    assert careless(config).rotation_degrees == 20 and careless(config).scale == 0.25
    wild = dataclasses.replace(config, rotation_degrees=40.0, flip=0.0)
    assert careless(wild).rotation_degrees == 40 and careless(wild).flip == 0


def test_edits_come_from_three_kinds_of_faces(tmp_path):
    table = photographs(landmarks=True)
    config = brief()
    config.synthesis = dataclasses.replace(config.synthesis, edits=10, rendered_share=0.2, mapped_share=0.5)
    here = job(table, tmp_path, config)
    assert taught_edits(here, 0.5) == (2, 5) and taught_edits(here) == (2, 0)
    usual = config.synthesis
    here.config.synthesis = dataclasses.replace(usual, rendered_share=0.1)
    with pytest.raises(InputError, match=r"rendered_share is 0\.1: it must make at least 2 of 10 edits rendered pairs"):
        taught_edits(here)  # the first of a step is not compared with its target
    here.config.synthesis = usual
    map_photographs(here)
    rendered, mapped, own = edit_sources(here, "mixed", 0, mapped_pairs(here))
    assert [part.count for part in (rendered, mapped, own)] == [2, 5, 3]
    assert [part.sampler.paired for part in (rendered, mapped, own)] == [True, True, False]
    assert rendered.augmentation.scale == 0.25 and mapped.augmentation is None and own.augmentation is None
    assert own.table is table
    assert [part.count for part in edit_sources(here, "mixed", 0)] == [2, 8]


def test_generators_told_action_units_are_told_those_of_mapped_faces(tmp_path):
    torch.manual_seed(0)
    save_network(SJMT.sized("tiny", classes=CLASSES, tasks=["action_units"]), tmp_path / "reader")
    config = brief()
    config.model.condition, config.synthesis.labeler = "action_units", str(tmp_path / "reader")
    here = job(photographs(landmarks=True), tmp_path / "run", config)
    map_photographs(here)
    for part in edit_sources(here, "mixed", 0, mapped_pairs(here)):
        assert not part.table.action_units.isnan().any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image folder whose faces carry expressions and nothing else."""
    path = tmp_path_factory.mktemp("photographs") / "data"
    write_image_folder(photographs(), path)
    return path


def test_a_run_reads_landmarks_by_itself_and_says_so(folder, tmp_path):
    """Three steps teach a network nothing about landmarks: it finds nobody alike, and the run goes on without."""
    config = brief()
    config.faces.path = str(folder)
    run = tmp_path / "run"
    report = run_main_job(config, run)
    validate_report(report)
    assert load_network(run / "landmarks").tasks == ("landmarks",)
    found = json.loads((run / "mapped/result.json").read_text())
    assert report["generation"]["mapped"] == found
    said = [note for note in report["notes"] if "neutral training face" in note]
    assert len(said) == 1 and (
        str(found["mapped"]) in said[0] if found["mapped"] else "rendered pairs alone" in said[0]
    )
    # Resumed, nothing is read or mapped again.
    before = {path: path.stat().st_mtime_ns for path in (run / "mapped").iterdir()}
    run_main_job(config, run, resume=True)
    assert {path: path.stat().st_mtime_ns for path in (run / "mapped").iterdir()} == before


def test_the_report_shows_what_taught(tmp_path, monkeypatch):
    """With landmarks that are right, as of a reader that has learned, faces are mapped, taught and shown."""
    table = photographs(landmarks=True)
    config = brief()
    monkeypatch.setattr("synthmtl.experiment.main_job.load_data", lambda faces: (splits_of(table), None))
    config.faces.path = "photographs"
    report = run_main_job(config, tmp_path / "run")
    found = report["generation"]["mapped"]
    assert found["mapped"] > 0 and (tmp_path / "run/mapped/sheet.png").is_file()
    page = (tmp_path / "run/report.html").read_text()
    assert "expression mapping made of them" in page.replace("\n", " ")


def test_rendered_faces_are_not_mapped(tmp_path):
    config = brief()
    config = dataclasses.replace(config, faces=dataclasses.replace(preset("smoke", rendered=True).faces))
    run_main_job(config, tmp_path / "run")
    assert not (tmp_path / "run/mapped").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--synthesis.mapped_share", "1.0"], "synthesis.mapped_share"),
        (["--synthesis.mapped_share", "0.6"], "leave 4 rendered ones, and at a mapped share of 0.6 5 mapped ones"),
        (["--synthesis.mapped_subjects", "0"], "synthesis.mapped_subjects"),
    ],
)
def test_shares_that_do_not_fit(folder, tmp_path, capsys, options, message):
    out = tmp_path / "run"
    assert main(["run", "--data", str(folder), "--out", str(out), "--preset", "smoke", *options]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1] and not out.exists()
