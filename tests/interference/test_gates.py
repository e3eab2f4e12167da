import json

import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference import (
    forced_gates,
    gate_maps,
    gated_units,
    measured_gates,
    shut_gates,
    watched_exchanges,
)
from synthmtl.models import FERSNet
from synthmtl.sharing import ConvFLU, LeakySharing
from synthmtl.sharing.gates import Gates

CLASSES = ("neutral", "happiness", "sadness")


class OneChannel(Gates):
    """Passes channel 0 alone, and takes as much as the receiver's mean says."""

    def forward(self, receiver, donor, forced_pass=None, forced_take=None):
        passed = torch.zeros_like(donor)
        passed[:, 0] = 1
        return passed, receiver.mean((1, 2, 3), keepdim=True).expand_as(receiver)


class ByHand(nn.Module):
    """A user's own net: images (B, 6, H, W) are three channels of a receiver and three of a donor."""

    def __init__(self):
        super().__init__()
        self.pair = ConvFLU(3)
        self.pair.gates = OneChannel(3)

    def forward(self, images):
        return self.pair(*images.chunk(2, 1))


def fersnet(**config):
    torch.manual_seed(0)
    return FERSNet.sized("tiny", **({"classes": CLASSES} | config)).eval()


def faces(count=4, channels=1, size=32):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_units_are_found_with_their_places():
    units = gated_units(fersnet())
    assert [(u.stage, u.direction) for u in units] == [(s, d) for s in range(3) for d in ("1_to_0", "0_to_1")]
    assert units[2].name == "encoder.units.1.units.1_to_0"
    assert [(u.name, u.stage, u.direction) for u in gated_units(ByHand())] == [("pair", 0, "pair")]
    assert gated_units(fersnet(sharing="none")) == []


def test_a_hand_made_gate_is_measured_as_it_was_made():
    model = ByHand()
    levels = torch.tensor([0.2, 0.4, 0.6, 0.8])
    images = torch.ones(4, 6, 2, 2) * levels[:, None, None, None]
    with measured_gates(model, CLASSES) as meter:
        meter.label(torch.tensor([0, 1]))
        model(images[:2])
        meter.label(torch.tensor([1, -1]))
        model(images[2:])
    passed, taken = meter.result()
    assert (passed.gate, taken.gate) == ("pass", "take") and passed.faces == taken.faces == 4
    assert passed.channels == [1, 0, 0] and passed.mean == pytest.approx(1 / 3) and passed.spread == 0
    assert taken.channels == pytest.approx([0.5] * 3)
    assert taken.spread == pytest.approx(float(levels.std(correction=0)))
    assert taken.expressions == {"neutral": pytest.approx(0.2), "happiness": pytest.approx(0.5), "sadness": None}
    assert passed.expression_channels["happiness"] == [1, 0, 0]
    json.dumps([passed.as_dict(), taken.as_dict()], allow_nan=False)


def test_streaming_over_batches_is_the_mean_over_all_faces():
    model, images = fersnet(), faces(7)
    with measured_gates(model) as whole:
        model(images)
    with measured_gates(model) as parts, torch.no_grad():
        for batch in images.split(3):
            model(batch)
    assert len(whole.result()) == 12
    for a, b in zip(whole.result(), parts.result(), strict=True):
        assert (a.unit, a.gate, a.faces) == (b.unit, b.gate, b.faces) == (a.unit, a.gate, 7)
        assert (a.mean, a.spread, a.channels) == pytest.approx((b.mean, b.spread, pytest.approx(b.channels)), abs=1e-5)


def test_forced_and_shut_gates_are_measured_as_forced():
    model, images = fersnet(), faces()
    with measured_gates(model) as meter, forced_gates(model, passed=0.25, take=0.75):
        model(images)
    assert {(o.gate, o.mean) for o in meter.result()} == {("pass", 0.25), ("take", 0.75)}
    with measured_gates(model) as meter, shut_gates(model, stage=0):
        model(images)
    shut = [o for o in meter.result() if o.stage == 0]
    assert [(o.gate, o.mean) for o in shut] == [("take", 0.0)] * 2


def test_maps_lie_over_the_faces():
    model, images = fersnet().train(), faces()
    statistics = {name: b.clone() for name, b in model.named_buffers()}
    maps = gate_maps(model, images)
    assert set(maps) == {unit.name for unit in gated_units(model)}
    for gates in maps.values():
        assert set(gates) == {"pass", "take"}
        assert all(m.shape == (4, 32, 32) and m.min() >= 0 and m.max() <= 1 for m in gates.values())
    assert model.training and all(torch.equal(b, statistics[name]) for name, b in model.named_buffers())
    hand_made = gate_maps(ByHand(), torch.full((2, 6, 4, 4), 0.25))["pair"]
    assert torch.allclose(hand_made["pass"], torch.tensor(1 / 3)) and torch.all(hand_made["take"] == 0.25)
    with shut_gates(model):
        assert all(set(gates) == {"take"} for gates in gate_maps(model, images).values())


def test_maps_keep_their_place():
    images = torch.zeros(1, 6, 4, 4)
    model = ByHand()
    model.pair.gates.forward = lambda receiver, donor, *forced: (donor, receiver)
    images[:, :3, 0, 0] = 1  # the receiver's upper left corner
    maps = gate_maps(model, images)["pair"]
    assert maps["take"][0, 0, 0] == 1 and maps["take"].sum() == 1 and maps["pass"].sum() == 0


def test_one_unit_at_several_stages_is_told_apart():
    torch.manual_seed(0)
    unit = LeakySharing(3)
    model = nn.ModuleList([unit, unit])
    x = [torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    seen = []
    with watched_exchanges(model, lambda place, exchange: seen.append((place.stage, place.direction, exchange))):
        for _ in range(2):
            model[1](model[0](x))
    assert [(stage, direction) for stage, direction, _ in seen] == 2 * [(s, d) for s in (0, 1) for d in unit.units]
    assert torch.equal(seen[0][2].receiver, x[0]) and torch.equal(seen[0][2].donor, x[1])
    assert torch.equal(seen[2][2].receiver, seen[0][2].output)
    assert torch.equal(seen[0][2].message, seen[0][2].passed * x[1])


def test_one_unit_of_a_network_is_booked_at_each_stage(tmp_path):
    model = fersnet(one_unit=True)
    places = [(s, d) for s in range(3) for d in ("1_to_0", "0_to_1")]
    units = gated_units(model)
    assert [(u.stage, u.direction) for u in units] == places and len({u.name for u in units}) == 6
    assert all(model.get_submodule(unit.path) is unit.module for unit in units)
    with measured_gates(model) as meter, torch.no_grad():
        for _ in range(2):
            model.encode(faces())
    assert [(o.stage, o.direction, o.faces) for o in meter.result()] == [(*p, 8) for p in places for _ in "rz"]
    maps = gate_maps(model, faces())
    assert set(maps) == {unit.name for unit in units}
    # Looking at one stage alone sees what it did among all.
    with measured_gates(model, units=units[2:4]) as meter, torch.no_grad():
        model.encode(faces())
    assert {o.stage for o in meter.result()} == {1}
    mean = next(o.mean for o in meter.result() if o.direction == "1_to_0" and o.gate == "take")
    assert maps[units[2].name]["take"].mean().item() == pytest.approx(mean, abs=1e-5)


def test_a_stage_keeps_its_number_where_others_are_left_out():
    model = fersnet(sharing_options={"stages": [1]})
    assert [(unit.name, unit.stage) for unit in gated_units(model)] == [
        (f"encoder.units.1.units.{direction}", 1) for direction in ("1_to_0", "0_to_1")
    ]


def test_nothing_is_left_hooked():
    model = fersnet()
    with pytest.raises(RuntimeError, match="stop"), measured_gates(model):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in model.modules())


def test_bad_usage_is_told():
    with pytest.raises(InputError, match="no gated units"), measured_gates(fersnet(sharing="hard")):
        pass
    model = fersnet()
    with measured_gates(model, CLASSES) as meter:
        meter.label(torch.zeros(3, dtype=torch.int64))
        with pytest.raises(InputError, match="3 expressions.*4 faces"):
            model(faces())


def test_labels_without_classes_count_as_unnamed():
    net = fersnet()
    with measured_gates(net) as meter, torch.no_grad():
        meter.label(torch.tensor([0, 2, -1, 1]))
        net(faces())
    assert all(openness.faces == 4 and openness.expressions == {} for openness in meter.result())
