"""What goes wrong outside: bad input, killed processes, full disks, other people's files."""

import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthmtl.cli import main
from synthmtl.data.readers import image_folder
from synthmtl.models.inference import save_network


def load(name):
    """A module beside this file or below it, under its own name."""
    file = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


faulty_world, _, bad_calls = map(load, ("faulty_world", "bad_data", "bad_calls"))
World, CASES = faulty_world.World, faulty_world.CASES
BALANCE, EVALUATE, PREDICT, RENDER = (getattr(faulty_world, n) for n in ("BALANCE", "EVALUATE", "PREDICT", "RENDER"))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """The files of a world: noise faces of three expressions, and untrained networks for them."""
    job = load("balance/balancing_job")
    world = World(tmp_path_factory.mktemp("pristine"))
    networks = {"generator": job.make_generator(), "judge": job.make_judge(), "model": job.make_judge(seed=2)}
    for part, network in networks.items():
        save_network(network, world.run / part)
    random = np.random.default_rng(0)
    for name, count in (("neutral", 30), ("happiness", 14), ("fear", 10)):
        (world.faces / name).mkdir(parents=True)
        for i in range(count):
            noise = random.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(noise).save(world.faces / name / f"{i}.png")
    shutil.copy(world.faces / "fear" / "0.png", world.root / "face.png")
    return world.root


@pytest.fixture
def world(pristine, tmp_path):
    return World(shutil.copytree(pristine, tmp_path / "world"))


def call(world, arguments):
    """Run a command in a world; ``{faces}``, ``{run}``, ``{face}``, ``{root}`` and ``{out}`` are places in it."""
    places = {name: world.root / name for name in ("faces", "run", "out")}
    places |= {"root": world.root, "face": world.root / "face.png"}
    filled = [re.sub(r"\{(faces|run|out|root|face)\}", lambda match: str(places[match[1]]), a) for a in arguments]
    return main(filled)


def snapshot(root):
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize(("spoil", "arguments", "message"), CASES)
def test_bad_input(world, capfd, spoil, arguments, message):
    spoil(world)
    before = snapshot(world.root)
    capfd.readouterr()
    assert call(world, arguments) == 2
    said = capfd.readouterr().err.splitlines()
    assert re.search(message, said[-1]) and said[-1].startswith("synthmtl: ")
    assert not any("Traceback" in line for line in said)
    assert snapshot(world.root) == before


def test_the_list_is_long():
    assert len(CASES) >= 90 and len({parameters.id for parameters in CASES}) == len(CASES)


# What is left out on request.


def test_bad_images_are_left_out_on_request(world, capfd):
    world.bad.write_bytes(b"")
    (world.faces / "neutral" / "3.png").write_text("no image")
    assert call(world, [*EVALUATE, "--on-bad-image", "skip"]) == 0
    said = capfd.readouterr().err
    assert "left out 2 of 54 images, which cannot be read:" in said
    assert "left out: " in said and "fear/2.png" in said and "neutral/3.png" in said
    assert json.loads((world.root / "out.json").read_text())["count"] > 0


def test_a_file_that_vanishes_while_it_is_read(world, capfd, monkeypatch):
    list_faces = image_folder.list_faces

    def list_and_lose(source):
        listing = list_faces(source)
        world.bad.unlink(missing_ok=True)
        return listing

    monkeypatch.setattr(image_folder, "list_faces", list_and_lose)
    assert call(world, EVALUATE) == 2
    assert re.search(r"fear/2\.png: cannot be read .*No such file.*\n$", capfd.readouterr().err)
    assert call(world, [*EVALUATE, "--on-bad-image", "skip"]) == 0


def test_pickles_are_not_loaded(world):
    bad_calls.spoil_pickle(world)
    assert call(world, PREDICT) == 2
    assert not (world.root / "trace").exists()


# Disks that are full or read-only.


@pytest.fixture(scope="module")
def balanced(pristine, tmp_path_factory):
    """What ``synthmtl balance`` makes of a world, undisturbed."""
    world = World(shutil.copytree(pristine, tmp_path_factory.mktemp("balanced") / "world"))
    assert call(world, [*BALANCE, "--originals"]) == 0
    return contents(world.root / "out")


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def without_places(files):
    """Files of a balancing set but the one that says where its parts were."""
    return {name: data for name, data in files.items() if name != "options.json"}


def test_data_that_changed_since_a_run_was_begun(world, capfd):
    call_it = [*BALANCE, "--no-filter"]
    assert call(world, call_it) == 0
    before = snapshot(world.root / "out")
    shutil.copy(world.faces / "neutral" / "0.png", world.faces / "fear" / "new.png")
    assert call(world, [*call_it, "--on-leak", "warn", "--resume"]) == 2
    assert "another on_leak" in capfd.readouterr().err
    assert call(world, [*call_it, "--resume"]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert re.search(r"out: the data have changed since this run was begun: \w+: .* faces then, .* now", said)
    assert said.endswith("; restore them, or start anew with --overwrite")
    assert snapshot(world.root / "out") == before
    (world.faces / "fear" / "new.png").unlink()
    assert call(world, [*call_it, "--resume"]) == 0


@pytest.mark.parametrize("size", [2000, 20_000])
def test_balancing_on_a_full_disk_goes_on_when_there_is_room(world, balanced, files_of_at_most, capfd, size):
    with files_of_at_most(size):
        assert call(world, [*BALANCE, "--originals"]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"synthmtl: .*/out/.*: File too large: free some space and call again; --resume goes .*", said)
    left = contents(world.root / "out")
    assert all(balanced[name] == data for name, data in without_places(left).items())
    assert call(world, [*BALANCE, "--originals", "--resume"]) == 0
    assert without_places(contents(world.root / "out")) == without_places(balanced)


def test_evaluation_on_a_full_disk_keeps_the_old_scores(world, capfd, monkeypatch):
    assert call(world, EVALUATE) == 0
    before = (world.root / "out.json").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert call(world, [*EVALUATE, "--overwrite", "--split", "train"]) == 2
    assert "out.json: No space left on device: free some space and call again" in capfd.readouterr().err
    assert (world.root / "out.json").read_bytes() == before
    assert not list(world.root.glob(".*"))


@pytest.mark.parametrize(("command", "place"), [(RENDER, "out"), (EVALUATE, "world"), (BALANCE, "out")])
def test_read_only_folders_are_refused_before_the_work(world, capfd, monkeypatch, command, place):
    # Rights do not bind the superuser, under whom tests may run; the system's answer is put in its mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = snapshot(world.root)
    assert call(world, command) == 2
    said = capfd.readouterr().err
    assert re.fullmatch(rf"synthmtl: .*{place}: may not be written, .*world is read-only; give another --out\n", said)
    assert snapshot(world.root) == before


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_turns_out_to_be_read_only(world, capfd, monkeypatch, number):
    def refuse(path, *arguments, **options):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    assert call(world, RENDER) == 2
    assert re.search(r"^synthmtl: .*out: cannot be made \(.*\); give another --out\n$", capfd.readouterr().err)


def test_errors_that_no_user_can_cure_keep_their_traceback(world, monkeypatch):
    def break_down(path, *arguments, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Image, "open", break_down)
    monkeypatch.setattr(os, "fsync", break_down)
    with pytest.raises(OSError, match="Input/output error"):
        call(world, RENDER)


# Kills.


@pytest.fixture(scope="module")
def killed(pristine, tmp_path_factory):
    """What ``killed_jobs.py`` saw."""
    script = Path(__file__).with_name("killed_jobs.py")
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "WORLD_SIZE"))}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path_factory.mktemp("killed")), str(pristine)],
        env=clean | one_thread, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_killed_trainings_end_with_the_same_weights(killed):
    seen = killed["training"]
    assert seen["kills"] >= 20 and seen["inside"] >= 5 and seen["mid_epoch"] >= 3, seen


def test_killed_balancing_ends_with_the_same_files(killed):
    seen = killed["balancing"]
    assert seen["kills"] >= 20 and seen["inside"] >= 5 and seen["pictures"] > 100, seen


def test_processes_with_other_data_are_told(killed):
    assert killed["ranks"]["same"] == ["the same", "the same"]
    for said in killed["ranks"]["other"]:
        assert re.match(r"process 1 of 2 has read other validation faces than process 0: give all processes", said)
