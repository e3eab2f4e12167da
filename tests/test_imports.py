"""What is slow to import comes when it is used, and not with the rooms that might use it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("room", "absent"),
    [
        ("synthmtl.cli", ["torch", "numpy", "PIL"]),
        ("synthmtl.data", ["torchvision", "diffusers", "accelerate", "scipy.stats", "torch._dynamo"]),
        (
            "synthmtl.experiment, synthmtl.study, synthmtl.systems",
            ["warp", "anny", "lpips", "torchmetrics", "torchjd", "transformers", "scipy.stats", "scipy.interpolate"]
            + ["diffusers.pipelines", "diffusers.schedulers.scheduling_ddim", "diffusers.models.unets.unet_2d_blocks"],
        ),
    ],
)  # fmt: skip
def test_what_is_not_needed_is_not_there(room, absent):
    script = f"import sys, {room}; print(*(name for name in {absent!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
