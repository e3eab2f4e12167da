import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from PIL import Image

from synthmtl.cli import main
from synthmtl.files import write_text


@pytest.fixture(scope="module")
def sources(job, tmp_path_factory):
    """Folders of a generator, a judge and an image folder with splits."""
    root = tmp_path_factory.mktemp("sources")
    job.make_generator().save_pretrained(root / "model")
    job.make_judge().save_pretrained(root / "model" / "judge")
    for split, counts, seed in (
        ("train", {"neutral": 12, "happiness": 6, "fear": 3}, 0),
        ("validation", dict.fromkeys(job.CLASSES, 6), 5),
        ("test", dict.fromkeys(job.CLASSES, 2), 6),
    ):
        table = job.make_faces(counts, seed=seed)
        for i, (image, k) in enumerate(zip(table.images, table.expression.tolist(), strict=True)):
            path = root / "faces" / split / table.classes[k] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    return root


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def balance(sources, capsys):
    """balance(out, *more, launcher) → what the command line prints but the folder, in this process or launched."""

    def but_the_folder(printed, out):
        found = json.loads(printed.splitlines()[-1])
        assert found.pop("out") == str(out)
        return found

    def call(out, *more, launcher=()):
        arguments = ["balance", "--model", str(sources / "model"), "--data", str(sources / "faces")]
        arguments += ["--out", str(out), "--batch-size", "4", "--json", *more]
        if not launcher:
            capsys.readouterr()
            assert main(arguments) == 0
            return but_the_folder(capsys.readouterr().out, out)
        command = [sys.executable, *launcher, "-m", "synthmtl", *arguments]
        # As many threads as in this process: the rounding of sums depends on it.
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        assert done.returncode == 0, done.stderr
        return but_the_folder(done.stdout, out)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield call
    torch.set_num_threads(threads)


def content(out):
    """All files but the chunks, whose content says which process made them by nothing."""
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file() and ".chunks" not in p.parts}


def test_two_processes_write_what_one_does(balance, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    summary = balance(one)
    assert summary["kept"] == summary["requested"] == {"neutral": 0, "happiness": 6, "fear": 9}
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    launch += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port()))
    assert balance(two, launcher=launch) == summary
    assert content(one) == content(two) and len(list((two / "train").rglob("*.png"))) == 15
    chunks = [sorted((out / ".chunks" / "chunks").glob("*.safetensors")) for out in (one, two)]
    assert [p.name for p in chunks[0]] == [p.name for p in chunks[1]] and len(chunks[0]) == 4
    # A process died, and with it a chunk and the end of the writing: whoever comes next makes up for it.
    chunks[1][1].unlink()
    (two / "train" / "metadata.jsonl").unlink()
    write_text(chunks[1][2], "half a chunk")
    assert balance(two, "--resume") == summary
    assert content(one) == content(two)
