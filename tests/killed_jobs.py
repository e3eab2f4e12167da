"""Jobs that are killed again and again, for test_faults.py: ``killed_jobs.py OUT WORLD``.

One process imports everything and forks a child for each try, since the imports take longer than the jobs. It prints
what it saw as JSON, and fails where a job does not come out as without a kill.
"""

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image
from safetensors.torch import load_file

from synthmtl.balance import synthesize_balancing_set
from synthmtl.cli import main as command_line
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.training import build_accelerator, check_same_data, latest, read_history

KILLS = 22
"""At least so many of each job."""

Job = Callable[[Path], None]


def load(path: str) -> ModuleType:
    """A module of the tests by its file."""
    file = Path(__file__).parent / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(job: Job, *arguments) -> int:
    """Begin a job in a child that shares this process's imports; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            job(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ends_by_itself(pid: int, seconds: float, begun: Callable[[], bool] = lambda: True) -> bool:
    """Whether a child ends, well, within some seconds from when it has ``begun``; otherwise it is killed then."""
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        if deadline is None and begun():
            deadline = time.monotonic() + seconds
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, f"the job failed with {status}"
            return True
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def progress(folder: Path) -> set[tuple[str, int]]:
    """What the work has left so far: weights, chunks and pictures, with the times of their writing."""
    found = set()
    for where, _, names in os.walk(folder):  # which, unlike a glob, bears folders that go meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if name.endswith((".safetensors", ".png")):
                    found.add((name, os.stat(os.path.join(where, name)).st_mtime_ns))
    return found


def check_whole(folder: Path) -> None:
    """No file that bears a final name may be half-written."""
    for path in folder.rglob("*"):
        if not path.is_file() or any(part.startswith(".step-") or part.endswith(".part") for part in path.parts):
            continue
        if path.name == "losses.jsonl":
            read_history(path)
        elif path.suffix == ".jsonl":
            assert path.read_text().endswith("\n") and all(map(json.loads, path.read_text().splitlines()))
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
        else:
            assert path.suffix == ".md" and path.read_text().endswith("\n"), path


def kill_again_and_again(
    out: Path,
    job: Job,
    *,
    check: Callable[[Path], None],
    compare: Callable[[Path, Path], None],
    seed: int,
) -> dict:
    """Run a job undisturbed, then others in new folders until enough of their tries were killed.

    Half of the moments lie anywhere in most of the job's duration, the other half behind the first thing that a try
    brings about: by the clock alone many would meet tries that only read what is there. Where tries end unhurt the
    moments come sooner, since the duration was measured on a busier machine.

    Args:
        out: where the folders go.
        job: begins, or goes on, in a folder.
        check: called with the folder after each kill.
        compare: called with the undisturbed folder and each one that was finished in spite of kills.
        seed: of the moments.
    """
    whole, moments = out / "whole", random.Random(seed)
    started = time.monotonic()
    assert ends_by_itself(start(job, whole), 300), "the undisturbed job took too long"
    duration = latest_moment = time.monotonic() - started
    kills, number = 0, 0

    def survives(folder: Path) -> bool:
        if kills >= KILLS:
            return ends_by_itself(start(job, folder), 300)
        before, moment = progress(folder), moments.random()
        if kills % 2:
            return ends_by_itself(start(job, folder), moment * latest_moment / 4, lambda: progress(folder) - before)
        return ends_by_itself(start(job, folder), 0.7 * moment * latest_moment)

    while kills < KILLS:
        folder = out / f"killed-{number}"
        while not survives(folder):
            kills += 1
            check(folder)
        latest_moment *= 0.8
        compare(whole, folder)
        shutil.rmtree(folder)
        number += 1
    return {"kills": kills, "jobs": number, "seconds": round(duration, 2)}


def training(out: Path) -> dict:
    """An adversarial training, with dropout in its views, averaged and best weights."""
    launched = load("training/launched.py")
    steps = []

    def job(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        launched.main(folder, 24, 10, checkpoint_every=3)

    def check(folder: Path) -> None:
        check_whole(folder)
        found = latest(folder / "checkpoints")
        steps.append(int(found.name.removeprefix("step-")) if found else 0)

    def compare(whole: Path, folder: Path) -> None:
        records = [read_history(each / "losses.jsonl") for each in (whole, folder)]
        for record in (*records[0], *records[1]):
            record.pop("images_per_second", None)
        assert records[0] == records[1]
        files = [contents(each) for each in (whole, folder)]
        weights = [{k: v for k, v in each.items() if k.endswith((".safetensors", ".pt"))} for each in files]
        assert weights[0] == weights[1] and "final.safetensors" in weights[0] and len(weights[0]) == 7

    found = kill_again_and_again(out, job, check=check, compare=compare, seed=1)
    inside = [step for step in steps if 0 < step < 24]
    return found | {"inside": len(inside), "mid_epoch": sum(step % 5 > 0 for step in inside)}


def balancing(out: Path, world: Path) -> dict:
    """``synthmtl balance`` in chunks of eight faces."""
    synthesize_balancing_set.__kwdefaults__["batch_size"] = 8
    inside = []

    def job(folder: Path) -> None:
        call = ["balance", "--model", world / "run", "--data", world / "faces", "--originals", "--resume"]
        call += ["--strategy", "{neutral: 45, happiness: 45, fear: 45}"]
        assert command_line([*map(str, call), "--out", str(folder)]) == 0

    def check(folder: Path) -> None:
        check_whole(folder)
        begun = any(folder.rglob("0*.safetensors")) or any(folder.rglob("*.png"))
        inside.append(begun and not (folder / "train" / "metadata.jsonl").exists())

    def compare(whole: Path, folder: Path) -> None:
        expected, found = contents(whole), contents(folder)
        assert expected.keys() == found.keys(), sorted(expected.keys() ^ found.keys())
        assert expected == found, [name for name in expected if expected[name] != found[name]]
        assert {"balance.json", "contact_sheet.png", "README.md", "train/metadata.jsonl"} <= found.keys()

    found = kill_again_and_again(out, job, check=check, compare=compare, seed=2)
    return found | {"inside": sum(inside), "pictures": len(list((out / "whole").rglob("*.png")))}


def ranks(out: Path) -> dict:
    """Two processes that have read the same faces, and two that have not."""
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    table = FaceTable(images=images, classes=("neutral", "fear"), expression=torch.arange(6) % 2)
    other = table.replace(images=images ^ torch.ones((), dtype=torch.uint8))

    def job(rank: int, port: int, validation: FaceTable, note: Path) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
        accelerator = build_accelerator()
        try:
            check_same_data(accelerator, {"train": table, "validation": validation})
            note.write_text("the same")
        except InputError as error:
            note.write_text(str(error))

    said = {}
    for name, second in (("same", table), ("other", other)):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
        notes = [out / f"{name}-{rank}" for rank in (0, 1)]
        pids = [start(job, rank, port, faces, notes[rank]) for rank, faces in enumerate((table, second))]
        assert all([ends_by_itself(pid, 60) for pid in pids])
        said[name] = [note.read_text() for note in notes]
    return said


if __name__ == "__main__":
    out, world = map(Path, sys.argv[1:])
    importlib.import_module("synthmtl.experiment")  # for the children, too
    gc.freeze()  # what is never looked at stays shared with the children
    threads = Path("/proc/self/task")
    assert not threads.is_dir() or len(list(threads.iterdir())) == 1, "a fork would lose threads"
    for name in ("training", "balancing", "ranks"):
        (out / name).mkdir()
    found = {"training": training(out / "training"), "balancing": balancing(out / "balancing", world)}
    print(json.dumps(found | {"ranks": ranks(out / "ranks")}))
