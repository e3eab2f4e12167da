import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference import look_ahead_affinity


class Point(nn.Module):
    """Shared parameters θ (2,) and a number of task a alone."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.own = nn.Parameter(torch.tensor(1.0))


def test_equals_a_quadratic_worked_out_by_hand():
    # L_a = θ1² + θ2² + own² = 6, L_b = (θ1 - 3)² = 4; gradients (2, 4) and (-4, 0); step 0.1.
    # After a: θ = (0.8, 1.6), L_a = 4.2, L_b = 4.84. After b: θ = (1.4, 2), L_a = 6.96, L_b = 2.56. own stays.
    model = Point()

    def losses():
        return {"a": model.theta.square().sum() + model.own**2, "b": (model.theta[0] - 3) ** 2}

    found = look_ahead_affinity(model, losses, [model.theta], step_size=0.1)
    assert found.tasks == ("a", "b")
    expected = torch.tensor([[1 - 4.2 / 6, 1 - 4.84 / 4], [1 - 6.96 / 6, 1 - 2.56 / 4]], dtype=torch.float64)
    torch.testing.assert_close(found.matrix, expected, atol=1e-6, rtol=0)


def test_twins_opposites_and_strangers():
    model = Point()

    def losses():
        one = (model.theta[0] - 3) ** 2
        return {"one": one, "twin": 2 * one, "opposite": 8 - one, "stranger": (model.theta[1] - 1) ** 2}

    z = look_ahead_affinity(model, losses, [model.theta], step_size=0.01).matrix
    assert z[0, 0] == pytest.approx(z[0, 1]) and z[0, 0] > 0
    assert z[0, 2] < 0 and z[2, 0] < 0
    assert z[0, 3] == z[3, 0] == 0


def test_a_loss_that_is_not_above_zero_has_no_affinity():
    model = Point()
    found = look_ahead_affinity(
        model, lambda: {"a": model.theta.sum(), "b": model.theta.sum() - 3}, [model.theta], step_size=0.1
    )
    assert found.matrix.isnan().tolist() == [[False, True]] * 2
    assert found.as_dict()["matrix"][0][1] is None


def test_a_task_that_has_no_label_in_the_batch_is_one_whose_loss_is_zero():
    model = Point()

    def affinity(absent):
        return look_ahead_affinity(
            model, lambda: {"a": model.theta.square().sum(), "b": absent()}, [model.theta], step_size=0.1
        ).matrix

    constant, zero = affinity(lambda: torch.zeros(())), affinity(lambda: 0 * model.theta.sum())
    assert torch.equal(constant.isnan(), torch.tensor([[False, True]] * 2))
    assert torch.equal(constant[:, 0], zero[:, 0]) and constant[0, 0] > 0 and constant[1, 0] == 0


@pytest.mark.parametrize("size", [1e-2, 1e-5, 1e-8])
def test_double_precision_is_kept(size):
    # Z is the first order of the relative change, however small the step is: <∇a, ∇b> η / L_b.
    model = Point().double()

    def losses():
        return {"a": (model.theta[0] - 3) ** 2, "b": (model.theta.sum() - 7) ** 2}

    found = look_ahead_affinity(model, losses, [model.theta], step_size=size).matrix / size
    slopes, values = torch.tensor([[-4.0, 0.0], [-8.0, -8.0]]), torch.tensor([4.0, 16.0])
    expected = (slopes @ slopes.T / values).double()
    torch.testing.assert_close(found, expected, atol=0, rtol=max(10 * size, 1e-6))


class Net(nn.Module):
    """With batch norm, dropout and a buffer that the forward pass replaces."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.body(x).square().mean(0)


def test_everything_is_restored_to_the_bit():
    model = Net().train()
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    model(x).sum().backward()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()

    def losses():
        return dict(zip("ab", model(x), strict=True))

    first = look_ahead_affinity(model, losses, model.body.parameters(), step_size=0.1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, values[name]) and value.data_ptr() == places[name], name
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    # The same dropout masks and statistics in every evaluation: a second measurement is the same one.
    second = look_ahead_affinity(model, losses, model.body.parameters(), step_size=0.1)
    assert torch.equal(first.matrix, second.matrix) and first.matrix.diagonal().gt(0).all()


def test_a_failure_restores_too():
    model = Net().train()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    calls = []

    def losses():
        calls.append(model(torch.ones(4, 4)))
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return dict(zip("ab", calls[-1], strict=True))

    with pytest.raises(RuntimeError, match="out of memory"):
        look_ahead_affinity(model, losses, model.body.parameters(), step_size=0.1)
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def test_the_step_is_seen_under_autocast():
    torch.manual_seed(0)
    model, x = nn.Linear(8, 2), torch.randn(32, 8, generator=torch.Generator().manual_seed(1))

    def losses():
        return dict(zip("ab", model(x).float().square().mean(0), strict=True))

    plain = look_ahead_affinity(model, losses, model.parameters(), step_size=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = look_ahead_affinity(model, losses, model.parameters(), step_size=0.1)
    torch.testing.assert_close(plain.matrix, cast.matrix, atol=0.02, rtol=0)
    assert plain.matrix.diagonal().gt(0.1).all()


@pytest.mark.parametrize(
    ("options", "message"), [({"step_size": 0.0}, "step_size"), ({"step_size": 0.1, "shared": []}, "shared is empty")]
)
def test_bad_usage_is_told(options, message):
    model = Point()
    with pytest.raises(InputError, match=message):
        look_ahead_affinity(model, dict, **({"shared": [model.theta]} | options))


@pytest.mark.parametrize(
    ("bad", "message"), [(None, "'b' is None: give a scalar tensor"), (torch.ones(2), "'b' has shape")]
)
@pytest.mark.parametrize("before", [0, 1])
def test_a_loss_that_is_no_scalar_is_told_whenever_it_comes(bad, message, before):
    model, given = Point(), iter([*[torch.zeros(())] * before, bad])
    with pytest.raises(InputError, match=message):
        look_ahead_affinity(model, lambda: {"a": model.theta.sum(), "b": next(given)}, [model.theta], step_size=0.1)
