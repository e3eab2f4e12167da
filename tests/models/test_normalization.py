"""Normalization by the functions in C++ against PyTorch's; one process stands for several that have the same faces."""

import pytest
import torch
from torch import nn

from synthmtl.models import cross_process
from synthmtl.models.cross_process import SOURCE, CrossProcessBatchNorm2d, NormalizeRowsOverProcesses, served
from synthmtl.native import load_functions

pytestmark = pytest.mark.skipif(not load_functions(SOURCE), reason="needs Linux and a C++ compiler")


@pytest.fixture
def three(monkeypatch):
    """Three processes, as far as a layer sees; how often and what they were told."""
    told = []

    def gathered(x):
        told.append(tuple(x.shape))
        return torch.stack([x] * 3)

    monkeypatch.setattr(cross_process, "gathered", gathered)
    monkeypatch.setattr(cross_process, "process_count", lambda: 3)
    monkeypatch.setattr(cross_process, "several_processes", lambda: True)
    return told


def faces(*shape, precision=torch.float32):
    """Channels of different scale and place, as features of a network have."""
    generator = torch.Generator().manual_seed(0)
    scale, place = (torch.rand(1, shape[1], 1, 1, generator=generator) for _ in range(2))
    x = torch.randn(*shape, generator=generator) * (0.5 + scale) + 2 * place - 1
    return x.to(precision).to(memory_format=torch.channels_last)


def filled(layer):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
        layer.bias.normal_(generator=generator)
    return layer


def passed(layer, x, gradient):
    """What comes out, running statistics, gradients; in float64."""
    x = x.detach().requires_grad_()
    out = layer(x)
    found = [out, layer.running_mean, layer.running_var, *torch.autograd.grad(out, [x, *layer.parameters()], gradient)]
    return [each.detach().double() for each in found]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 16, 3, 7), (2, 48, 4, 4), (3, 16, 1, 1), (9, 32, 40, 40)])
def test_several_with_the_same_faces_are_one_with_all(shape, precision, three):
    x, gradient = faces(*shape, precision=precision), faces(*shape, precision=precision).flip(0)
    ours = passed(filled(CrossProcessBatchNorm2d(shape[1])), x, gradient)
    assert three == [(2, shape[1])] * 2  # once forwards and once backwards
    thrice = [torch.cat([each.double()] * 3) for each in (x, gradient)]
    theirs = passed(filled(nn.BatchNorm2d(shape[1])).double(), *thrice)
    close = {torch.float32: {"rtol": 1e-5, "atol": 2e-5}, torch.bfloat16: {"rtol": 0.01, "atol": 0.01}}[precision]
    for i in (0, 3):
        torch.testing.assert_close(ours[i], theirs[i][: shape[0]], **close)
    for i in (1, 2):
        torch.testing.assert_close(ours[i], theirs[i], rtol=1e-5, atol=1e-6)
    for i in (4, 5):  # of this process's faces, which are a third
        torch.testing.assert_close(3 * ours[i], theirs[i], rtol=1e-4, atol=1e-3)


def test_large_means_do_not_cancel(three):
    x = faces(8, 16, 12, 12) * 0.01 + 300
    layer, reference = CrossProcessBatchNorm2d(16, eps=1e-12), nn.BatchNorm2d(16, eps=1e-12).double()
    torch.testing.assert_close(layer(x), reference(x.double()), rtol=1e-2, atol=1e-2, check_dtype=False)
    torch.testing.assert_close(layer.running_var, reference.running_var.float(), rtol=1e-3, atol=1e-7)


def test_gradients_come_in_any_format(three):
    x, gradient = faces(4, 16, 5, 5), faces(4, 16, 5, 5).flip(0)
    as_they_are = passed(filled(CrossProcessBatchNorm2d(16)), x, gradient)
    torch.testing.assert_close(passed(filled(CrossProcessBatchNorm2d(16)), x, gradient.contiguous()), as_they_are)
    one = torch.ones(()).expand_as(x)
    torch.testing.assert_close(
        passed(filled(CrossProcessBatchNorm2d(16)), x, one),
        passed(filled(CrossProcessBatchNorm2d(16)), x, one.contiguous()),
    )


def test_not_a_number_stays_in_its_channel(three):
    x = faces(2, 16, 3, 3)
    x[1, 5, 0, 0] = torch.nan
    out = CrossProcessBatchNorm2d(16)(x)
    assert out[:, 5].isnan().all() and not out[:, [c for c in range(16) if c != 5]].isnan().any()


def test_what_is_served(three, monkeypatch):
    monkeypatch.setattr(NormalizeRowsOverProcesses, "apply", lambda *_: "rows")
    x, layer = faces(2, 16, 4, 4), CrossProcessBatchNorm2d(16)
    assert layer(x) == layer(x.bfloat16()) == "rows"
    assert layer.num_batches_tracked == 2
    assert not served(x.contiguous(), layer.weight)
    assert not served(x.double(), layer.weight)
    assert not served(x, layer.weight.double())
    assert not served(faces(2, 8, 4, 4), torch.ones(8))
    monkeypatch.setattr(cross_process, "load_functions", lambda source: False)
    assert not served(x, layer.weight)
    layer.eval()
    assert torch.is_tensor(layer(x))
