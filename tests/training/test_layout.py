"""Memory formats in training."""

import pytest
import torch
from torch import nn

from synthmtl.labels import EXPRESSIONS_7
from synthmtl.models.denoiser import DiffusionFERSNet
from synthmtl.training.layout import put_channels_last

LAST = torch.channels_last


def formats(module: nn.Module) -> set[bool]:
    """Whether kernels that tell the formats apart are in channels_last."""
    kernels = [p for p in module.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    return {p.is_contiguous(memory_format=LAST) for p in kernels}


@pytest.mark.parametrize(("device", "unet"), [("cpu", False), ("meta", True)])
def test_convolutions_are_put_last_but_those_of_a_unet_on_a_cpu(device, unet):
    network = DiffusionFERSNet.sized("tiny", classes=EXPRESSIONS_7)
    put_channels_last(network, torch.device(device))
    assert formats(network.encoder) == {True}
    assert formats(network.unet) == {unet}


def test_values_and_parameters_stay():
    layer = nn.Conv2d(3, 4, 3)
    weight, before = layer.weight, layer.weight.detach().clone()
    put_channels_last(layer, torch.device("cpu"))
    assert layer.weight is weight and torch.equal(weight, before)
    assert formats(layer) == {True} and layer.bias.is_contiguous()
