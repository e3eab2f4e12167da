"""Speed and memory, each as a ratio to the plain way of doing the same, measured in one run.

A benchmark is a module of this folder with ``rows(tiny)``; ``python -m tests.benchmarks`` runs them.
"""

BENCHMARKS = (
    "sharing", "units", "loop", "looks", "diffusion", "scores", "processes", "allocator", "reader", "published",
    "roofline", "memory", "growth",
)  # fmt: skip
"""Names of the modules, in the order of the table."""
