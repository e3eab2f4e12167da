"""Networks of equal size, so that a comparison is not decided by capacity."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import ModelMixin

from synthmtl.errors import InputError


def match_capacity(
    kind: type[ModelMixin],
    parameters: int,
    config: dict[str, Any],
    *,
    tolerance: float = 0.02,
    count: Callable[[Any], int] | None = None,
) -> ModelMixin:
    """A network whose widths are scaled so that ``parameters`` parameters take part in recognition.

    Args:
        kind: :class:`Recognizer`, :class:`FERSNet` or another network with ``recognition_parameters``.
        parameters: the count to meet, e.g. that of a gated network.
        config: the network before scaling, with ``stem_channels``, ``stage_channels`` and, if it has them,
            ``joint_channels``, which are multiplied by one common factor; the last stage gets up to a fifth more or
            less to meet the count.
        tolerance: largest relative difference.
        count: of a network's parameters, instead of those that take part in recognition.

    Raises:
        InputError: if no common factor meets the count.
    """

    counted = count or (lambda network: network.recognition_parameters())

    def scaled(factor: float, extra: int = 0) -> dict[str, Any]:
        def width(channels: float) -> int:
            return max(1, round(channels * factor))

        stages = [width(channels) for channels in config["stage_channels"]]
        scaled_config = config | {
            "stem_channels": width(config["stem_channels"]),
            "stage_channels": (*stages[:-1], max(1, stages[-1] + extra)),
        }
        if "joint_channels" in config:
            scaled_config["joint_channels"] = 2 * width(config["joint_channels"] / 2)  # it may be split in halves
        return scaled_config

    def miss(factor: float, extra: int = 0) -> int:
        with torch.device("meta"):
            return counted(kind(**scaled(factor, extra))) - parameters

    low, high = 0.05, 20.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if miss(middle) < 0 else (low, middle)
    factor = min((low, high), key=lambda each: abs(miss(each)))
    # Whole channels make coarse steps in narrow networks: the last stage takes what is left.
    reach = max(1, round(0.2 * factor * config["stage_channels"][-1]))
    extra = min(
        range(-reach, reach + 1), key=lambda each: (abs(miss(factor, each)) > tolerance * parameters, abs(each))
    )
    if abs(miss(factor, extra)) > tolerance * parameters:
        raise InputError(f"no width factor gives {parameters} parameters within {tolerance:.0%}; choose a wider model")
    return kind(**scaled(factor, extra))
