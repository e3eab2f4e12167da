import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference import collect_features, probe_targets, shut_gates, unit_filtering
from synthmtl.models import FERSNet
from synthmtl.sharing import ConvFLU
from synthmtl.sharing.gates import Gates


class FirstChannelPasses(Gates):
    """r is 1 for channel 0 and 0 for all others; z is 1."""

    def forward(self, receiver, donor, forced_pass=None, forced_take=None):
        passed = torch.zeros_like(donor)
        passed[:, 0] = 1
        return passed, torch.ones_like(receiver)


class ByHand(nn.Module):
    """images (B, 6, H, W): three channels of a receiver, three of a donor; the candidate is tanh of the message."""

    def __init__(self):
        super().__init__()
        self.pair = ConvFLU(3)
        self.pair.gates = FirstChannelPasses(3)
        with torch.no_grad():
            self.pair.candidate.weight.zero_()
            self.pair.candidate.weight[:, :3, 0, 0] = torch.eye(3)

    def forward(self, images):
        return self.pair(*images.chunk(2, 1))


def fersnet(sharing="leaky"):
    torch.manual_seed(0)
    return FERSNet.sized("tiny", classes=("neutral", "happiness"), sharing=sharing)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_features_of_both_sides_by_hand():
    images = normal(5, 6, 4, 4)
    found = collect_features(ByHand(), images.split(2))["pair"]
    receiver, donor = (part.mean((2, 3)) for part in images.chunk(2, 1))
    assert torch.equal(found["receiver_before"], receiver) and torch.equal(found["donor"], donor)
    message = torch.stack([donor[:, 0], torch.zeros(5), torch.zeros(5)], 1)
    torch.testing.assert_close(found["message"], message)
    torch.testing.assert_close(found["receiver_after"][:, 0], images[:, 3].tanh().mean((1, 2)))
    assert found["receiver_after"][:, 1:].count_nonzero() == 0


def test_a_gate_that_passes_one_channel_filters_the_others():
    # Expression in the donor's channel 0, light in channel 1; the receiver reads light, and loses it.
    rows = 400
    subject, expression, light = torch.arange(rows) // 10, torch.arange(rows) % 2, normal(rows, seed=1)
    receiver = torch.stack([normal(rows, seed=2), light, light], 1)
    donor = torch.stack([expression - 0.5, light, normal(rows, seed=3)], 1)
    images = torch.cat([receiver, donor], 1)[:, :, None, None].expand(-1, -1, 2, 2)
    targets = {"expression": expression, "light": light}
    features = collect_features(ByHand(), images.split(100))["pair"]
    scores = {place: probe_targets(values, targets, subject) for place, values in features.items()}
    found = unit_filtering(scores)
    assert found["message"].filtering > 0.9 and found["message"].retention == pytest.approx(1, abs=0.02)
    assert found["message"].selectivity > 0.9
    assert found["receiver"].filtering > 0.9 and found["receiver"].retention is None  # no expression in it before
    assert scores["receiver_after"]["expression"].score == pytest.approx(1)
    del scores["message"]
    assert set(unit_filtering(scores)) == {"receiver"}


@pytest.mark.parametrize("grid", [1, 2])
def test_every_exchange_of_a_net(grid):
    model, images = fersnet().train(), normal(6, 1, 32, 32)
    statistics = {name: b.clone() for name, b in model.named_buffers()}
    found = collect_features(model, images.split(4), grid=grid)
    assert list(found) == [f"encoder.units.{s}.units.{d}" for s in range(3) for d in ("1_to_0", "0_to_1")]
    for unit, width in zip(found.values(), [8, 8, 16, 16, 16, 16], strict=True):
        assert list(unit) == ["donor", "message", "receiver_before", "receiver_after"]
        assert all(values.shape == (6, width * grid**2) for values in unit.values())
    into, out = (found[f"encoder.units.0.units.{direction}"] for direction in ("1_to_0", "0_to_1"))
    assert torch.equal(into["donor"], out["receiver_before"]) and torch.equal(out["donor"], into["receiver_before"])
    assert model.training and all(torch.equal(b, statistics[name]) for name, b in model.named_buffers())


def test_rivals_without_gates_have_no_message():
    found = collect_features(fersnet("none"), [normal(3, 1, 32, 32)])
    assert list(found)[:2] == ["encoder.units.0.0_to_1", "encoder.units.0.1_to_0"]
    for unit in found.values():
        assert list(unit) == ["donor", "receiver_before", "receiver_after"]
        assert torch.equal(unit["receiver_before"], unit["receiver_after"])


def test_shut_units_send_nothing():
    model = fersnet()
    with shut_gates(model, direction="1_to_0"):
        found = collect_features(model, [normal(3, 1, 32, 32)])
    assert "message" not in found["encoder.units.0.units.1_to_0"]
    assert "message" in found["encoder.units.0.units.0_to_1"]


def test_bad_usage_is_told():
    with pytest.raises(InputError, match="no sharing units"):
        collect_features(nn.Linear(2, 2), [])
    with pytest.raises(InputError, match="at least one batch"):
        collect_features(fersnet(), [])
