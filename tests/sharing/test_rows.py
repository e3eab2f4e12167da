"""The leaky unit's functions in C++ against autograd."""

import pytest
import torch
from torch.nn.functional import conv2d

from synthmtl.native import load_functions
from synthmtl.sharing import ConvFLU, LeakySharing, compile_units, leaky, rows
from synthmtl.sharing.rows import leaky_rows, served

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


def by_rows(x: torch.Tensor, y: torch.Tensor, *weights: torch.Tensor | None) -> list[torch.Tensor]:
    return leaky_rows(x, y, [weights[i : i + 3] for i in range(0, len(weights), 3)])


def plain(x: torch.Tensor, y: torch.Tensor, *weights: torch.Tensor | None) -> list[torch.Tensor]:
    """By autograd in float64."""
    x, y, *weights = (t if t is None else t.double() for t in (x, y, *weights))
    outs = []
    for i in range(0, len(weights), 3):
        (receiver, donor), (w_gates, bias, w) = ((y, x) if i else (x, y)), weights[i : i + 3]
        r, z = torch.sigmoid(conv2d(torch.cat([receiver, donor], 1), w_gates, bias)).chunk(2, 1)
        outs.append((1 - z) * receiver + z * torch.tanh(conv2d(torch.cat([r * donor, receiver], 1), w)))
    return outs


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("faces", [0, 1, 2, 7])
def test_both_passes_are_those_of_autograd(biased, directions, faces):
    given = inputs(biased, directions, faces)
    leaves = [t for t in given if t is not None]
    outs, expected = by_rows(*given), plain(*given)
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
    logits = bits.view(torch.float32)
    logits = logits[logits.isfinite()].reshape(-1, CHANNELS, 1, 1).to(precision)  # every number of bfloat16
    eye, none, far = torch.eye(CHANNELS), torch.zeros(CHANNELS, CHANNELS), torch.full((CHANNELS,), 100.0)

    def exchanged(donor: torch.Tensor, of_take: torch.Tensor, bias: torch.Tensor, of_message: torch.Tensor):
        """z . tanh(W (r . y)) with a receiver of zeros, r open."""
        gates = torch.cat([torch.cat([none, none], 1), torch.cat([none, of_take], 1)])[:, :, None, None]
        w = torch.cat([of_message, none], 1)[:, :, None, None]
        return by_rows(torch.zeros_like(donor), donor, gates, torch.cat([far, bias]), w)[0]

    rtol = {torch.float32: 1e-5, torch.bfloat16: 1.05 * 2**-8}[precision]  # of rounding, and of quicker functions
    candidates = exchanged(logits, none, far, eye)
    torch.testing.assert_close(candidates.double(), logits.double().tanh(), rtol=rtol, atol=2e-7)
    # Of half of the channels the gates, by messages that the others carry.
    half = CHANNELS // 2
    logits = logits.reshape(-1, half, 1, 1)
    donor = torch.cat([logits, torch.full_like(logits, 100.0)], 1)
    taken = exchanged(donor, eye, torch.zeros(CHANNELS), eye.roll(half, 1))[:, :half]
    torch.testing.assert_close(taken.double(), logits.double().sigmoid(), rtol=rtol, atol=1e-37)
    donor[0, 0] = torch.nan
    out = exchanged(donor[:2], eye, torch.zeros(CHANNELS), eye.roll(half, 1))
    assert out[0].isnan().all() and not out[1].isnan().any()


def test_what_is_not_taken_is_the_receiver():
    x, y, gates, _, w = inputs(directions=1)
    taken = torch.cat([torch.zeros(CHANNELS), torch.full((CHANNELS,), -1e9)])
    (out,) = by_rows(x, y, torch.zeros_like(gates), taken, w)
    assert torch.equal(out, x)


def test_two_directions_are_each_on_its_own():
    x, y, *weights = inputs()
    x_too, y_too = by_rows(x, y, *weights)
    alone = [*by_rows(x, y, *weights[:3]), *by_rows(y, x, *weights[3:])]
    torch.testing.assert_close([x_too, y_too], alone)
    # One of the two is enough for a gradient.
    of_one = torch.autograd.grad(y_too.sum(), [x, y, weights[3]])
    torch.testing.assert_close(of_one, torch.autograd.grad(alone[1].sum(), [x, y, weights[3]]))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [0, 1])
def test_weights_that_no_loss_reaches_have_no_gradient(side, precision):
    """None and not zeros: an aggregator would take zeros for a gradient, and an optimizer decay the weights."""
    x, y, *weights = inputs()
    given = [x, y, *weights]
    found = []
    for create_graph in (False, True):
        outs = by_rows(x.to(precision), y.to(precision), *weights)
        loss = outs[side].float().square().mean()
        found.append(torch.autograd.grad(loss, given, allow_unused=True, create_graph=create_graph))
    reached = [True, True, *[side == 0] * 3, *[side == 1] * 3]
    for gradients in found:
        assert [gradient is not None for gradient in gradients] == reached
    for first, second in zip(*found, strict=True):
        if first is not None:
            torch.testing.assert_close(first, second.detach(), rtol=0.05, atol=1e-4)


def test_one_turn_is_several(monkeypatch):
    given = inputs()
    several = by_rows(*given)
    of_several = torch.autograd.grad(squared(several), given)
    monkeypatch.setattr(rows, "TURN", 10_000)
    one = by_rows(*given)
    torch.testing.assert_close(one, several)
    torch.testing.assert_close(torch.autograd.grad(squared(one), given), of_several)


@pytest.mark.parametrize("directions", [1, 2])
def test_gradients_of_gradients(directions):
    given = inputs(directions=directions)
    found = []
    for function in (by_rows, plain):
        first = torch.autograd.grad(squared(function(*given)), given, create_graph=True)
        found.append(torch.autograd.grad(squared(first), given))
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 1e-5 * b.norm()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_graph_that_is_retained_can_be_passed_again(precision):
    x, y, *weights = inputs()
    outs = by_rows(x.to(precision), y.to(precision), *weights)
    passes = [torch.autograd.grad(squared(outs), [x, y, *weights], retain_graph=again) for again in (True, True, False)]
    assert all(torch.equal(a, b) for later in passes[1:] for a, b in zip(passes[0], later, strict=True))


def test_gradients_of_many_losses_at_once():
    # As aggregators of gradients take them.
    given = inputs()
    outs = by_rows(*given)
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
    monkeypatch.setattr(leaky, "leaky_rows", lambda *given: taken.append(1) or leaky_rows(*given))
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


def test_transformed_units_take_the_general_way():
    unit, given = LeakySharing(CHANNELS), [last(2, CHANNELS, 4, 4), last(2, CHANNELS, 4, 4) - 1]
    compile_units(unit)
    parameters = dict(unit.named_parameters())
    of_parameters = torch.func.grad(lambda p: squared(torch.func.functional_call(unit, p, (given,))))(parameters)
    squared(unit(given)).backward()
    expected = {name: parameter.grad for name, parameter in parameters.items()}
    torch.testing.assert_close(of_parameters, expected, rtol=1e-4, atol=1e-4)
    of_faces = torch.func.vmap(lambda x, y: unit([x[None], y[None]])[0][0])(*given)
    torch.testing.assert_close(of_faces, unit(given)[0], rtol=1e-4, atol=1e-5)


def test_biases_are_of_all_directions_or_none():
    x, y, *weights = inputs()
    weights[1] = None
    with pytest.raises(RuntimeError, match="2 gates and 1 biases of 2 directions"):
        by_rows(x, y, *weights)


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
