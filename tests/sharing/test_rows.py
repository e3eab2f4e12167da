"""The leaky unit's functions in C++ against autograd."""

import pytest
import torch

from synthmtl.native import load_functions
from synthmtl.sharing import ConvFLU, LeakySharing, compile_units, rows
from synthmtl.sharing.rows import LeakyRows, served

CHANNELS = 16

pytestmark = pytest.mark.skipif(not load_functions(rows.SOURCE), reason="needs Linux and a C++ compiler")


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    """Two turns and a shorter third for two faces of 3 × 5 positions."""
    monkeypatch.setattr(rows, "TURN", 12 * CHANNELS)


def last(*shape: int, **options) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, **options).to(memory_format=torch.channels_last)


def inputs(biased: bool = True, directions: int = 2, faces: int = 2) -> list[torch.Tensor | None]:
    torch.manual_seed(0)
    given = [torch.randn(faces, CHANNELS, 3, 5).to(memory_format=torch.channels_last) for _ in range(2)]
    for _ in range(directions):
        gates, candidate = (torch.randn(n, 2 * CHANNELS, 1, 1) / 4 for n in (2 * CHANNELS, CHANNELS))
        given += [gates, torch.randn(2 * CHANNELS) if biased else None, candidate]
    return [t if t is None else t.requires_grad_() for t in given]


def squared(outs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return sum(out.square().sum() for out in outs)


def plain(x: torch.Tensor, y: torch.Tensor, *weights: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """By autograd in float64."""
    doubled = [t if t is None else t.double() for t in (x, y, *weights)]
    return tuple(rows._features(out, x) for out in rows._plain(*map(rows._rows, doubled[:2]), doubled[2:]))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("faces", [0, 1, 2, 7])
def test_both_passes_are_those_of_autograd(biased, directions, faces):
    given = inputs(biased, directions, faces)
    leaves = [t for t in given if t is not None]
    outs, expected = LeakyRows.apply(*given), plain(*given)
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in outs)
    for out, same in zip(outs, expected, strict=True):
        torch.testing.assert_close(out.double(), same, rtol=1e-6, atol=2e-6)
    of, of_plain = (torch.autograd.grad(squared(each), leaves) for each in (outs, expected))
    for a, b in zip(of, of_plain, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gates_and_candidates_of_all_logits(precision):
    bits = torch.arange(2**16, dtype=torch.int32) << 16
    x = bits.view(torch.float32)
    x = x[x.isfinite()].reshape(-1, CHANNELS).to(precision)  # every number of bfloat16
    eye, none = torch.eye(CHANNELS), torch.zeros(CHANNELS, CHANNELS)
    gates, w = torch.cat([eye, none], 1).repeat(2, 1), torch.cat([none, eye], 1)

    def passed(x: torch.Tensor) -> list[torch.Tensor]:
        as_features = x[:, :, None, None]
        return torch.ops.synthmtl.leaky_rows(as_features, torch.zeros_like(as_features), [gates], [], [w], len(x))

    _, _, turn = passed(x)
    maps, _, candidates, _ = turn.split([2 * x.numel(), 2 * x.numel(), x.numel(), 2 * x.numel()])
    rtol = {torch.float32: 1e-5, torch.bfloat16: 1.05 * 2**-8}[precision]  # of rounding, and of a quicker sigmoid
    expected = torch.sigmoid(x.double()).repeat(1, 2)
    torch.testing.assert_close(maps.view_as(expected).double(), expected, rtol=rtol, atol=1e-37)
    torch.testing.assert_close(candidates.view_as(x).double(), x.double().tanh(), rtol=rtol, atol=2e-7)
    x[0, 0] = torch.nan
    out, *_ = passed(x[:2])
    assert out[0].isnan().all() and not out[1].isnan().any()


def test_what_is_not_taken_is_the_receiver():
    x, y, gates, _, w = inputs(directions=1)
    taken = torch.cat([torch.zeros(CHANNELS), torch.full((CHANNELS,), -1e9)])
    (out,) = LeakyRows.apply(x, y, torch.zeros_like(gates), taken, w)
    assert torch.equal(out, x)


def test_two_directions_are_each_on_its_own():
    x, y, *weights = inputs()
    x_too, y_too = LeakyRows.apply(x, y, *weights)
    alone = [*LeakyRows.apply(x, y, *weights[:3]), *LeakyRows.apply(y, x, *weights[3:])]
    torch.testing.assert_close([x_too, y_too], alone)
    # One of the two is enough for a gradient.
    of_one = torch.autograd.grad(y_too.sum(), [x, y, weights[3]])
    torch.testing.assert_close(of_one, torch.autograd.grad(alone[1].sum(), [x, y, weights[3]]))


def test_one_turn_is_several(monkeypatch):
    given = inputs()
    several = LeakyRows.apply(*given)
    of_several = torch.autograd.grad(squared(several), given)
    monkeypatch.setattr(rows, "TURN", 10_000)
    one = LeakyRows.apply(*given)
    torch.testing.assert_close(one, several)
    torch.testing.assert_close(torch.autograd.grad(squared(one), given), of_several)


@pytest.mark.parametrize("directions", [1, 2])
def test_gradients_of_gradients(directions):
    given = inputs(directions=directions)
    found = []
    for function in (LeakyRows.apply, plain):
        first = torch.autograd.grad(squared(function(*given)), given, create_graph=True)
        found.append(torch.autograd.grad(squared(first), given))
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 1e-5 * b.norm()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_graph_that_is_retained_can_be_passed_again(precision):
    x, y, *weights = inputs()
    outs = LeakyRows.apply(x.to(precision), y.to(precision), *weights)
    passes = [torch.autograd.grad(squared(outs), [x, y, *weights], retain_graph=again) for again in (True, True, False)]
    assert all(torch.equal(a, b) for later in passes[1:] for a, b in zip(passes[0], later, strict=True))


def test_gradients_of_many_losses_at_once():
    # As aggregators of gradients take them.
    given = inputs()
    outs = LeakyRows.apply(*given)
    losses = [torch.randn(4, *out.shape, dtype=out.dtype) for out in outs]
    batched = torch.autograd.grad(outs, given, losses, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(outs, given, pair, retain_graph=True) for pair in zip(*losses, strict=True)]
    for together, each in zip(batched, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(together, torch.stack(each), rtol=1e-4, atol=1e-4)


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
    plain, compiled = (LeakySharing(CHANNELS, **options).to(memory_format=torch.channels_last) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compile_units(compiled)
    taken = []
    monkeypatch.setattr(LeakyRows, "apply", lambda *given, apply=LeakyRows.apply: taken.append(1) or apply(*given))
    given = [last(4, CHANNELS, 5, 5) + shift for shift in range(plain.tasks)]
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
    unit, given = LeakySharing(CHANNELS), [last(2, CHANNELS, 4, 4), last(2, CHANNELS, 4, 4) - 1]
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
    unit = ConvFLU(CHANNELS, **options)
    compile_units(unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert unit(last(2, CHANNELS, 4, 4), last(2, CHANNELS, 4, 4)) == "general"


def test_other_features_take_the_general_way(monkeypatch):
    monkeypatch.setattr("synthmtl.sharing.gates._compiled_step", lambda: lambda pair, x, y: "general")
    unit, narrow, x = ConvFLU(CHANNELS), ConvFLU(8), last(2, CHANNELS, 8, 8)
    compile_units(unit)
    compile_units(narrow)
    with torch.autocast("cpu", torch.bfloat16):
        assert unit(x.contiguous(), x) == "general"
        assert narrow(x[:, :8], x[:, 8:]) == "general"
        unit.forced_pass = 0.5
        assert unit(x, x) == "general"
        unit.forced_pass = None
        assert unit(x, x).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.float16):
        assert unit(x, x) == "general"


def test_precisions():
    x = last(2, CHANNELS, 3, 3)
    assert served(x, x) == torch.float32
    assert served(x.bfloat16(), x) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert served(x.bfloat16(), x) == torch.bfloat16
    with torch.autocast("cpu", torch.float16):
        assert served(x, x) is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    unit, given = LeakySharing(CHANNELS), [last(2, CHANNELS, 4, 4), last(2, CHANNELS, 4, 4) - 1]
    with mode():
        plainly = unit(given)
        compile_units(unit)
        torch.testing.assert_close(unit(given), plainly, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("watched", ["gates", "pair"])
def test_looked_at_pairs_are_computed_by_themselves(watched):
    unit, given = LeakySharing(CHANNELS), [last(2, CHANNELS, 4, 4), last(2, CHANNELS, 4, 4) - 1]
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
