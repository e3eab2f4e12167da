"""The main job with a diffusion model as the generator, and the commands on what it leaves."""

import dataclasses
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from synthmtl.cli import main
from synthmtl.data.streams import EditStream
from synthmtl.data.writer import write_image_folder
from synthmtl.experiment import preset, run_main_job
from synthmtl.faces import RenderConfig, render_faces
from synthmtl.models import DiffusionFERSNet, FERSNet
from synthmtl.models.inference import load_network
from synthmtl.report import validate_report

WEIGHTS = "diffusion_pytorch_model.safetensors"


def brief(*methods):
    """The smoke preset, shorter still."""
    config = preset("smoke", rendered=True, generator="diffusion")
    config.methods, config.seeds, config.precision = list(methods), [0], "no"
    config.balance.sampling.steps = 2
    for name in ("recognition", "judge", "joint", "finetune"):
        part = dataclasses.replace(getattr(config, name), steps=4, checkpoint_every_minutes=None)
        setattr(config, name, part)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("diffusion") / "run"
    run_main_job(brief("hard_sharing", "gated", "gated_balanced"), out)
    return out


def test_the_job_ends_in_a_report(run):
    report = json.loads((run / "report.json").read_text())
    validate_report(report)
    assert list(report["methods"]) == ["hard_sharing", "gated", "gated_balanced"]
    assert report["generation"]["generator"] == "diffusion"
    assert set(report["generation"]["judged_recall"]) == set(report["data"]["classes"])
    assert report["balance"]["kept"] == report["balance"]["requested"]
    assert Image.open(run / "figures/contact_sheet.png").size[0] > 9 * 32
    assert (run / "judge").is_dir() and not (run / "guide").exists()


def test_both_networks_were_trained_by_denoising(run):
    gated, hard = (load_network(run / f"joint/{name}-seed0") for name in ("gated", "hard"))
    assert isinstance(gated, DiffusionFERSNet) and isinstance(hard, DiffusionFERSNet)
    assert (gated.config.sharing, hard.config.sharing) == ("leaky", "hard")
    assert hard.recognition_parameters() == pytest.approx(gated.recognition_parameters(), rel=0.02)
    assert any(p.abs().max() > 0 for p in gated.adapter.parameters())  # pairs teach the adapters, which begin at zero
    losses = json.loads((run / "joint/gated-seed0/losses.jsonl").read_text().splitlines()[0])["losses"]
    assert {"generator/denoising", "generator/expression"} <= set(losses)
    assert not any(name.startswith("critic/") for name in losses)


def test_fine_tuning_leaves_the_denoiser_alone(run):
    before, after = (load_file(run / part / WEIGHTS) for part in ("generator", "cells/gated/seed0/model"))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"encoder", "head"}


def test_the_balancing_set_says_how_it_was_sampled(run):
    folder = run / "balance/seed0/imagefolder"
    settings = json.loads((folder / "balance.json").read_text())["identity"]["settings"]
    assert settings["sampling"] == {
        "steps": 2, "guidance_scale": 1.0, "solver": None, "eta": 0.0, "strength": None
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "DiffusionFERSNet.synthesize(" in card and "spread=1.0, steps=2, guidance_scale=1.0, eta=0.0)" in card


def test_interrupted_joint_training_resumes_to_the_bit(run, tmp_path, monkeypatch):
    config = brief("gated")
    config.joint.checkpoint_every_steps = 1
    whole = EditStream.__call__

    def interrupted(stream, step):
        if step == 2:
            raise KeyboardInterrupt
        return whole(stream, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EditStream, "__call__", interrupted)
        run_main_job(config, tmp_path / "run")
    assert (tmp_path / "run/joint/gated-seed0/checkpoints/step-000002").is_dir()
    run_main_job(config, tmp_path / "run", resume=True)
    for part in (f"joint/gated-seed0/model/{WEIGHTS}", f"cells/gated/seed0/model/{WEIGHTS}"):
        assert (tmp_path / "run" / part).read_bytes() == (run / part).read_bytes(), part


def test_faces_without_subjects_are_taught_by_rendered_pairs(tmp_path, capsys):
    counts = {"neutral": 12, "happiness": 12, "anger": 6}
    table = render_faces(RenderConfig(counts=counts, image_size=32, subjects=10, style="wild", seed=5))
    unknown = torch.full_like(table.subject, -1)
    write_image_folder(table.replace(subject=unknown, session=unknown, attributes={}), tmp_path / "faces")
    call = ["run", "--preset", "smoke", "--model.generator", "diffusion", "--methods", "[gated]", "--seeds", "[0]"]
    call += ["--data", str(tmp_path / "faces"), "--out", str(tmp_path / "run"), "--model.prediction", "flow"]
    call += [part for name in ("joint", "finetune") for part in (f"--{name}.steps", "2")]
    assert main([*call, "--synthesis.denoising.balancing", "0.1", "--synthesis.denoising.times", "logit_normal"]) == 0
    assert "Synthesis is trained mixed" in capsys.readouterr().err
    assert load_network(tmp_path / "run", part="generator").config.prediction == "flow"
    losses = json.loads((tmp_path / "run/joint/gated-seed0/losses.jsonl").read_text().splitlines()[0])["losses"]
    assert {"generator/denoising", "generator/balancing"} <= set(losses)


def test_balance(run, rendered_folder, tmp_path, capsys):
    call = ["balance", "--model", str(run), "--data", str(rendered_folder), "--strategy", "{anger: 14}"]
    call += ["--out", str(tmp_path / "set"), "--sampling.solver", "ddim", "--sampling.eta", "0.5", "--json"]
    assert main([*call, "--sampling.steps", "2"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["kept"] == summary["requested"] and sum(summary["kept"].values())
    assert main([*call, "--sampling.steps", "3", "--resume"]) == 2
    assert "another sampling.steps (2 there, 3 now)" in capsys.readouterr().err.splitlines()[-1]


def test_synthesize(run, rendered_folder, tmp_path):
    faces = [str(path) for path in sorted(rendered_folder.rglob("*.png"))[:2]]
    call = ["synthesize", "--model", str(run), "--expression", "surprise"]

    def made(name, *options):
        assert main([*call, "--out", str(tmp_path / name), *options, *faces]) == 0
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("*.png"))]

    few = made("few", "--sampling.steps", "2")
    assert len(few) == 2 and few == made("again", "--sampling.steps", "2")
    assert few != made("guided", "--sampling.steps", "2", "--sampling.guidance_scale", "3")
    assert few != made("noised", "--sampling.steps", "2", "--sampling.strength", "0.5")


def test_new_faces_can_be_made_and_balanced_with(run, rendered_folder, tmp_path, capsys):
    call = ["synthesize", "--model", str(run), "--expression", "fear", "--sampling.steps", "2", "--json"]
    assert main([*call, "--out", str(tmp_path / "new"), "--new", "3", "--seed", "5"]) == 0
    files = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    faces = [Image.open(file).tobytes() for file in files]
    assert len(set(faces)) == 3 and all("-new-fear" in file for file in files)
    assert main([*call, "--out", str(tmp_path / "last"), "--new", "1", "--seed", "7"]) == 0
    assert Image.open(next((tmp_path / "last").glob("*.png"))).tobytes() == faces[2]
    call = ["balance", "--model", str(run), "--data", str(rendered_folder), "--strategy", "{anger: 14}"]
    call += ["--sources", "none", "--sampling.steps", "2", "--out", str(tmp_path / "set"), "--originals", "--json"]
    assert main(call) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["kept"] == summary["requested"] and sum(summary["kept"].values())


def test_new_faces_go_through_the_whole_job(tmp_path):
    config = brief("gated_balanced", "oracle")
    config.balance.sources = "none"
    report = run_main_job(config, tmp_path / "run")
    validate_report(report)
    assert report["balance"]["kept"] == report["balance"]["requested"]
    assert set(report["generation"]["judged_recall"]) == set(report["data"]["classes"])
    assert Image.open(tmp_path / "run/figures/contact_sheet.png").size[0] > 8 * 32


@pytest.mark.parametrize("command", ["balance", "synthesize"])
def test_sampling_options_that_do_not_suit(run, rendered_folder, tmp_path, capsys, command):
    torch.manual_seed(0)
    FERSNet.sized("tiny", classes=("neutral", "happiness")).save_pretrained(tmp_path / "fersnet")
    rest = {
        "balance": ["--data", str(rendered_folder)],
        "synthesize": ["--expression", "happiness", str(next(rendered_folder.rglob("*.png")))],
    }

    def said(model, *options):
        assert main([command, "--model", str(model), "--out", str(tmp_path / "out"), *options, *rest[command]]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "no solver 'flow' for v prediction: use one of dpm, ddim" in said(run, "--sampling.solver", "flow")
    assert "only the solver ddim adds noise" in said(run, "--sampling.eta", "1")
    assert "number of sampling steps must lie in [1, 500], not 0" in said(run, "--sampling.steps", "0")
    assert "strength lies in (0, 1], not 2.0" in said(run, "--sampling.strength", "2")
    assert "are for a diffusion generator" in said(tmp_path / "fersnet", "--sampling.steps", "4")


def test_new_faces_that_cannot_be_made(run, rendered_folder, tmp_path, capsys):
    torch.manual_seed(0)
    FERSNet.sized("tiny", classes=("neutral", "happiness")).save_pretrained(tmp_path / "fersnet")
    face = str(next(rendered_folder.rglob("*.png")))

    def said(*options, model=run):
        call = ["synthesize", "--model", str(model), "--expression", "happiness", "--out", str(tmp_path / "out")]
        assert main([*call, *options]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "name images of faces, or ask for new faces by --new N" in said()
    assert "leave the images out, or --new" in said("--new", "2", face)
    assert "--new is 0: at least one face" in said("--new", "0")
    assert "--new has none: leave it out" in said("--new", "2", "--sampling.strength", "0.5")
    assert "a diffusion generator makes new ones" in said("--new", "2", model=tmp_path / "fersnet")
