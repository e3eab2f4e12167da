import pytest
import torch
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.sharing import ConvFLU, LeakySharing, build_sharing


def faces(count=2, channels=5, size=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, channels, size, size, generator=generator).requires_grad_() for _ in range(count)]


def unit(channels=5, seed=0, **options):
    torch.manual_seed(seed)
    return ConvFLU(channels, **options)


def transcription(flu, x, y):
    """The four equations with their four convolutions, taken out of the unit's two."""
    channels = x.shape[1]
    w_r, w_z = flu.gates.of_both.weight.split(channels)
    w, u = flu.candidate.weight[:, :channels], flu.candidate.weight[:, channels:]
    pad = w.shape[-1] // 2
    b_r, b_z = (None, None) if flu.gates.of_both.bias is None else flu.gates.of_both.bias.chunk(2)
    both = torch.cat([x, y], 1)
    r = torch.sigmoid(F.conv2d(both, w_r, b_r, padding=pad))
    candidate = torch.tanh(F.conv2d(r * y, w, padding=pad) + F.conv2d(x, u, padding=pad))
    z = torch.sigmoid(F.conv2d(both, w_z, b_z, padding=pad))
    return (1 - z) * x + z * candidate


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("gate_bias", [None, -2.0])
@pytest.mark.parametrize(("channels", "layout"), [(5, torch.contiguous_format), (128, torch.channels_last)])
def test_equals_the_equations(kernel_size, gate_bias, channels, layout):
    flu = unit(channels, kernel_size=kernel_size, gate_bias=gate_bias)
    x, y = [face.detach().to(memory_format=layout).requires_grad_() for face in faces(channels=channels)]
    out, expected = flu(x, y), transcription(flu, x, y)
    assert (out - expected).abs().max() < 1e-5
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    given = [x, y, *flu.parameters()]
    for a, b in zip(
        torch.autograd.grad((out * probe).sum(), given),
        torch.autograd.grad((expected * probe).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("channels", "kernel_size"), [(5, 1), (8, 3)])
def test_parameters_as_counted(channels, kernel_size):
    published = 6 * channels**2 * kernel_size**2
    assert sum(p.numel() for p in ConvFLU(channels, kernel_size).parameters()) == published
    assert sum(p.numel() for p in ConvFLU(channels, kernel_size, -2.0).parameters()) == published + 2 * channels
    for tasks in (2, 3):
        units = LeakySharing(channels, tasks, kernel_size=kernel_size)
        assert sum(p.numel() for p in units.parameters()) == tasks * (tasks - 1) * published


def test_a_pass_bias_without_biases_is_refused():
    with pytest.raises(InputError, match="pass_bias of the leaky unit is 4.0, .* without a gate_bias: give one too"):
        build_sharing("leaky", 4, options={"pass_bias": 4.0})
    with pytest.raises(InputError, match="pass_bias of the leaky unit is 4.0, but its r is fixed at 1.0"):
        build_sharing("leaky", 4, options={"pass_bias": 4.0, "gate_bias": -2.0, "fixed_pass": 1.0})
    unit(pass_bias=0.0)
    bias = unit(gate_bias=-2.0, pass_bias=4.0).gates.of_both.bias
    assert bias.unique().tolist() == [-2.0, 4.0]


def test_gates_per_channel_read_the_means_over_space():
    flu = unit(gate_bias=-2.0, gating="channel")
    x, y = faces()
    means = torch.cat([x, y], 1).mean((2, 3))
    expected = torch.sigmoid(means @ flu.gates.of_both.weight[:, :, 0, 0].T + flu.gates.of_both.bias)
    r, z = flu.gates(x, y)
    assert r.shape == z.shape == x.shape
    torch.testing.assert_close(torch.cat([r, z], 1), expected[:, :, None, None].expand(-1, -1, 6, 6))
    shuffled = [face.flatten(2)[:, :, torch.randperm(36)].view_as(face) for face in (x, y)]
    torch.testing.assert_close(flu.gates(*shuffled)[1], z)


def test_normalization_keeps_the_candidate_from_saturating():
    x, y = (20 * face for face in faces())

    def saturated(flu):
        flu.forced_take = 1.0
        return (flu(x, y).abs() > 0.99).float().mean().item()

    assert saturated(unit()) > 0.5 > 0.05 > saturated(unit(normalize=True))


def test_start_values_of_the_gates():
    flu = unit(gate_bias=-2.0, pass_bias=1.0)
    flu.gates.of_both.weight.data.zero_()
    r, z = flu.gates(*faces())
    assert (r == torch.sigmoid(torch.tensor(1.0))).all() and (z == torch.sigmoid(torch.tensor(-2.0))).all()


def test_shut_gate_is_the_identity_and_no_gradient_crosses():
    flu = unit()
    flu.forced_take = 0.0
    x, y = faces()
    out = flu(x, y)
    assert torch.equal(out, x)
    (out.square().sum() + 0 * y.sum()).backward()
    assert torch.equal(x.grad, 2 * x.detach())
    assert y.grad.count_nonzero() == 0
    assert all(p.grad is None for p in flu.parameters())


def test_all_gates_shut_leave_every_task_alone():
    units = LeakySharing(5, 3)
    for flu in units.units.values():
        flu.forced_take = 0.0
    given = faces(3)
    out = units(given)
    assert all(torch.equal(o, x) for o, x in zip(out, given, strict=True))
    out[1].sum().backward()
    assert given[0].grad is None and given[2].grad is None


def test_gradient_crosses_an_open_gate_both_ways():
    torch.manual_seed(0)
    units = LeakySharing(5)
    for receiver, donor in ((0, 1), (1, 0)):
        given = faces()
        units(given)[receiver].sum().backward()
        assert given[donor].grad.abs().sum() > 0
        assert given[receiver].grad.abs().sum() > 0


def test_gradient_crosses_one_way_when_one_direction_is_shut():
    torch.manual_seed(0)
    units = LeakySharing(5)
    units.units[LeakySharing.key(receiver=0, donor=1)].forced_take = 0.0
    given = faces()
    units(given)[0].sum().backward()
    assert given[1].grad is None
    units(given)[1].sum().backward()
    assert given[0].grad.abs().sum() > 0


def test_forced_values_replace_the_gates():
    x, y = faces()
    flu = unit()
    flu.forced_take = 1.0
    assert (flu(x, y).abs() <= 1).all()  # nothing but the candidate, a tanh
    taken = flu(x, y)
    flu.forced_take = 0.5
    torch.testing.assert_close(flu(x, y), (x + taken) / 2)
    flu.forced_pass = 0.0
    assert torch.equal(*[flu(x, donor) for donor in (y, y.square())])  # a donor that may not pass has no say
    flu.forced_pass = 1.0
    w, u = flu.candidate.weight.chunk(2, 1)
    torch.testing.assert_close(flu(x, y), (x + torch.tanh(F.conv2d(y, w) + F.conv2d(x, u))) / 2)


def test_gate_bias_starts_near_the_identity():
    x, y = faces()
    distance = {bias: (unit(gate_bias=bias)(x, y) - x).abs().mean().item() for bias in (None, -2.0, -8.0)}
    assert distance[-8.0] < 0.01 < distance[-2.0] < distance[None]


def test_both_directions_read_what_was_there_before_the_exchange():
    units = LeakySharing(5)
    x, y = faces()
    out = units([x, y])
    assert torch.equal(out[0], units.units["1_to_0"](x, y))
    assert torch.equal(out[1], units.units["0_to_1"](y, x))


def test_more_donors_are_averaged():
    units = LeakySharing(5, 3)
    given = faces(3)
    flus = [units.units[LeakySharing.key(receiver=2, donor=donor)] for donor in (0, 1)]
    expected = (flus[0](given[2], given[0]) + flus[1](given[2], given[1])) / 2
    torch.testing.assert_close(units(given)[2], expected)


def test_bfloat16_autocast_stays_near():
    flu = unit(gate_bias=-2.0)
    x, y = faces()
    with torch.autocast("cpu", torch.bfloat16):
        low = flu(x, y)
    assert (low.float() - flu(x, y)).abs().max() < 0.05
