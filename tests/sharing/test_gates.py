import pickle
from functools import cache

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.sharing import ConvFLU, Gates, LeakySharing, build_sharing, compile_units, gates, recorded_gates


def features(tasks=2, channels=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, 3, 3, generator=generator) for _ in range(tasks)]


@pytest.mark.parametrize("options", [{}, {"pass_reads": "donor"}, {"gating": "channel"}, {"fixed_pass": 0.3}])
def test_a_hook_sees_and_replaces_the_gates(options):
    flu = ConvFLU(4, gate_bias=0.0, **options)
    x, y = features()
    seen = []
    handle = flu.gates.register_forward_hook(lambda _, inputs, out: seen.append(out))
    flu(x, y)
    (r, z) = seen[0]
    assert isinstance(flu.gates, Gates) and r.shape == z.shape == x.shape
    if "fixed_pass" in options:
        assert (r == 0.3).all()
    handle.remove()
    flu.gates.register_forward_hook(lambda _, inputs, out: (out[0], torch.zeros_like(out[1])))
    assert torch.equal(flu(x, y), x)


def test_forced_values_are_what_a_hook_sees():
    flu = ConvFLU(4)
    flu.forced_pass, flu.forced_take = 0.25, 0.75
    with recorded_gates(flu) as maps:
        flu(*features())
    r, z = maps["gates"]
    assert (r == 0.25).all() and (z == 0.75).all()


def test_gates_are_recorded_inside_the_context_only():
    units, given = LeakySharing(4, 3), features(3)
    with recorded_gates(units) as maps:
        units(given)
    assert sorted(maps) == sorted(f"units.{a}_to_{b}.gates" for a in range(3) for b in range(3) if a != b)
    r, z = maps["units.1_to_0.gates"]
    expected = units.units["1_to_0"].gates(given[0], given[1])
    assert torch.equal(r, expected[0]) and torch.equal(z, expected[1])
    assert not r.requires_grad
    units([2 * x for x in given])
    assert torch.equal(maps["units.1_to_0.gates"][0], r)
    assert not any(m._forward_hooks for m in units.modules())


def test_receivers():
    units, given = LeakySharing(4, 3, receivers=[2]), features(3)
    assert sorted(units.units) == ["0_to_2", "1_to_2"]
    out = units(given)
    assert out[0] is given[0] and out[1] is given[1] and not torch.equal(out[2], given[2])
    for receivers in ([3], [-1], [], [0.0], [False], ["0"]):
        with pytest.raises(InputError, match="receivers is"):
            LeakySharing(4, 3, receivers=receivers)


def test_a_unit_is_pickled_without_its_last_graph():
    unit = LeakySharing(4)
    unit.units["0_to_1"].penalty = torch.ones(1, requires_grad=True) * 2
    assert pickle.loads(pickle.dumps(unit)).penalty() is None
    assert unit.penalty() == 2


@pytest.mark.parametrize("name", ["leaky", "replace", "sparse"])
def test_compiled_units_compute_the_same_and_heed_hooks(name, monkeypatch):
    # What is captured is tested here; that the compiler translates it well is the benchmark's part, and slow.
    monkeypatch.setattr(gates, "_compiled_step", cache(lambda: torch.compile(gates._step, backend="eager")))
    torch.manual_seed(0)
    unit, given = build_sharing(name, 4).eval(), features()
    with torch.autocast("cpu", torch.bfloat16):
        expected, penalty = unit(given), unit.penalty()
        compile_units(unit)
        passes = torch._dynamo.utils.counters["frames"]["ok"]
        for a, b in zip(unit(given), expected, strict=True):
            torch.testing.assert_close(a, b)
        if penalty is not None:
            torch.testing.assert_close(unit.penalty(), penalty)
        assert torch._dynamo.utils.counters["frames"]["ok"] > passes
        with recorded_gates(unit) as maps:
            unit(given)
        assert len(maps) == 2
        unit.units["0_to_1"].forced_take = 0.0
        assert unit(given)[1] is given[1]
        compile_units(unit, False)
        assert torch.equal(unit(given)[0], expected[0])


def test_full_precision_is_not_compiled_on_a_cpu(monkeypatch):
    monkeypatch.setattr(gates, "_compiled_step", lambda: lambda pair, x, y: "compiled")
    pair, (x, y) = ConvFLU(4, kernel_size=3), features()
    compile_units(pair)
    assert pair(x, y) != "compiled"
    with torch.autocast("cpu", torch.bfloat16):
        assert pair(x, y) == "compiled"
    assert pair(x.bfloat16(), y.bfloat16()) == "compiled"


@pytest.mark.parametrize(
    ("name", "options", "noisy"),
    [("sparse", {}, True), ("bottleneck", {"rate": 0.1}, True), ("bottleneck", {}, False), ("replace", {}, False)],
)
def test_what_draws_noise_is_not_compiled_in_training(name, options, noisy, monkeypatch):
    # Compiled code draws other numbers than the same unit does when it is hooked, and so runs uncompiled.
    monkeypatch.setattr(gates, "_compiled_step", lambda: lambda pair, x, y: "compiled")
    unit, (x, y) = build_sharing(name, 4, options=options), features()
    pair = unit.units["0_to_1"]
    compile_units(unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert (pair.train()(x, y) != "compiled") is noisy
        assert pair.eval()(x, y) == "compiled"
        if noisy:
            outs = []
            for watch in (False, True):
                torch.manual_seed(0)
                handle = pair.gates.register_forward_hook(lambda *_: None) if watch else None
                outs.append(pair.train()(x, y))
            handle.remove()
            assert torch.equal(*outs)


def test_a_wide_convolution_is_the_same_as_a_matrix_product():
    layer = torch.nn.Conv2d(gates.WIDE, 3, 1).bfloat16()
    x = torch.randn(2, gates.WIDE, 4, 5).bfloat16().to(memory_format=torch.channels_last)
    torch.testing.assert_close(gates.convolve(layer, x), layer(x), atol=0.02, rtol=0.02)
    assert gates.convolve(layer.float(), x.float()).dtype == torch.float32
