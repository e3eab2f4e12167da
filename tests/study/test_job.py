"""What is wrong with the faces of a study is said before anything is trained."""

import json

import pytest
import torch

from synthmtl.cli import main
from synthmtl.data.writer import write_image_folder
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.report.study_schema import validate_study
from synthmtl.study import preset
from synthmtl.study.job import UNTOLD, load_study
from synthmtl.training import build_accelerator

TINY = ["--preset", "smoke", "--precision", "no", "--joint.steps", "2", "--grid.rho", "[0.0]", "--grid.seeds", "[0]"]


@pytest.fixture
def folder(tmp_path):
    """folder(**changes) writes three splits of rendered faces, ``changes`` by split (FaceTable → FaceTable)."""

    def write(**changes):
        for split, offset in (("train", 0), ("validation", 100), ("test", 200)):
            render = RenderConfig(counts={"neutral": 12, "fear": 12}, image_size=32, subjects=8, subject_offset=offset)
            faces = render_faces(render).replace(attributes={})
            write_image_folder(changes.get(split, lambda table: table)(faces), tmp_path / "faces", split)
        return tmp_path / "faces"

    return write


def study(faces, out, *options):
    return main(["study", "--out", str(out), "--faces.path", str(faces), *TINY, *options])


def without(*tasks):
    def change(table):
        columns = {task: getattr(table, task) for task in tasks}
        return table.replace(
            **{t: torch.full_like(c, -1 if t == "expression" else torch.nan) for t, c in columns.items()}
        )

    return change


def results_of(out):
    results = json.loads((out / "results.json").read_text())
    validate_study(results)
    return results


def test_validation_faces_without_an_expression_are_refused_where_they_select(folder, tmp_path, capsys):
    faces = folder(validation=without("expression"))
    assert study(faces, tmp_path / "out", "--grid.sharing", "[none,hard]") == 2
    said = capsys.readouterr().err
    assert "--tasks: expression cannot be scored, no validation face has its label" in said
    assert not (tmp_path / "out").exists()


def test_heads_need_no_labels_in_validation(folder, tmp_path):
    faces, out = folder(validation=without("landmarks", "valence_arousal")), tmp_path / "out"
    assert study(faces, out, "--tasks", "[landmarks,valence_arousal]", "--grid.sharing", "[hard]") == 0
    (cell,) = results_of(out)["cells"]
    assert "nme" in cell["metrics"] and "validation_nme" not in cell["metrics"]


def test_faces_need_no_expression_where_no_task_is_about_it(folder, tmp_path):
    """As those of DISFA, 300-W and WFLW."""
    faces, out = folder(**dict.fromkeys(("train", "validation", "test"), without("expression"))), tmp_path / "out"
    assert study(faces, out, "--tasks", "[action_units,landmarks]", "--grid.sharing", "[leaky]") == 0
    results = results_of(out)
    assert {"mean_f1", "nme", "probe/joint/expression"} <= set(results["cells"][0]["metrics"])
    assert results["data"]["classes"] == [] and results["data"]["test_faces"] == 24
    assert "tested on 24 faces" in (out / "report.html").read_text()


def test_interventions_look_at_labelled_faces(folder, tmp_path):
    """However few of the test faces these are, and wherever they stand."""

    def few(table):
        kept = torch.zeros(len(table), dtype=torch.bool)
        kept[[1, 2, 4, 5]] = True
        table = table.replace(landmarks=torch.where(kept[:, None, None], table.landmarks, torch.nan))
        return table.replace(action_units=torch.where(kept[:, None].roll(9, 0), table.action_units, torch.nan))

    faces, out = folder(test=few), tmp_path / "out"
    options = ["--grid.sharing", "[leaky]", "--measures.intervention_faces", "4"]
    assert study(faces, out, "--tasks", "[landmarks,action_units]", *options) == 0
    (cell,) = results_of(out)["cells"]
    assert {"intervention/swap/all/nme", "intervention/swap/all/mean_f1"} <= set(cell["metrics"])


def test_too_few_faces_to_probe_are_refused(folder, tmp_path, capsys):
    faces, out = folder(), tmp_path / "out"
    few = ["--measures.held_out_per_class", "4", "--measures.held_out_subjects", "4", "--grid.sharing", "[hard]"]
    assert study(faces, out, *few) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--measures.held_out_per_class 4 of --measures.held_out_subjects 4 are too few faces to probe with" in said
    assert not out.exists()
    assert study(faces, out, *few, "--measures.probes", "false") == 0


def test_where_edits_are_told_nothing_the_error_is_that_of_such_edits(tmp_path):
    config = preset("smoke")
    told = load_study(config, tmp_path, build_accelerator(precision="no")).held_out
    config.synthesis.labels = False
    untold = load_study(config, tmp_path, build_accelerator(precision="no")).held_out
    assert told.targets.expression.unique().numel() > 1
    assert untold.targets.expression.unique().tolist() == [UNTOLD]
    assert torch.equal(untold.targets.images, told.targets.images)
    assert torch.equal(untold.faces.expression, told.faces.expression)


def test_faces_that_no_edit_can_be_drawn_from_are_refused(folder, tmp_path, capsys):
    """Synthesized faces teach no edit, whatever they show."""
    faces = folder(train=lambda table: table.replace(synthetic=table.expression > 0))
    assert study(faces, tmp_path / "out", "--grid.sharing", "[hard]") == 2
    assert "editing needs real faces of at least two expressions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
