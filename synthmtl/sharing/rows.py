"""Leaky units of 1×1 kernels on a CPU: the functions of ``rows.cpp``.

Left to itself, ``torch.compile`` computes the gates again in the backward pass, which on a CPU costs more than reading
them, rounds to bfloat16 in ten instructions, and joins and splits features more often than is needed. Beside the matrix
products, which are nearly all of the time at deep stages, little else may be done there: not even much Python, whose
code and data features this large push out of the processor's caches.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from synthmtl.native import load_functions

SOURCE = Path(__file__).with_name("rows.cpp")
LANES = 16  # channels that are computed at once
TURN = 300_000  # features of one map that a turn takes at most: they stay in the cache

Weights = tuple[Tensor, Tensor | None, Tensor]
"""Of a direction: the gates' (2 C, 2 C, 1, 1), their biases (2 C,) or None, and the candidate's (C, 2 C, 1, 1)."""


def _turn(features: Tensor) -> int:
    """Rows of each of as few equal turns as can be."""
    turns = max(1, -(-features.numel() // TURN))
    return max(1, -(-features.numel() // (features.shape[1] * turns)))


def leaky_rows(x: Tensor, y: Tensor, weights: Sequence[Weights]) -> list[Tensor]:
    """x' of :class:`~synthmtl.sharing.leaky.ConvFLU` from x and y, and y' from y and x; (B, C, H, W), channels last.

    Autograd knows them; a gradient of a gradient, and the gradients of many losses at once, are its own.

    Args:
        x, y: both in bfloat16 or float32, see :func:`served` for what else is asked of them.
        weights: of the direction to x and, if y receives as well, of that to y; with biases both or none.

    Returns:
        [x'] or [x', y'].
    """
    gates, biases, ws = zip(*weights, strict=True)
    biases = tuple(bias for bias in biases if bias is not None)
    return torch.ops.synthmtl.leaky_rows.default(x, y, gates, biases, ws, _turn(x))


def served(*features: Tensor) -> torch.dtype | None:
    """The precision in which :func:`leaky_rows` computes with ``features``; None if it does not serve them.

    It does on a CPU, in bfloat16 by autocast or float32, if channels are last, their number is a multiple of 16 and the
    functions could be built. In code that is being compiled as a whole, or transformed by ``torch.func``, they are not
    asked for.
    """
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return None
    autocast = torch.is_autocast_enabled("cpu")
    for x in features:
        last = x.is_contiguous(memory_format=torch.channels_last)
        if x.device.type != "cpu" or x.shape[1] % LANES or not last or not (autocast or x.dtype == torch.float32):
            return None
    precision = torch.get_autocast_dtype("cpu") if autocast else torch.float32
    return precision if precision in (torch.bfloat16, torch.float32) and load_functions(SOURCE) else None
