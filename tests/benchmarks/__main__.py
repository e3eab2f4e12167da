"""``python -m tests.benchmarks [NAME ...]``: one table, a ratio a line, from the folder of the checkout.

One thread computes, and where one process is measured its CPU time is read instead of the clock, so that other programs
disturb the ratios little. The two sides of a ratio take turns, and the median over the turns counts.
"""

import argparse
import importlib
import logging
import sys
import warnings

import torch

from . import BENCHMARKS

HEADER = "| benchmark | case | ours | plain | ratio | wanted |\n|---|---|---|---|---|---|"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--tiny", action="store_true", help="sizes that prove that they run; the ratios mean nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}: use some of {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(HEADER, flush=True)
    for name in options.names or BENCHMARKS:
        for row in importlib.import_module(f".{name}", __package__).rows(options.tiny):
            print(f"| {name} | {row.cells()} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
