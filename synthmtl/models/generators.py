"""The networks that make faces by expression, and what each of them has to be told."""

import dataclasses
from typing import Any

from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.models.conditions import read_target
from synthmtl.models.denoiser import DiffusionFERSNet
from synthmtl.models.fersnet import FERSNet
from synthmtl.models.sampling import SamplingOptions

FaceGenerator = FERSNet | DiffusionFERSNet
"""A network that recognizes and edits faces."""

GENERATORS: dict[str, type[FaceGenerator]] = {"gan": FERSNet, "diffusion": DiffusionFERSNet}
"""By the name that options use: a decoder that critic and guide teach, or a denoiser."""


def sampling_arguments(network: FaceGenerator, sampling: SamplingOptions | None) -> dict[str, Any]:
    """What ``network.synthesize`` takes of the sampling options: all for a diffusion model, else nothing.

    Raises:
        InputError: if they do not suit the network, or it has no use for them and they are not the defaults.
    """
    sampling = sampling or SamplingOptions()
    if isinstance(network, DiffusionFERSNet):
        sampling.check(network.schedule)
        return dataclasses.asdict(sampling)
    if sampling != SamplingOptions():
        names = ", ".join(field.name for field in dataclasses.fields(sampling))
        raise InputError(f"{names} are for a diffusion generator, this one makes a face in one step: leave them out")
    return {}


def makes_new_faces(network: FaceGenerator) -> bool:
    """Whether ``network.synthesize`` needs no source: a diffusion model's makes faces of noise, too."""
    return isinstance(network, DiffusionFERSNet)


def class_targets(network: FaceGenerator, expression: Tensor) -> Tensor:
    """The classes ``expression`` (B,) as the network's targets: as they are, or what each stands for."""
    condition = network.config.condition
    if condition == "expression":
        return expression
    return read_target(condition, network.classes, expression.tolist()).to(expression.device)
