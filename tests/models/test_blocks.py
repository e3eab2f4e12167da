"""Blocks."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from synthmtl.models.blocks import (
    AdaptiveInstanceNorm,
    ConvNorm,
    Float32Linear,
    ResidualBlock,
    Stage,
    Stem,
    copied_buffers,
    evaluating,
    normalization,
    unrecorded_statistics,
)


@pytest.mark.parametrize("bias", [True, False])
def test_a_float32_layer_computes_in_float32(bias):
    torch.manual_seed(0)
    plain, layer = nn.Linear(5, 3, bias=bias), Float32Linear(5, 3, bias=bias)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(4, 5)
    exact = plain(x)
    assert torch.equal(layer(x), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), exact)
    layer.bfloat16()
    plain.load_state_dict(layer.state_dict())
    found = layer(x.bfloat16())
    assert found.dtype == torch.float32 and torch.equal(found, plain(x.bfloat16().float()))
    found.sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 for p in layer.parameters())


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


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(3),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm3d(3, affine=False),
        nn.InstanceNorm1d(3, track_running_stats=True),
        nn.InstanceNorm2d(3, track_running_stats=True),
    ],
)
def test_no_normalization_records_within_the_context(layer):
    dimensions = int(type(layer).__name__[-2])
    x = 2 + torch.randn(4, 3, *[5] * dimensions, generator=torch.Generator().manual_seed(0))
    layer(x)
    buffers = dict(layer.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    with unrecorded_statistics(nn.Sequential(layer)):
        layer(3 * x)
    assert len(before) == 3 and all(torch.equal(buffers[name], value) for name, value in before.items())
    assert all(layer.get_buffer(name) is buffer for name, buffer in buffers.items())
    layer(3 * x)
    assert not any(torch.equal(buffers[name], before[name]) for name in ("running_mean", "running_var"))


def test_copied_buffers_are_put_back_after_an_error_and_a_shared_one_stays_shared():
    one, other = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    other.running_mean = one.running_mean
    own = one.running_mean
    with pytest.raises(KeyError), copied_buffers([one, other]):
        assert one.running_mean is other.running_mean is not own
        one.running_mean += 1
        raise KeyError
    assert one.running_mean is other.running_mean is own and (own == 0).all()


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_comes_back_from_evaluation_in_its_own_mode(fails):
    model = nn.Sequential(ConvNorm(1, 4, "batch"), nn.Sequential(nn.Dropout(), nn.Dropout().eval())).train()
    model[0][1].eval()  # frozen statistics
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyError) if fails else nullcontext(), evaluating(model):
        assert not any(module.training for module in model.modules())
        if fails:
            raise KeyError
    assert [module.training for module in model.modules()] == modes and len(set(modes)) == 2


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
