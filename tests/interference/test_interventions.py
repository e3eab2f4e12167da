import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference import (
    forced_gates,
    intervention_effects,
    open_gates,
    shut_gates,
    standard_interventions,
    swapped_gates,
)
from synthmtl.models import FERSNet
from synthmtl.sharing import LeakySharing


class Net(nn.Module):
    """Two stages of leaky sharing between tasks 0 and 1."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.stages = nn.ModuleList(LeakySharing(3, **options) for _ in range(2))

    def forward(self, features):
        for unit in self.stages:
            features = unit(features)
        return features


def features():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2)]


def snapshot(model):
    """Everything an intervention touches."""
    pairs = [(name, module) for name, module in model.named_modules() if hasattr(module, "forced_take")]
    return [(name, id(module), module.forced_take, module.forced_pass) for name, module in pairs]


INTERVENTIONS = {
    "shut": lambda model: shut_gates(model),
    "shut one": lambda model: shut_gates(model, stage=1, direction="0_to_1"),
    "open": lambda model: open_gates(model, stage=0),
    "halve": lambda model: forced_gates(model, take=0.5, direction="1_to_0"),
    "swap": lambda model: swapped_gates(model),
    "swap one": lambda model: swapped_gates(model, stage=1),
}


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_restored_to_the_bit_even_after_a_failure(name):
    model = Net()
    model.stages[0].units["1_to_0"].forced_pass = 0.5
    before, out, parameters = snapshot(model), model(features()), dict(model.state_dict())
    with pytest.raises(RuntimeError, match="stop"), INTERVENTIONS[name](model):
        assert not all(torch.equal(a, b) for a, b in zip(model(features()), out, strict=True))
        raise RuntimeError("stop")
    assert snapshot(model) == before
    assert all(torch.equal(a, b) for a, b in zip(model(features()), out, strict=True))
    assert list(model.state_dict()) == list(parameters)
    assert all(torch.equal(value, parameters[key]) for key, value in model.state_dict().items())


def test_shut_gates_are_the_identity_in_their_direction_alone():
    model = Net()
    with shut_gates(model, direction="1_to_0"):
        a, b = model(features())
    assert torch.equal(a, features()[0]) and not torch.equal(b, features()[1])
    with shut_gates(model):
        assert all(torch.equal(x, y) for x, y in zip(model(features()), features(), strict=True))


def test_open_gates_give_the_candidate():
    unit = LeakySharing(3)
    x, y = features()
    with open_gates(unit, direction="1_to_0"):
        out = unit([x, y])[0]
    torch.testing.assert_close(out, unit.units["1_to_0"].candidate(torch.cat([y, x], 1)).tanh())


def test_swapping_the_units_and_the_tasks_swaps_the_results():
    model = Net()
    plain = model(features())
    with swapped_gates(model):
        swapped = model(features()[::-1])
    assert all(torch.equal(a, b) for a, b in zip(plain, swapped[::-1], strict=True))


def test_effects_are_what_the_measure_says():
    model = Net().eval()

    @torch.no_grad()
    def evaluate():
        a, b = model(features())
        return {"a": float(a.mean()), "b": float(b.mean())}

    before = snapshot(model)
    effects = intervention_effects(model, evaluate)
    assert snapshot(model) == before
    kinds = [f"{kind}/{s}/{d}" for kind in ("shut", "open") for s in ("all", 0, 1) for d in ("0_to_1", "1_to_0")]
    assert set(effects) == {"untouched", *kinds, "swap/all", "swap/0", "swap/1"}
    assert effects["untouched"].change == {"a": 0.0, "b": 0.0}
    effect = effects["shut/all/1_to_0"]
    assert effect.values["a"] == float(features()[0].mean())
    assert effect.change["a"] == effect.values["a"] - effects["untouched"].values["a"]
    assert effects["shut/1/1_to_0"].change["b"] == 0 != effects["shut/0/1_to_0"].change["b"]


def test_on_fersnet():
    torch.manual_seed(0)
    model = FERSNet.sized("tiny", classes=("neutral", "happiness")).eval()
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    effects = intervention_effects(model, lambda: {"p": float(model.recognize(images)[0, 0])})
    assert len(effects) == 1 + 2 * (2 + 6) + 4
    assert effects["shut/0/1_to_0"].change["p"] != 0


def test_one_unit_for_all_stages_is_met_as_a_whole():
    model = Net()
    model.stages[1] = model.stages[0]
    names = set(standard_interventions(model))
    assert names == {f"{kind}/all/{d}" for kind in ("shut", "open") for d in ("0_to_1", "1_to_0")} | {"swap/all"}
    with pytest.raises(InputError, match="several stages"), shut_gates(model, stage=1):
        pass
    with pytest.raises(InputError, match="several stages"), swapped_gates(model, stage=1):
        pass
    plain = model(features())
    with swapped_gates(model):
        assert all(torch.equal(a, b) for a, b in zip(plain, model(features()[::-1])[::-1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, model(features()), strict=True))


def test_units_that_were_built_shut_or_one_way():
    shut, one_way = Net(fixed_take=0.0), Net(receivers=[0])
    assert not any(name.startswith("open") for name in standard_interventions(shut))
    with pytest.raises(InputError, match="built shut"), open_gates(shut):
        pass
    assert not any(name.startswith("swap") for name in standard_interventions(one_way))
    with pytest.raises(InputError, match="both ways"), swapped_gates(one_way):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stage": 2}, "stage 2.*0/1_to_0"), ({"direction": "0_to_0"}, "0_to_0"), ({"take": 1.5}, "1.5")],
)
def test_bad_usage_is_told(options, message):
    with pytest.raises(InputError, match=message), forced_gates(Net(), **options):
        pass


def test_a_measure_needs_gates_and_its_own_names():
    with pytest.raises(InputError, match="no gated units"):
        intervention_effects(nn.Linear(2, 2), dict)
    with pytest.raises(InputError, match="untouched"):
        intervention_effects(Net(), dict, {"untouched": lambda: shut_gates(Net())})
