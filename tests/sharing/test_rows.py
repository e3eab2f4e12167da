"""The compiled passes of the leaky unit, captured but not translated (see the benchmark for that)."""

import pytest
import torch

from synthmtl.sharing import ConvFLU, LeakySharing, compile_units, rows
from synthmtl.sharing.rows import LeakyRows

CHANNELS = 3


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    """Two turns and a shorter third for two faces of 3 × 5 positions."""
    monkeypatch.setattr(rows, "TURN", 12 * CHANNELS)
    monkeypatch.setattr(rows, "_compiled", lambda function: torch.compile(function, backend="eager"))


def last(*shape: int, **options) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, **options).to(memory_format=torch.channels_last)


def inputs(biased: bool = True) -> list[torch.Tensor | None]:
    torch.manual_seed(0)
    features = [torch.randn(2, CHANNELS, 3, 5).to(memory_format=torch.channels_last) for _ in range(2)]
    gates, candidate = torch.randn(2 * CHANNELS, 2 * CHANNELS, 1, 1), torch.randn(CHANNELS, 2 * CHANNELS, 1, 1)
    bias = torch.randn(2 * CHANNELS) if biased else None
    return [t if t is None else t.double().requires_grad_() for t in (*features, gates, bias, candidate)]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kept", [0, 10_000])
def test_the_written_backward_pass_is_that_of_the_forward_pass(biased, kept, monkeypatch):
    monkeypatch.setattr(rows, "KEPT", kept)
    assert torch.autograd.gradcheck(LeakyRows.apply, inputs(biased))


def test_no_faces_and_one_turn(monkeypatch):
    given = inputs()
    several = LeakyRows.apply(*given)
    assert LeakyRows.apply(*(x[:0] for x in given[:2]), *given[2:]).shape == (0, CHANNELS, 3, 5)
    of_several = torch.autograd.grad(several.sum(), given)
    monkeypatch.setattr(rows, "TURN", 10_000)
    one = LeakyRows.apply(*given)
    torch.testing.assert_close(one, several)
    torch.testing.assert_close(torch.autograd.grad(one.sum(), given), of_several)


def test_joined_maps_of_small_features_are_kept(monkeypatch):
    for kept, maps in ((0, 2), (30 * CHANNELS, 4)):
        monkeypatch.setattr(rows, "KEPT", kept)
        assert LeakyRows.apply(*inputs()).grad_fn.maps == maps


def test_gradients_of_gradients():
    assert torch.autograd.gradgradcheck(LeakyRows.apply, inputs())


def test_gradients_of_many_losses_at_once():
    # As aggregators of gradients take them.
    given = inputs()
    out = LeakyRows.apply(*given)
    losses = torch.randn(4, *out.shape, dtype=torch.float64)
    batched = torch.autograd.grad(out, given, losses, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(out, given, loss, retain_graph=True) for loss in losses]
    for together, each in zip(batched, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(together, torch.stack(each))


@pytest.mark.parametrize("options", [{"gate_bias": -2.0}, {}])
def test_a_compiled_unit_in_half_precision_is_the_plain_one(options, monkeypatch):
    torch.manual_seed(0)
    plain = ConvFLU(8, **options).to(memory_format=torch.channels_last)
    compiled = ConvFLU(8, **options).to(memory_format=torch.channels_last)
    compiled.load_state_dict(plain.state_dict())
    compile_units(compiled)
    taken = []
    monkeypatch.setattr(LeakyRows, "apply", lambda *given, apply=LeakyRows.apply: taken.append(1) or apply(*given))
    given = [last(4, 8, 5, 5), last(4, 8, 5, 5) + 1]
    results = []
    for unit in (plain, compiled):
        leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in given]
        with torch.autocast("cpu", torch.bfloat16):
            out = unit(*leaves)
        assert out.dtype == torch.bfloat16 and out.is_contiguous(memory_format=torch.channels_last)
        out.float().square().sum().backward()
        results.append([out.float(), *(x.grad for x in leaves), *(p.grad for p in unit.parameters())])
    assert taken == [1]
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert (a - b).norm() < 0.02 * a.norm()


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3}, {"gating": "channel"}, {"pass_reads": "donor"}, {"normalize": True}, {"fixed_pass": 1.0}],
)
def test_other_units_take_the_general_way(options, monkeypatch):
    monkeypatch.setattr("synthmtl.sharing.gates._compiled_step", lambda: lambda pair, x, y: "general")
    unit = ConvFLU(8, **options)
    compile_units(unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert unit(last(2, 8, 4, 4), last(2, 8, 4, 4)) == "general"


def test_other_features_take_the_general_way(monkeypatch):
    monkeypatch.setattr("synthmtl.sharing.gates._compiled_step", lambda: lambda pair, x, y: "general")
    unit, x = ConvFLU(8), last(2, 8, 8, 8)
    compile_units(unit)
    assert unit(x, x) == "general"  # full precision
    with torch.autocast("cpu", torch.bfloat16):
        assert unit(x.contiguous(), x) == "general"
        with torch.no_grad():
            assert unit(x, x) == "general"
        unit.forced_pass = 0.5
        assert unit(x, x) == "general"
        unit.forced_pass = None
        assert unit(x, x).shape == x.shape


def test_looked_at_gates_are_computed_by_themselves():
    unit, given = LeakySharing(8), [last(2, 8, 4, 4), last(2, 8, 4, 4) - 1]
    compile_units(unit)
    seen = []
    handle = unit.units["0_to_1"].gates.register_forward_hook(lambda module, args, out: seen.append(out[0].shape))
    with torch.autocast("cpu", torch.bfloat16):
        unit(given)
    handle.remove()
    assert seen == [torch.Size([2, 8, 4, 4])]
