"""What the C library does with the memory that a training step has freed."""

import ctypes
import os
import platform

KEPT = 256 * 2**20
"""Bytes that stay with the process: the features of a batch of faces of 48 to 64 px."""

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep up to :data:`KEPT` freed bytes instead of handing them back to the system.

    A step on the CPU frees its features and the next one wants as many: handed back, every page is asked for, and
    zeroed, again. (A recognizer's training is a fifth faster; see ``tests/benchmarks/allocator.py``.) Who sets
    ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_`` or ``GLIBC_TUNABLES`` has decided, and so has who uses
    another allocator, which does not read these parameters.

    Returns:
        Whether it was set.
    """
    decided = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if decided or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Setting one of both ends glibc's own adjustment of the other, which would go as far as this.
    return bool(mallopt(_TRIM_THRESHOLD, KEPT) and mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
