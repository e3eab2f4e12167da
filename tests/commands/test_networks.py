"""Of which pictures ``synthmtl synthesize`` makes faces, and what ``evaluate`` scores."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthmtl.cli import main
from synthmtl.data.inspection import inspect_data
from synthmtl.data.load import load_splits
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.writer import write_image_folder
from synthmtl.experiment import describe_data
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


@pytest.mark.parametrize("kind", ["edits", "makes"])
def test_what_was_made_is_taken_for_no_photograph_in_a_folder_of_data(networks, pictures, tmp_path, kind):
    call = ["synthesize", "--model", str(networks / kind), "--expression", "fear", "--out", str(tmp_path / "out")]
    assert main([*call, *(map(str, pictures) if kind == "edits" else ("--new", "3", "--sampling.steps", "2"))]) == 0
    data = tmp_path / "data"
    for folder, files in (("neutral", pictures), ("fear", (tmp_path / "out").glob("*.png"))):
        (data / folder).mkdir(parents=True)
        for file in files:
            shutil.copy(file, data / folder)
    assert inspect_data(data)["synthetic"] == {"all": 3}
    table = read_image_folder(data, image_size=32, channels=1)["all"]
    assert table.synthetic.tolist() == (table.expression == table.classes.index("fear")).tolist()


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


def test_faces_that_the_run_trained_on_are_not_scored_as_held_out(networks, tmp_path, capsys):
    """One picture more puts most faces into other splits."""
    data, run, out = tmp_path / "faces", tmp_path / "run", tmp_path / "scores.json"
    for name, seed in {"neutral": 1, "happiness": 2, "fear": 3}.items():
        for i in range(12):
            (data / name).mkdir(parents=True, exist_ok=True)
            write_noise(data / name / f"{i:02d}.png", 100 * seed + i)
    splits = load_splits(data, image_size=32, channels=1, split_seed=1)
    save_network(job.make_judge(), run / "model")
    told = {"path": str(data), "image_size": 32, "color": False, "split_seed": 1, "on_leak": "drop"}
    (run / "options.json").write_text(json.dumps({"faces": told}))
    (run / "data.json").write_text(json.dumps(describe_data(splits.tables())))
    call = ["evaluate", "--model", str(run / "model"), "--data", str(data), "--out", str(out), "--overwrite"]

    def notes(*more):
        assert main([*call, *more]) == 0
        return [note for note in json.loads(out.read_text())["notes"] if str(run) in note]

    assert not any(notes("--split", split) for split in ("train", "validation", "test"))
    assert len(notes("--split_seed", "2")) == 1
    out.unlink()
    write_noise(data / "fear" / "new.png", 999)
    for split in ("train", "validation", "test"):
        capsys.readouterr()
        assert main([*call, "--split", split]) == 2 and not out.exists()
        (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("synthmtl: "))
        assert f"{data}: not split as in {run} (36 faces" in said and "fear 12 and 13" in said
        assert said.endswith("or choose a --split_seed all the same")
    (note,) = notes("--split_seed", "1")
    assert "which may have trained on some faces that are held out here" in note
    (run / "data.json").unlink()
    assert "has no record of these faces" in notes()[0]
