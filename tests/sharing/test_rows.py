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


def inputs(biased: bool = True, directions: int = 2) -> list[torch.Tensor | None]:
    torch.manual_seed(0)
    given = [torch.randn(2, CHANNELS, 3, 5).to(memory_format=torch.channels_last) for _ in range(2)]
    for _ in range(directions):
        gates, candidate = torch.randn(2 * CHANNELS, 2 * CHANNELS, 1, 1), torch.randn(CHANNELS, 2 * CHANNELS, 1, 1)
        given += [gates, torch.randn(2 * CHANNELS) if biased else None, candidate]
    return [t if t is None else t.double().requires_grad_() for t in given]


def squared(outs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return sum(out.square().sum() for out in outs)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kept", [0, 10_000])
def test_the_written_backward_pass_is_that_of_the_forward_pass(biased, kept, directions, monkeypatch):
    monkeypatch.setattr(rows, "KEPT", kept)
    assert torch.autograd.gradcheck(LeakyRows.apply, inputs(biased, directions))


def test_two_directions_are_each_on_its_own():
    x, y, *weights = inputs()
    x_too, y_too = LeakyRows.apply(x, y, *weights)
    alone = [*LeakyRows.apply(x, y, *weights[:3]), *LeakyRows.apply(y, x, *weights[3:])]
    torch.testing.assert_close([x_too, y_too], alone)
    # One of the two is enough for a gradient.
    of_one = torch.autograd.grad(y_too.sum(), [x, y, weights[3]])
    torch.testing.assert_close(of_one, torch.autograd.grad(alone[1].sum(), [x, y, weights[3]]))


@pytest.mark.parametrize("directions", [1, 2])
def test_no_faces_and_one_turn(directions, monkeypatch):
    given = inputs(directions=directions)
    several = LeakyRows.apply(*given)
    of_none = LeakyRows.apply(*(x[:0] for x in given[:2]), *given[2:])
    assert [x.shape for x in of_none] == [(0, CHANNELS, 3, 5)] * directions
    of_several = torch.autograd.grad(squared(several), given)
    monkeypatch.setattr(rows, "TURN", 10_000)
    one = LeakyRows.apply(*given)
    torch.testing.assert_close(one, several)
    torch.testing.assert_close(torch.autograd.grad(squared(one), given), of_several)


def test_joined_maps_of_small_features_are_kept(monkeypatch):
    for kept, maps in ((0, 3), (30 * CHANNELS, 6)):
        monkeypatch.setattr(rows, "KEPT", kept)
        assert LeakyRows.apply(*inputs())[0].grad_fn.maps == maps


@pytest.mark.parametrize("directions", [1, 2])
def test_gradients_of_gradients(directions):
    assert torch.autograd.gradgradcheck(LeakyRows.apply, inputs(directions=directions), fast_mode=True)


def test_gradients_of_many_losses_at_once():
    # As aggregators of gradients take them.
    given = inputs()
    outs = LeakyRows.apply(*given)
    losses = [torch.randn(4, *out.shape, dtype=torch.float64) for out in outs]
    batched = torch.autograd.grad(outs, given, losses, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(outs, given, pair, retain_graph=True) for pair in zip(*losses, strict=True)]
    for together, each in zip(batched, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(together, torch.stack(each))


@pytest.mark.parametrize(
    "options, calls",
    [
        ({"gate_bias": -2.0}, 1),
        ({}, 1),
        ({"tasks": 3}, 3),  # one for every two tasks
        ({"receivers": [1]}, 1),
        ({"tasks": 3, "receivers": [0, 2]}, 3),
    ],
)
def test_a_compiled_unit_in_half_precision_is_the_plain_one(options, calls, monkeypatch):
    torch.manual_seed(0)
    plain, compiled = (LeakySharing(8, **options).to(memory_format=torch.channels_last) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compile_units(compiled)
    taken = []
    monkeypatch.setattr(LeakyRows, "apply", lambda *given, apply=LeakyRows.apply: taken.append(1) or apply(*given))
    given = [last(4, 8, 5, 5) + shift for shift in range(plain.tasks)]
    results = []
    for unit in (plain, compiled):
        leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in given]
        with torch.autocast("cpu", torch.bfloat16):
            outs = unit(leaves)
        received = [out for out, x in zip(outs, leaves, strict=True) if out is not x]
        assert all(x.dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last) for x in received)
        squared([out.float() for out in outs]).backward()
        results.append([*(x.float() for x in outs), *(x.grad for x in leaves), *(p.grad for p in unit.parameters())])
    assert len(taken) == calls
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert (a - b).norm() < 0.02 * a.norm()


def test_one_direction_by_itself_when_the_other_is_forced(monkeypatch):
    unit, given = LeakySharing(8), [last(2, 8, 4, 4), last(2, 8, 4, 4) - 1]
    compile_units(unit)
    with torch.autocast("cpu", torch.bfloat16):
        free = unit(given)
        unit.units["1_to_0"].forced_take = 0.0
        half_shut = unit(given)
    assert half_shut[0] is given[0]
    torch.testing.assert_close(half_shut[1], free[1])


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
    with torch.autocast("cpu", torch.bfloat16):
        assert unit(x.contiguous(), x) == "general"
        with torch.no_grad():
            assert unit(x, x) == "general"
        unit.forced_pass = 0.5
        assert unit(x, x) == "general"
        unit.forced_pass = None
        assert unit(x, x).shape == x.shape


@pytest.mark.parametrize("watched", ["gates", "pair"])
def test_looked_at_pairs_are_computed_by_themselves(watched):
    unit, given = LeakySharing(8), [last(2, 8, 4, 4), last(2, 8, 4, 4) - 1]
    compile_units(unit)
    with torch.autocast("cpu", torch.bfloat16):
        unwatched = unit(given)
    pair, seen = unit.units["0_to_1"], []
    module = pair if watched == "pair" else pair.gates
    handle = module.register_forward_hook(lambda module, args, out: seen.append(out[0].shape[-2:]))
    with torch.autocast("cpu", torch.bfloat16):
        out = unit(given)
    handle.remove()
    assert seen == [(4, 4)]
    torch.testing.assert_close(out, unwatched, atol=0.02, rtol=0.02)
