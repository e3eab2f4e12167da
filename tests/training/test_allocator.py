"""The allocator's freed memory, looked at in processes of their own, since it is set once for all."""

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from synthmtl.training import build_accelerator
from synthmtl.training.allocator import keep_freed_memory

if sys.argv[1] == "accelerator":
    build_accelerator()
elif sys.argv[1] == "kept":
    assert keep_freed_memory() is (sys.argv[2] == "True")

def step():  # features of 80 MiB, 8 at a time, that are all freed at its end
    return [torch.zeros(10 * 2**18) for _ in range(8)]

for _ in range(5):  # until small allocations among them have found their places
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * 80 * 2**20 // os.sysconf("SC_PAGE_SIZE")  # of ten steps

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")


def faults(*arguments, **environment):
    """Pages that ten steps ask the system for."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    command = [sys.executable, "-c", STEPS, *arguments]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=300, check=True)
    return int(done.stdout)


def test_steps_do_not_ask_for_their_memory_again():
    assert faults("kept", "True") < PAGES / 20


def test_on_the_cpu_the_accelerator_sees_to_it():
    assert faults("accelerator", CUDA_VISIBLE_DEVICES="") < PAGES / 20


@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_who_has_decided_is_left_alone(variable):
    # The smallest of either: all is handed back at once.
    assert faults("kept", "False", **{variable: "131072"}) > PAGES / 2
