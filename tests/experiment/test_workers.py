import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.experiment.config import preset
from synthmtl.experiment.stages import Job, load_data, train_judge
from synthmtl.experiment.workers import Workers
from synthmtl.models.inference import load_network
from synthmtl.training import build_accelerator


@pytest.fixture(scope="module")
def faces():
    return load_data(preset("smoke", rendered=True).faces)


def job(out, faces):
    config = preset("smoke", rendered=True)
    config.precision = "no"
    out.mkdir()
    return Job(config, out, faces[0], build_accelerator(precision="no"), faces[1])


CALLS = [(role, train_judge, {"role": role}) for role in ("guide", "judge")]


def test_side_by_side_gives_what_one_after_the_other_gives(tmp_path, faces):
    alone, together = job(tmp_path / "alone", faces), job(tmp_path / "together", faces)
    with Workers(alone, 1) as workers:
        assert workers.run(CALLS) == [alone.out / "guide", alone.out / "judge"]
    with Workers(together, 2) as workers:
        assert workers.run(CALLS) == [together.out / "guide", together.out / "judge"]
    for role in ("guide", "judge"):
        one, other = (load_network(each.out / role).state_dict() for each in (alone, together))
        # Another number of threads adds up in another order.
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_what_a_worker_raises_is_raised(tmp_path, faces):
    bad = job(tmp_path / "bad", faces)
    bad.config.model.size = "huge"
    with Workers(bad, 2) as workers, pytest.raises(InputError, match="unknown model size 'huge'"):
        workers.run(CALLS)


def test_one_worker_starts_no_process(tmp_path, faces):
    with Workers(job(tmp_path / "one", faces), 1) as workers:
        assert workers.run([]) == [] and workers._pool is None
        assert workers.count == 1


def test_workers_end_with_the_process_that_runs_the_job(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(ORPHANS)
    with subprocess.Popen([sys.executable, script, tmp_path / "run"], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        parent.kill()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} outlived their parent"
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["raise", "interrupt", "kill"])
def test_nothing_goes_on_after_an_error(tmp_path, how):
    script, out = tmp_path / "job.py", tmp_path / "run"
    script.write_text(STOPPED)
    done = subprocess.run([sys.executable, script, out, how], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = {"raise": "ZeroDivisionError", "interrupt": "KeyboardInterrupt", "kill": "WorkerKilled"}
    assert done.stdout.strip() == said[how]
    # Of eight calls one failed, one was running beside it, and the next is begun before this process hears of it.
    assert len(list(out.glob("begun-*"))) <= 3 and not list(out.glob("finished-*"))


STOPPED = """
import os
import signal
import sys
import time
from pathlib import Path

from synthmtl.experiment.config import preset
from synthmtl.experiment.stages import Job
from synthmtl.experiment.workers import WorkerKilled, Workers
from synthmtl.training import build_accelerator


def work(job, number, how):
    (job.out / f"begun-{number}").touch()
    if number == 0:
        while not (job.out / "begun-1").exists():
            time.sleep(0.05)
        if how == "raise":
            raise ZeroDivisionError
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(3)
    (job.out / f"finished-{number}").touch()


if __name__ == "__main__":
    out, how = Path(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    out.mkdir()
    job = Job(preset("smoke", rendered=True), out, None, build_accelerator(precision="no"), None)
    try:
        with Workers(job, 2) as workers:
            workers.run([(str(n), work, {"number": n, "how": how}) for n in range(8)])
    except (ZeroDivisionError, KeyboardInterrupt, WorkerKilled) as error:
        print(type(error).__name__)
"""

ORPHANS = """
import os
import sys
import time
from pathlib import Path

from synthmtl.experiment.config import preset
from synthmtl.experiment.stages import Job
from synthmtl.experiment.workers import Workers
from synthmtl.training import build_accelerator


def wait(job):
    (job.out / str(os.getpid())).touch()
    time.sleep(600)


if __name__ == "__main__":
    import threading

    out = Path(sys.argv[1])
    out.mkdir()
    job = Job(preset("smoke", rendered=True), out, None, build_accelerator(precision="no"), None)
    with Workers(job, 2) as workers:
        thread = threading.Thread(target=workers.run, args=([(n, wait, {}) for n in "ab"],), daemon=True)
        thread.start()
        while len(list(out.iterdir())) < 2:
            time.sleep(0.05)
        print(*(path.name for path in out.iterdir()), flush=True)
        thread.join()
"""


def alive(pid):
    """A process that has ended and that nobody has waited for is a zombie, which is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
