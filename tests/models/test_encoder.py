import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.models.cross_process import CrossProcessBatchNorm2d
from synthmtl.models.encoder import ExpressionHead, TwoBranchEncoder


def encoder(sharing="leaky", **options):
    torch.manual_seed(0)
    given = {"image_channels": 1, "stem_channels": 4, "stage_channels": (6, 8, 10), "joint_channels": 12}
    return TwoBranchEncoder(**(given | options), sharing=sharing)


def images(count=3, channels=1, size=32):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("sharing", ["none", "hard", "leaky"])
@pytest.mark.parametrize(("stem_kind", "pool_first"), [("pool", False), ("unshuffle", True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(sharing, stem_kind, pool_first, channels):
    model = encoder(sharing, image_channels=channels, stem_kind=stem_kind, pool_first=pool_first)
    out = model(images(channels=channels))
    assert out.recognition.shape == out.synthesis.shape == (3, 6, 2, 2)
    assert [tuple(skip.shape) for skip in out.skips] == [(3, 8, 4, 4), (3, 6, 8, 8), (3, 4, 16, 16)]


def reached(model, task):
    """Names of the parts that one task's features send a gradient to."""
    model.zero_grad(set_to_none=True)
    out = model(images())
    getattr(out, task).square().sum().backward()
    return {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if p.grad is not None}


def test_nothing_but_the_stem_is_common_without_sharing():
    model = encoder("none")
    common = reached(model, "recognition") & reached(model, "synthesis")
    assert common and all(name.startswith("stem") for name in common)


def test_hard_sharing_has_one_trunk():
    model = encoder("hard")
    assert len(model.branches) == 1
    assert reached(model, "recognition") == reached(model, "synthesis")


def test_shut_gates_leave_the_joint_block_as_the_only_meeting_place():
    model, apart = encoder("leaky"), encoder("none")
    for unit in model.units:
        for flu in unit.units.values():
            flu.forced_take = 0.0
    apart.stem.load_state_dict(model.stem.state_dict())
    apart.branches.load_state_dict(model.branches.state_dict())
    for a, b in zip(model(images()).skips, apart(images()).skips, strict=True):
        assert torch.equal(a, b)


def test_one_unit_for_all_stages():
    own, one = encoder("leaky"), encoder("leaky", one_unit=True)
    assert len(own.units) == 3 and not any(True for _ in own.projections.parameters())
    assert len(one.units) == 1 and one.units[0].channels == 10
    widths = (6, 8)  # the widest stage needs no projection
    assert sum(p.numel() for p in one.projections.parameters()) == sum(4 * width * 10 for width in widths)
    equal = encoder("leaky", one_unit=True, stage_channels=(8, 8, 8))
    assert len(equal.units) == 1 and not any(True for _ in equal.projections.parameters())
    out = one(images())
    assert [tuple(skip.shape) for skip in out.skips] == [(3, 8, 4, 4), (3, 6, 8, 8), (3, 4, 16, 16)]
    names = {name.split(".")[0] for name in reached(one, "recognition")}
    assert {"units", "projections"} <= names
    for flu in one.units[0].units.values():
        flu.forced_take = 0.0
    apart = encoder("none")
    apart.stem.load_state_dict(one.stem.state_dict())
    apart.branches.load_state_dict(one.branches.state_dict())
    for a, b in zip(one(images()).skips, apart(images()).skips, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("sharing", ["leaky", "hard", "none"])
def test_joint_blocks_apart_read_one_task_each(sharing):
    model = encoder(sharing, joint="apart")
    out = model(images())
    assert out.recognition.shape == out.synthesis.shape == encoder("leaky")(images()).recognition.shape
    assert "joint.1" not in reached(model, "recognition") and "joint.0" not in reached(model, "synthesis")
    reached(model, "recognition")
    assert model.parameters_beside_recognition() == sum(p.numel() for p in model.parameters() if p.grad is None)


@pytest.mark.parametrize("forced", [0.0, 0.5, None])
def test_what_a_gate_that_is_held_shut_keeps_from_recognition(forced):
    model = encoder("leaky", joint="apart")
    model.units[0].units["1_to_0"].forced_take = forced
    reached(model, "recognition")
    assert model.parameters_beside_recognition() == sum(p.numel() for p in model.parameters() if p.grad is None)


def test_a_joint_block_reads_what_the_gates_kept_out():
    common, apart = encoder("leaky"), encoder("leaky", joint="apart")
    for model, meets in ((common, True), (apart, False)):
        for unit in model.units:
            for flu in unit.units.values():
                flu.forced_take = 0.0
        assert meets == any(name.startswith("branches.1") for name in reached(model, "recognition"))


def test_unknown_joint_block():
    with pytest.raises(InputError, match="joint is 'both': use common or apart"):
        encoder("leaky", joint="both")


@pytest.mark.parametrize("sharing", ["none", "hard"])
def test_units_without_an_exchange_are_not_projected(sharing):
    assert not any(True for _ in encoder(sharing, one_unit=True).projections.parameters())


def test_batch_normalization_of_units_is_over_all_processes():
    for sharing in ("nddr", "mtan", "cgc", "residual"):
        layers = [m for m in encoder(sharing).units.modules() if isinstance(m, nn.BatchNorm2d)]
        assert layers and all(type(layer) is CrossProcessBatchNorm2d for layer in layers)
    assert (encoder("mtan", sharing_options={"mask_bias": 1.5}).units[0].per_task[0][4].bias == 1.5).all()


def test_open_gates_change_the_skips():
    model = encoder("leaky")
    before = model(images()).skips
    model.units[0].units["0_to_1"].forced_take = 0.0
    after = model(images()).skips
    assert torch.equal(before[-1], after[-1])  # the stem is in front of the gates
    assert not torch.allclose(before[0], after[0])


def test_synthesis_branch_does_not_mix_the_faces_of_a_batch():
    # In training too, behind the stem, which has the recognition branch's batch norm.
    model = encoder("none")
    model.stem.eval()
    both, alone = model(images(4)), model(images(4)[:1])
    for a, b in zip([both.synthesis, *both.skips], [alone.synthesis, *alone.skips], strict=True):
        torch.testing.assert_close(a[:1], b, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both.recognition[:1], alone.recognition, atol=1e-2)


def test_head_gives_float32_logits():
    head = ExpressionHead(6, 5, "batch", dropout=0.5).eval()
    features = torch.randn(3, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    assert head(features).shape == (3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(features).dtype == torch.float32
    assert torch.equal(head(features), head(features))
