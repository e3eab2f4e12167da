"""What processes compute together. Run as a script, this file is two processes that share a batch."""

import contextlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from synthmtl import exchange
from synthmtl.models import cross_process
from synthmtl.models.cross_process import CrossProcessBatchNorm2d


def joined_batch():
    """Faces of two processes, one after the other, far from zero so that cancellation would show."""
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x * torch.tensor([1.0, 3.0, 0.1])[:, None, None] + torch.tensor([0.0, 5.0, 300.0])[:, None, None]


def wide(x):
    """Of 48 channels, which are last."""
    return x.repeat(1, 16, 1, 1).contiguous(memory_format=torch.channels_last)


def run(layer, x):
    """Two training steps, without an update: what comes out, running statistics, gradients."""
    layer.train()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1.5, -1.0]).repeat(len(layer.weight) // 3))
        layer.bias.copy_(torch.tensor([0.1, 0.0, -0.2]).repeat(len(layer.weight) // 3))
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


def low_precision(x):
    """As the network's features come under autocast."""
    return x.to(torch.bfloat16, memory_format=torch.channels_last)


@contextlib.contextmanager
def counted_exchanges():
    """A list that grows by the shape of what is exchanged between the processes within it."""
    seen = []

    def counted(x):
        seen.append(tuple(x.shape))
        return exchange.gathered(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_process, "gathered", counted)
        yield seen


def means_of(rank):
    """Of numbers that a letter holds, that need a parcel, and of float64; process 0 has 0, 1, ..., the other -3."""
    few, many = (torch.arange(float(n)) if rank == 0 else torch.full((n,), -3.0) for n in (5, exchange.CAPACITY + 7))
    return [exchange.process_mean(x) for x in (few, many.view(1, -1), few.double())]


def run_as(rank, folder):
    """``run`` as one of two processes on its half of the joined batch."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    try:
        x = joined_batch().chunk(2)[rank]
        with counted_exchanges() as exchanged:
            found = run(CrossProcessBatchNorm2d(3), x)
        found["exchanged"] = exchanged
        found["shares memory"] = exchange.mailbox() is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exchange, "mailbox", lambda: None)
            found["without memory"] = run(CrossProcessBatchNorm2d(3), x)
            found["means without memory"] = means_of(rank)
        found["means"] = means_of(rank)
        found["float64"] = run(CrossProcessBatchNorm2d(3).double(), x.double())
        found["bfloat16"] = run(CrossProcessBatchNorm2d(3), low_precision(x))
        found["wide"] = run(CrossProcessBatchNorm2d(48), wide(x))
        with pytest.MonkeyPatch.context() as patch:
            if rank:  # it has no compiler
                patch.setattr(cross_process, "load_functions", lambda source: False)
                patch.setattr(exchange, "load_functions", lambda source: False)
            found["mixed"] = run(CrossProcessBatchNorm2d(48), wide(x))
        return found
    finally:
        dist.destroy_process_group()


def test_one_process_is_plain_batch_norm():
    ours, theirs = run(CrossProcessBatchNorm2d(3), joined_batch()), run(nn.BatchNorm2d(3), joined_batch())
    assert torch.equal(ours["out"], theirs["out"]) and torch.equal(ours["input"], theirs["input"])
    assert all(torch.equal(a, b) for a, b in zip(ours["statistics"], theirs["statistics"], strict=True))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What two processes found, each on its half."""
    folder = tmp_path_factory.mktemp("processes")
    subprocess.run([sys.executable, __file__, str(folder)], check=True, timeout=600)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_processes_equal_one_on_the_joined_batch(parts):
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


def test_two_processes_are_exact(parts):
    one, halves = run(nn.BatchNorm2d(3).double(), joined_batch().double()), [part["float64"] for part in parts]
    close = {"atol": 1e-8, "rtol": 1e-8}
    torch.testing.assert_close(torch.cat([half["out"] for half in halves]), one["out"], **close)
    torch.testing.assert_close(torch.cat([half["input"] for half in halves]) / 2, one["input"], **close)
    for half in halves:
        for mine, reference in zip(half["statistics"], one["statistics"], strict=True):
            torch.testing.assert_close(mine, reference, **close)


def test_two_processes_on_rounded_features(parts):
    rounded = low_precision(joined_batch())
    one = run(nn.BatchNorm2d(3).double(), rounded.double())
    close = {"atol": 2e-2, "rtol": 2e-2, "check_dtype": False}
    halves = [part["bfloat16"] for part in parts]
    assert all(half["out"].dtype == half["input"].dtype == torch.bfloat16 for half in halves)
    assert all(half["out"].is_contiguous(memory_format=torch.channels_last) for half in halves)
    torch.testing.assert_close(torch.cat([half["out"] for half in halves]), one["out"], **close)
    for half in halves:
        for mine, reference in zip(half["statistics"], one["statistics"], strict=True):
            torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4, check_dtype=False)


@pytest.mark.parametrize("how", ["wide", "mixed"])
def test_two_processes_by_functions_of_their_own(how, parts):
    one, halves = run(nn.BatchNorm2d(48).double(), wide(joined_batch()).double()), [part[how] for part in parts]
    close = {"atol": 1e-3, "rtol": 1e-3, "check_dtype": False}
    torch.testing.assert_close(torch.cat([half["out"] for half in halves]), one["out"], **close)
    torch.testing.assert_close(torch.cat([half["input"] for half in halves]) / 2, one["input"], **close)
    for i in range(2):
        mean = (halves[0]["parameters"][i] + halves[1]["parameters"][i]) / 2
        torch.testing.assert_close(mean, one["parameters"][i], **close)
    for half in halves:
        for mine, reference in zip(half["statistics"], one["statistics"], strict=True):
            torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4, check_dtype=False)


def test_one_exchange_forwards_and_one_backwards(parts):
    assert all(part["exchanged"] == [(2, 3)] * 3 for part in parts)  # two steps, of which one backwards


def test_means_over_processes(parts):
    for part in parts:
        for found in (part["means"], part["means without memory"]):
            few, many, double = found
            torch.testing.assert_close(few, (torch.arange(5.0) - 3) / 2)
            torch.testing.assert_close(many, (torch.arange(exchange.CAPACITY + 7.0)[None] - 3) / 2)
            torch.testing.assert_close(double, (torch.arange(5.0, dtype=torch.float64) - 3) / 2)
    own = torch.ones(3)
    assert exchange.process_mean(own) is own  # one process


def test_messages_by_shared_memory_and_by_collective_operations_are_the_same(parts):
    for part in parts:
        assert part["shares memory"] == hasattr(os, "posix_fallocate")
        assert torch.equal(part["out"], part["without memory"]["out"])
        assert torch.equal(part["input"], part["without memory"]["input"])


def save(rank, folder):
    torch.save(run_as(rank, folder), Path(folder) / f"{rank}.pt")


if __name__ == "__main__":
    multiprocessing.spawn(save, (sys.argv[1],), nprocs=2)
