"""Invariants of every sharing unit."""

import copy
import math

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.sharing import LEAKY_ABLATIONS, SHARING_UNITS, LeakySharing, build_sharing, sharing_class

C = 6
OPTIONS = {
    "bottleneck_all": ("bottleneck", {"direct": False, "width": 2, "rate": 0.1}),
    "replace_drop": ("replace", {"drop": True}),
    "replace_message": ("replace", {"drop": True, "own": False}),
    "sparse_take": ("sparse", {"penalized": "take"}),
    "adopt_all": ("adopt", {"receivers": [0, 1], "kernel_size": 3}),
    "leaky_channel": ("leaky", {"gating": "channel", "kernel_size": 3, "gate_bias": -2.0}),
    "leaky_normalized": ("leaky", {"normalize": True}),
    "leaky_one_way": ("leaky", {"receivers": [1]}),
    "cross_stitch_scalar": ("cross_stitch", {"per": "unit"}),
    "nddr_plain": ("nddr", {"normalize": False}),
    "cgc_more": ("cgc", {"own_experts": 2, "shared_experts": 3, "kernel_size": 3}),
    "residual_random": ("residual", {"last": "random", "kernel_size": 3}),
}
CASES = {name: (name, {}) for name in SHARING_UNITS} | OPTIONS
every = pytest.mark.parametrize("case", CASES)


def build(case, tasks=2, channels=C, seed=0):
    name, options = CASES[case]
    torch.manual_seed(seed)
    return build_sharing(name, channels, tasks, options)


def stirred(unit):
    """Away from its start values, where zeros could hide a mistake; normalization has seen data."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in unit.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    unit(features(unit.tasks, unit.channels, seed=2))
    return unit.eval()


def features(tasks=2, channels=C, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, channels, size, size, generator=generator).requires_grad_() for _ in range(tasks)]


@every
@pytest.mark.parametrize("tasks", [2, 3])
def test_one_feature_map_a_task_of_the_same_shape(case, tasks):
    given = features(tasks)
    out = build(case, tasks)(given)
    assert isinstance(out, list) and len(out) == tasks
    assert all(o.shape == x.shape and o.isfinite().all() for o, x in zip(out, given, strict=True))


@every
def test_sharing_needs_two_tasks(case):
    name, options = CASES[case]
    with pytest.raises(ValueError, match="at least two tasks, not 1"):
        build_sharing(name, C, 1, options)


# As the docstrings count them, for C channels and T tasks.
COUNTS = {
    "none": lambda c, t: 0,
    "hard": lambda c, t: 0,
    "leaky": lambda c, t: t * (t - 1) * 6 * c**2,
    "leaky_shut": lambda c, t: 0,
    "leaky_open": lambda c, t: t * (t - 1) * 2 * c**2,
    "leaky_half": lambda c, t: t * (t - 1) * 2 * c**2,
    "leaky_r_only": lambda c, t: t * (t - 1) * 4 * c**2,
    "leaky_z_only": lambda c, t: t * (t - 1) * 4 * c**2,
    "leaky_donor_r": lambda c, t: t * (t - 1) * 5 * c**2,
    "cross_stitch": lambda c, t: t**2 * c,
    "nddr": lambda c, t: t * (t * c**2 + 2 * c),
    "mtan": lambda c, t: t * (3 * c**2 + 5 * c),
    "cgc": lambda c, t: (t + 1) * (c**2 + 2 * c) + t * (c + 1) * 2,
    "residual": lambda c, t: t * ((t + 1) * c**2 + 2 * c),
    "bottleneck": lambda c, t: t * (t - 1) * (4 * c**2 + 2 * c + 2 * c * max(1, c // 4)),
    "sparse": lambda c, t: t * (t - 1) * (5 * c**2 + 2 * c),
    "replace": lambda c, t: t * (t - 1) * (5 * c**2 + 2 * c),
    "adopt": lambda c, t: (t - 1) * (3 * c**2 + 2 * c),
    "bottleneck_all": lambda c, t: t * (t - 1) * (c**2 + c + 3 * c * 2),
    "replace_drop": lambda c, t: t * (t - 1) * (3 * c**2 + c),
    "replace_message": lambda c, t: t * (t - 1) * (2 * c**2 + c),
    "sparse_take": lambda c, t: t * (t - 1) * (5 * c**2 + 2 * c),
    "adopt_all": lambda c, t: 2 * (t - 1) * (27 * c**2 + 2 * c),
    "leaky_channel": lambda c, t: t * (t - 1) * (4 * c**2 + 18 * c**2 + 2 * c),
    "leaky_normalized": lambda c, t: t * (t - 1) * (6 * c**2 + 2 * c),
    "leaky_one_way": lambda c, t: (t - 1) * 6 * c**2,
    "cross_stitch_scalar": lambda c, t: t**2,
    "nddr_plain": lambda c, t: t**2 * c**2,
    "cgc_more": lambda c, t: (2 * t + 3) * (9 * c**2 + 2 * c) + t * (c + 1) * 5,
    "residual_random": lambda c, t: t * ((t + 1) * 9 * c**2 + 2 * c),
}


@every
@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("channels", [5, 8])
def test_parameters_as_the_docstring_counts_them(case, tasks, channels):
    assert sum(p.numel() for p in build(case, tasks, channels).parameters()) == COUNTS[case](channels, tasks)


def shut(unit):
    """The unit's way of sharing nothing; None if it has none."""
    with torch.no_grad():
        if hasattr(unit, "units"):
            for pair in unit.units.values():
                pair.forced_take = 0.0
        elif hasattr(unit, "alpha"):
            unit.alpha.copy_(torch.eye(unit.tasks)[..., None].expand_as(unit.alpha))
        elif type(unit).__name__ == "ResidualSharing":
            for layers in unit.per_task:
                layers[3].weight.zero_()
        elif type(unit).__name__ == "NDDR" and isinstance(unit.per_task[0][1], torch.nn.Identity):
            for layers in unit.per_task:
                layers[0].weight.zero_()
                layers[0].weight[:, : unit.channels, 0, 0] = torch.eye(unit.channels)
        elif any(True for _ in unit.parameters()):
            return None
    return unit


SHUTTABLE = [case for case in CASES if shut(build(case)) is not None]


def test_which_units_can_be_shut():
    # Batch normalization, a softmax over experts and a mask without a direct path keep the others from it.
    assert set(CASES) - set(SHUTTABLE) == {"nddr", "mtan", "cgc", "cgc_more"}


@pytest.mark.parametrize("case", SHUTTABLE)
@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_shut_means_untouched_bit_for_bit_and_nothing_for_the_donor(case, tasks):
    unit = shut(stirred(build(case, tasks)))
    given = features(tasks)
    for receiver, out in enumerate(unit(given)):
        assert torch.equal(out, given[receiver])
        gradients = torch.autograd.grad(out.square().sum(), given, allow_unused=True, retain_graph=True)
        for donor, gradient in enumerate(gradients):
            if donor == receiver:
                assert torch.equal(gradient, 2 * given[receiver])
            else:
                assert gradient is None or not gradient.any()


APART = ("none", "hard", "leaky_shut")


@every
@pytest.mark.parametrize("tasks", [2, 3])
def test_open_means_that_a_gradient_crosses(case, tasks):
    unit, given = stirred(build(case, tasks)), features(tasks)
    receivers = CASES[case][1].get("receivers", [0] if case == "adopt" else range(tasks))
    for receiver, out in enumerate(unit(given)):
        gradients = torch.autograd.grad(out.square().sum(), given, allow_unused=True, retain_graph=True)
        for donor in set(range(tasks)) - {receiver}:
            crosses = gradients[donor] is not None and gradients[donor].abs().sum() > 0
            assert crosses == (case not in APART and receiver in receivers)


def swapped(state):
    """A unit's state with its two tasks in the other order."""
    names = {"per_task.0.": "per_task.1.", "per_task.1.": "per_task.0."}
    names |= {"gate_per_task.0.": "gate_per_task.1.", "gate_per_task.1.": "gate_per_task.0."}
    names |= {"units.0_to_1.": "units.1_to_0.", "units.1_to_0.": "units.0_to_1."}
    turned = {}
    for key, value in state.items():
        start = next((old for old in names if key.startswith(old)), "")
        new = names.get(start, "") + key[len(start) :]
        turned[new] = value.flip(0, 1) if key == "alpha" else value.flip(0) if key == "mixture" else value
    return turned


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("leaky_one_way", "adopt")])
def test_tasks_swapped_are_outputs_swapped(case):
    unit = stirred(build(case))
    other = copy.deepcopy(unit)
    other.load_state_dict(swapped(unit.state_dict()))
    x, y = features()
    for a, b in zip(unit([x, y]), reversed(other([y, x])), strict=True):
        torch.testing.assert_close(a, b)
    if case not in APART:
        assert not torch.allclose(unit([x, y])[0], x)


@every
def test_saved_and_loaded(case, tmp_path):
    unit = stirred(build(case, 3))
    torch.save(unit.state_dict(), tmp_path / "unit.pt")
    other = build(case, 3, seed=5)
    other.load_state_dict(torch.load(tmp_path / "unit.pt", weights_only=True))
    given = features(3)
    for a, b in zip(unit(given), other.eval()(given), strict=True):
        assert torch.equal(a, b)


@every
def test_every_parameter_learns(case):
    unit = build(case, 3)
    out = stirred(unit).train()(features(3))
    loss = sum(o.square().mean() for o in out)
    if unit.penalty() is not None:
        loss = loss + unit.penalty()
    loss.backward()
    for name, p in unit.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


@every
def test_bfloat16_autocast_stays_near(case):
    unit = stirred(build(case))
    given = [x.detach() for x in features()]
    with torch.autocast("cpu", torch.bfloat16):
        low = unit([x.bfloat16().to(memory_format=torch.channels_last) for x in given])
    for a, b in zip(low, unit(given), strict=True):
        assert a.dtype == torch.bfloat16 or case == "hard" or case == "none"
        assert (a.float() - b).abs().max() < 0.1 * max(1.0, b.abs().max().item())


@every
def test_a_copy_after_a_step(case):
    unit = build(case)
    unit(features())
    twin = copy.deepcopy(unit)
    assert twin.penalty() is None
    assert all(torch.equal(a, b) for a, b in zip(unit.parameters(), twin.parameters(), strict=True))


def test_only_hard_sharing_has_a_single_trunk():
    assert [name for name, unit in SHARING_UNITS.items() if unit.single_trunk] == ["hard"]


def test_units_by_name():
    assert sharing_class("leaky") is LeakySharing
    with pytest.raises(InputError, match="unknown sharing unit 'soft': use one of none, hard, leaky, leaky_shut,"):
        sharing_class("soft")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "leaky",
            {"kernelsize": 3},
            "unit 'leaky' has no option 'kernelsize', it has receivers, kernel_size,",
        ),
        ("hard", {"kernel_size": 3}, "unit 'hard' has no option 'kernel_size', it has none"),
        ("leaky_shut", {"fixed_take": 1.0}, "'leaky_shut' has no option 'fixed_take'"),
        ("leaky", {"kernel_size": 2}, "sharing_options: 'kernel_size' of unit 'leaky' is 2, it must be 1 or 3"),
        ("leaky", {"kernel_size": 1.0}, "'kernel_size' of unit 'leaky' is 1.0, it must be 1 or 3"),
        ("leaky", {"kernel_size": True}, "'kernel_size' of unit 'leaky' is True, it must be 1 or 3"),
        (
            "leaky",
            {"gate_bias": "x"},
            "'gate_bias' of unit 'leaky' is 'x', it must be a number or null",
        ),
        ("leaky", {"fixed_pass": 2}, "sharing_options: fixed_pass of the leaky unit is 2, use a number in"),
        ("nddr", {"normalize": 1}, "is 1, it must be true or false"),
        ("cross_stitch", {"per": "pixel"}, "is 'pixel', it must be channel or unit"),
        (
            "cgc",
            {"own_experts": 0},
            "own_experts and shared_experts of cgc are 0 and 1, use 1 or more",
        ),
        ("adopt", {"receivers": [2]}, r"sharing_options: receivers is \[2\], name tasks from 0 to 1"),
        ("bottleneck", {"width": 7}, "sharing_options: width of the bottleneck is 7, use 1 to 6"),
    ],
)
def test_options_that_do_not_suit(name, options, message):
    with pytest.raises(InputError, match=message) as caught:
        build_sharing(name, C, 2, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "option", "of"),
    [
        ("bottleneck", "rate", "the bottleneck"),
        ("sparse", "weight", "the sparse unit"),
        ("replace", "weight", "the replacing unit"),
    ],
)
def test_weights_of_penalties_out_of_range(name, option, of, value):
    message = f"sharing_options: {option} of {of} is {value}, use a finite number from 0 up"
    with pytest.raises(InputError, match=message):
        build_sharing(name, C, 2, {option: value})


def test_ablations_are_the_leaky_unit_with_options():
    given = features()
    for name, options in LEAKY_ABLATIONS.items():
        torch.manual_seed(0)
        ablated = build_sharing(name, C)
        torch.manual_seed(0)
        for a, b in zip(ablated(given), build_sharing("leaky", C, 2, options)(given), strict=True):
            assert torch.equal(a, b)


def test_start_values():
    given = features()
    for name, options in {"cross_stitch": {"own": 0.75}, "nddr": {"own": 0.75, "normalize": False}}.items():
        out = build_sharing(name, C, 2, options)(given)
        torch.testing.assert_close(out[0], 0.75 * given[0] + 0.25 * given[1])
    assert all(torch.equal(o, x) for o, x in zip(build("residual")(given), given, strict=True))
    assert not torch.equal(build("residual_random")(given)[0], given[0])
    torch.testing.assert_close(build_sharing("mtan", C, 2, {"mask_bias": 40.0})(given)[1], (given[0] + given[1]) / 2)
    adopted = build_sharing("adopt", C, 2, {"pass_bias": 40.0, "take_bias": 40.0})(given)
    torch.testing.assert_close(adopted[0], given[1])
    assert adopted[1] is given[1]


def test_cgc_with_biased_gates_uses_own_experts_only():
    unit = build_sharing("cgc", C, 2, {"own_bias": 40.0}).eval()
    given = features()
    torch.testing.assert_close(unit(given)[1], unit.per_task[1][0](given[1]))


def test_a_donor_reading_pass_gate_knows_nothing_of_the_receiver():
    for name in ("leaky_donor_r", "bottleneck", "sparse", "replace", "adopt"):
        pair = stirred(build_sharing(name, C)).units["1_to_0"]
        x, y = features()
        passed = [pair.gates(receiver, y)[0] for receiver in (x, 3 * x)]
        assert torch.equal(*passed)
        taken = [pair.gates(receiver, y)[1] for receiver in (x, 3 * x)]
        assert not torch.equal(*taken)


def test_penalties():
    given = features()
    replace = build_sharing("replace", C, 2, {"weight": 0.5})
    replace(given)
    z = [
        pair.gates(given[r], given[1 - r])[1]
        for r, pair in enumerate((replace.units["1_to_0"], replace.units["0_to_1"]))
    ]
    torch.testing.assert_close(replace.penalty(), 0.5 * sum((1 - each).mean() for each in z))
    rated = build_sharing("bottleneck", C, 2, {"rate": 0.1, "receivers": [0]}).eval()
    rated(given)
    pair = rated.units["1_to_0"]
    message = pair.squeeze(pair.gates(*given)[0] * given[1])
    torch.testing.assert_close(rated.penalty(), 0.05 * message.square().mean())
    for name in ("leaky", "cross_stitch", "bottleneck", "adopt"):
        unit = build_sharing(name, C)
        unit(given)
        assert unit.penalty() is None


def test_noise_limits_the_message_in_training_only():
    unit, given = build_sharing("bottleneck", C, 2, {"rate": 0.1}), features()
    torch.manual_seed(0)
    first, second = unit(given), unit(given)
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(0)
    assert torch.equal(unit(given)[0], first[0])
    unit.eval()
    assert torch.equal(unit(given)[0], unit(given)[0])


def test_hard_concrete_gates_reach_both_ends():
    given = features()
    for bias, end in ((-4.0, 0.0), (4.0, 1.0)):
        unit = build_sharing("sparse", C, 2, {"pass_bias": bias}).eval()
        with torch.no_grad():
            for pair in unit.units.values():
                pair.gates.of_donor.weight.zero_()
        passed, _ = unit.units["1_to_0"].gates(*given)
        assert (passed == end).all()
        unit(given)
        # P(gate > 0) of a hard-concrete variable, integrated over its noise.
        u = torch.linspace(1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
        stretched = torch.sigmoid((u.logit() + bias) / (2 / 3)) * 1.2 - 0.1
        share = (stretched > 0).double().mean().item()
        assert math.isclose(unit.penalty().item(), 2 * 0.1 * share, abs_tol=1e-4)


def test_a_bottleneck_bounds_the_rank_of_the_message():
    unit = build_sharing("bottleneck", 8, 2, {"direct": False, "width": 2, "receivers": [0]})
    x, y = features(channels=8)
    sums = torch.atanh(unit([x, y])[0].double().clamp(-1 + 1e-7, 1 - 1e-7))
    values = torch.linalg.svdvals(sums.transpose(0, 1).flatten(1))
    assert (values[2:] < 1e-3 * values[0]).all()
