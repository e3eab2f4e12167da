"""Memory formats of networks in training."""

import torch
from torch import nn


def put_channels_last(module: nn.Module, device: torch.device) -> None:
    """Put the convolutions' weights into ``channels_last``, in place.

    On a CPU a diffusers UNet in ``module`` keeps the plain format: there group normalization and attention take two to
    seven times as long in the other one, which costs more than its convolutions gain (tests/benchmarks/diffusion.py).

    Args:
        module: the weights.
        device: where it is trained.
    """
    if device.type == "cpu" and _is_unet(type(module)):
        return
    for child in module.children():
        put_channels_last(child, device)
    for parameter in module.parameters(recurse=False):
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _is_unet(kind: type) -> bool:
    """Whether it is one of diffusers' UNets, or made of one; by name, since to import them takes long."""
    return any(base.__module__.startswith("diffusers.models.unets.") for base in kind.__mro__)
