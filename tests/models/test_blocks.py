"""Blocks. Run as a script, this file is the second process of two that share a batch."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from synthmtl.models.blocks import (
    AdaptiveInstanceNorm,
    ConvNorm,
    CrossProcessBatchNorm2d,
    ResidualBlock,
    Stage,
    Stem,
    normalization,
    unrecorded_statistics,
)


def joined_batch():
    """Faces of two processes, one after the other, far from zero so that cancellation would show."""
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x * torch.tensor([1.0, 3.0, 0.1])[:, None, None] + torch.tensor([0.0, 5.0, 300.0])[:, None, None]


def run(layer, x):
    """Two training steps, without an update: what comes out, running statistics, gradients."""
    layer.train()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1.5, -1.0]))
        layer.bias.copy_(torch.tensor([0.1, 0.0, -0.2]))
    x = x.clone().requires_grad_()
    for _ in range(2):
        out = layer(x)
    out.pow(3).mean().backward()
    statistics = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    return {
        "out": out.detach(),
        "statistics": [s.clone() for s in statistics],
        "input": x.grad,
        "parameters": [layer.weight.grad, layer.bias.grad],
    }


def run_as(rank, folder):
    """``run`` as one of two processes on its half of the joined batch."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    try:
        return run(CrossProcessBatchNorm2d(3), joined_batch().chunk(2)[rank])
    finally:
        dist.destroy_process_group()


def test_one_process_is_plain_batch_norm():
    ours, theirs = run(CrossProcessBatchNorm2d(3), joined_batch()), run(nn.BatchNorm2d(3), joined_batch())
    assert torch.equal(ours["out"], theirs["out"]) and torch.equal(ours["input"], theirs["input"])
    assert all(torch.equal(a, b) for a, b in zip(ours["statistics"], theirs["statistics"], strict=True))


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    other = subprocess.Popen([sys.executable, __file__, str(tmp_path)])
    mine = run_as(0, tmp_path)
    assert other.wait(300) == 0
    parts = [mine, torch.load(tmp_path / "other.pt")]
    # In float64, as the reference; the losses are means, so each process holds twice its share of the gradient.
    one = run(nn.BatchNorm2d(3).double(), joined_batch().double())
    close = {"atol": 1e-3, "rtol": 1e-3, "check_dtype": False}
    torch.testing.assert_close(torch.cat([part["out"] for part in parts]), one["out"], **close)
    torch.testing.assert_close(torch.cat([part["input"] for part in parts]) / 2, one["input"], **close)
    for i in range(2):
        mean = (parts[0]["parameters"][i] + parts[1]["parameters"][i]) / 2
        torch.testing.assert_close(mean, one["parameters"][i], **close)
    for part in parts:
        for mine, reference in zip(part["statistics"], one["statistics"], strict=True):
            torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4, check_dtype=False)
    assert all(torch.equal(a, b) for a, b in zip(parts[0]["statistics"], parts[1]["statistics"], strict=True))


def test_statistics_are_not_recorded_within_the_context():
    model = nn.Sequential(ConvNorm(1, 4, "batch"), ResidualBlock(4, 4, "batch"))
    x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    recorded = [b.clone() for name, b in model.named_buffers() if "running" in name]
    with unrecorded_statistics(model):
        inside = model(x)
    after = [b for name, b in model.named_buffers() if "running" in name]
    assert all(torch.equal(a, b) for a, b in zip(recorded, after, strict=True))
    assert torch.equal(model(x), inside)
    after = [b for name, b in model.named_buffers() if "running" in name]
    assert not any(torch.equal(a, b) for a, b in zip(recorded, after, strict=True))


@pytest.mark.parametrize("kind", ["batch", "instance", "group"])
@pytest.mark.parametrize("channels", [6, 16, 20])
def test_normalizations_normalize_and_are_affine(kind, channels):
    layer = normalization(kind, channels)
    out = layer(5 + 3 * torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert abs(out.mean()) < 1e-4 and abs(out.std() - 1) < 1e-2
    assert sum(p.numel() for p in layer.parameters()) == 2 * channels


def test_no_and_unknown_normalization():
    x = torch.ones(1, 2, 3, 3)
    assert normalization("none", 2)(x) is x
    with pytest.raises(ValueError, match="unknown normalization 'layer'"):
        normalization("layer", 4)


@pytest.mark.parametrize("kind", ["pool", "unshuffle"])
@pytest.mark.parametrize("channels", [1, 3])
def test_stem_halves(kind, channels):
    assert Stem(channels, 10, "batch", kind)(torch.zeros(2, channels, 12, 12)).shape == (2, 10, 6, 6)


def test_unknown_stem():
    with pytest.raises(ValueError, match="unknown stem 'patch'"):
        Stem(1, 4, "batch", "patch")


@pytest.mark.parametrize("pool_first", [True, False])
def test_stage_halves(pool_first):
    stage = Stage(4, 6, "instance", pool_first)
    assert stage(torch.zeros(2, 4, 8, 8)).shape == (2, 6, 4, 4)
    assert isinstance(stage[0], nn.MaxPool2d) == pool_first


def test_residual_block_adds_its_input():
    block = ResidualBlock(3, 3, "none")
    for p in block.second.parameters():
        nn.init.zeros_(p)
    x = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)


def test_adaptive_norm_takes_scale_and_shift_from_the_condition():
    layer = AdaptiveInstanceNorm(3, 2)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x, torch.zeros(2, 2)), layer.norm(x))
    with torch.no_grad():
        layer.affine.weight.zero_()
        layer.affine.weight[:3, 0] = 1.0  # scales
        layer.affine.weight[3:, 1] = 1.0  # shifts
    torch.testing.assert_close(layer(x, torch.tensor([[2.0, 5.0], [0.0, 1.0]]))[0], 3 * layer.norm(x)[0] + 5)
    torch.testing.assert_close(layer(x, torch.tensor([[2.0, 5.0], [0.0, 1.0]]))[1], layer.norm(x)[1] + 1)


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    torch.save(run_as(1, directory), directory / "other.pt")
