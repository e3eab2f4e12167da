"""Reading a folder of 48 px faces and planning their balance, as the folder grows.

python -m tests.benchmarks.growth FACES
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from synthmtl.balance import make_plan
from synthmtl.data.readers.image_folder import read_image_folder

from .memory import peak
from .reader import write_faces
from .timing import Row, run_module


def rows(tiny: bool) -> list[Row]:
    """Milliseconds a face, against those of the smallest folder: 1 is growth in proportion."""
    sizes = (50,) if tiny else (1_000, 10_000, 100_000)
    found = {size: run_module(f"{__package__}.growth", size) for size in sizes}
    first = found[sizes[0]]
    table = []
    for size, figures in found.items():
        for part in ("read", "plan"):
            ours, plain = (f"{1e3 * each[part]:.3g} ms a face" for each in (figures, first))
            case = f"{part} {size:,} faces, peak {figures['peak']:.0f} MiB"
            table.append(Row(case, ours, plain, first[part] / figures[part]))
    return table


def main(count: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_faces(root, min(count, 500), 48, "png")
        originals = sorted(root.rglob("*.png"))
        for i in range(len(originals), count):  # more names of the same files, one class getting more
            place = originals[i % len(originals)] if i % 3 else originals[0]
            os.link(originals[i % len(originals)], place.with_name(f"more-{i:06d}.png"))
        started = time.perf_counter()
        table = read_image_folder(root, image_size=48, channels=1)["all"]
        read = time.perf_counter() - started
        plan = make_plan(table)
        planned = time.perf_counter() - started - read
    assert len(table) == count and len(plan) >= 0
    print(json.dumps({"read": read / count, "plan": planned / count, "peak": peak()}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
