"""Of which pictures ``synthmtl synthesize`` makes faces, and what ``evaluate`` scores."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthmtl.cli import main
from synthmtl.data.writer import write_image_folder
from synthmtl.models.inference import save_network

_spec = importlib.util.spec_from_file_location(
    "balancing_job", Path(__file__).parents[1] / "balance" / "balancing_job.py"
)
job = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(job)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Untrained networks by what they do: ``edits``, ``makes`` new faces, ``recognizes``."""
    root = tmp_path_factory.mktemp("networks")
    networks = {"edits": job.make_generator(), "makes": job.make_diffusion(), "recognizes": job.make_judge()}
    for name, network in networks.items():
        save_network(network, root / name)
    return root


@pytest.fixture
def pictures(tmp_path):
    """Three files of noise faces."""
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for seed, file in enumerate(files):
        write_noise(file, seed)
    return files


def write_noise(file, seed, **how):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **how)


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_edits_of_other_pictures_under_the_same_names_are_not_passed_off(networks, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["synthesize", "--model", str(networks / "edits"), "--expression", "fear", "--out", str(out)]
    call += [*map(str, pictures), "--resume"]
    assert main(call) == 0
    made = contents(out)
    write_noise(pictures[1], seed=9)
    capsys.readouterr()
    assert main(call) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(out / "00000-a-fear.png")] and said.err.count("\n") == 1
    assert f"{pictures[1]}: has changed since {out / '00001-b-fear.png'} was made of it; restore it" in said.err
    assert contents(out) == made
    write_noise(pictures[1], seed=1, compress_level=0)  # other bytes, the same picture
    assert main(call) == 0
    assert contents(out) == made


@pytest.mark.parametrize("content", [b"", None])
def test_an_edit_that_does_not_say_of_what_it_was_made_is_made_again(networks, pictures, tmp_path, content):
    out = tmp_path / "out"
    call = ["synthesize", "--model", str(networks / "edits"), "--expression", "fear", "--out", str(out)]
    call += [*map(str, pictures), "--resume"]
    assert main(call) == 0
    edit, made = out / "00001-b-fear.png", contents(out)
    if content is None:
        write_noise(edit, seed=9)
    else:
        edit.write_bytes(content)
    assert main(call) == 0
    assert {name: data for name, (data, _) in contents(out).items()} == {name: data for name, (data, _) in made.items()}


def test_new_faces_have_no_source_that_could_change(networks, tmp_path):
    out = tmp_path / "out"
    call = ["synthesize", "--model", str(networks / "makes"), "--expression", "fear", "--out", str(out), "--new", "2"]
    call += ["--sampling.steps", "2", "--resume"]
    assert main(call) == 0
    made = contents(out)
    assert main(call) == 0
    assert contents(out) == made and len(made) == 3  # beside them the options


def test_edits_may_lie_beside_their_sources(networks, pictures):
    """Files are read, and not all that is in their folder."""
    call = ["synthesize", "--model", str(networks / "edits"), "--expression", "fear", str(pictures[0])]
    assert main([*call, "--out", str(pictures[0].parent / "edited")]) == 0


def test_what_is_split_off_to_be_scored_need_not_show_every_class(networks, tmp_path):
    write_image_folder(job.make_faces({"neutral": 30, "happiness": 30}, subjects=0), tmp_path / "faces")
    call = ["evaluate", "--model", str(networks / "recognizes"), "--data", str(tmp_path / "faces")]
    assert main([*call, "--out", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["absent"] == ["fear"] and 0 < scores["count"] < 20
