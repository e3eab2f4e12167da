"""Memory formats of networks in training."""

import torch
from diffusers import UNet2DConditionModel
from torch import nn


def put_channels_last(module: nn.Module, device: torch.device) -> None:
    """Put the convolutions' weights into ``channels_last``, in place.

    On a CPU a diffusers UNet in ``module`` keeps the plain format: there group normalization and attention take two to
    seven times as long in the other one, which costs more than its convolutions gain (tests/benchmarks/diffusion.py).

    Args:
        module: the weights.
        device: where it is trained.
    """
    if device.type == "cpu" and isinstance(module, UNet2DConditionModel):
        return
    for child in module.children():
        put_channels_last(child, device)
    for parameter in module.parameters(recurse=False):
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
