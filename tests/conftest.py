"""What several rooms' tests share."""

import contextlib
import os
import resource

import pytest
import torch

from synthmtl.cli import main

if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores have processes of their own
    torch.set_num_threads(1)


@pytest.fixture
def files_of_at_most():
    """A context in which the system refuses to write beyond so many bytes of a file, as a full disk does."""

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder that ``quickstart --preset smoke`` leaves; tests only add to it what is no part of a run."""
    out = tmp_path_factory.mktemp("quickstart") / "run"
    assert main(["quickstart", "--preset", "smoke", "--precision", "no", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def rendered_folder(tmp_path_factory):
    """An image folder that ``render`` wrote: 96 gray faces of 12 persons at 32 px, in one split."""
    out = tmp_path_factory.mktemp("rendered") / "faces"
    assert main(["render", "--out", str(out), "--count", "96", "--size", "32", "--subjects", "12", "--seed", "3"]) == 0
    return out
