import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS
from synthmtl.models import FERSNET_SIZES, FERSNet, Recognizer, match_capacity

WIDTHS = {"stem_channels": 16, "stage_channels": (32, 64, 96), "joint_channels": 96}


@pytest.mark.parametrize("wanted", [30_000, 400_000, 3_000_000])
def test_matched_within_two_percent(wanted):
    model = match_capacity(Recognizer, wanted, WIDTHS | {"classes": EXPRESSIONS, "dropout": 0.1})
    assert model.recognition_parameters() == pytest.approx(wanted, rel=0.02)
    assert model.config.dropout == 0.1 and model.classes == EXPRESSIONS
    assert model.eval()(torch.zeros(2, 1, 48, 48)).shape == (2, 8)
    widths = model.config.stage_channels
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.15) and widths[2] / widths[0] == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("size", ["tiny", "cpu"])
def test_twins_of_the_gated_nets(size):
    config = FERSNET_SIZES[size] | {"classes": EXPRESSIONS}
    wanted = FERSNet(**config).recognition_parameters()
    for kind, base in (
        (Recognizer, WIDTHS | {"classes": EXPRESSIONS}),
        (FERSNet, config | {"sharing": "hard", "sharing_options": {}}),
    ):
        assert match_capacity(kind, wanted, base).recognition_parameters() == pytest.approx(wanted, rel=0.02)


def test_no_match():
    with pytest.raises(InputError, match="no width factor gives 20 parameters within 2%"):
        match_capacity(Recognizer, 20, WIDTHS | {"classes": EXPRESSIONS})
