"""Leaky units of 1×1 kernels on a CPU: the functions of ``rows.cpp`` as one of autograd's.

Left to itself, ``torch.compile`` computes the gates again in the backward pass, which on a CPU costs more than reading
them, rounds to bfloat16 in ten instructions, and joins and splits features more often than is needed. Beside the matrix
products, which are nearly all of the time at deep stages, little else may be done there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthmtl.native import load_functions

SOURCE = Path(__file__).with_name("rows.cpp")
LANES = 16  # channels that are computed at once
TURN = 300_000  # features of one map that a turn takes at most: they stay in the cache

Weights = tuple[Tensor, Tensor | None, Tensor]
"""Of a direction: the gates' (2 C, 2 C, 1, 1), their biases (2 C,) or None, and the candidate's (C, 2 C, 1, 1)."""


def _by_direction(weights: Sequence[Tensor | None]) -> list[Weights]:
    return list(zip(*[iter(weights)] * 3, strict=True))  # type: ignore[arg-type]


def _matrix(weight: Tensor, like: Tensor) -> Tensor:
    return weight.flatten(1).to(like.dtype)


def _rows(features: Tensor) -> Tensor:
    """(B, C, H, W) as (B H W, C), without a copy if the channels are last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _features(rows: Tensor, like: Tensor) -> Tensor:
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _turn(features: Tensor) -> int:
    """Rows of each of as few equal turns as can be."""
    turns = max(1, -(-features.numel() // TURN))
    return max(1, -(-features.numel() // (features.shape[1] * turns)))


def _plain(x: Tensor, y: Tensor, weights: Sequence[Tensor | None]) -> list[Tensor]:
    """The same for autograd, (rows, C) each."""
    outs = []
    for turned, (w_gates, bias, w) in enumerate(_by_direction(weights)):
        receiver, donor = (y, x) if turned else (x, y)
        logits = torch.cat([receiver, donor], 1) @ _matrix(w_gates, x).t()
        r, z = torch.sigmoid(logits if bias is None else logits + bias.to(x.dtype)).chunk(2, 1)
        c = torch.tanh(torch.cat([r * donor, receiver], 1) @ _matrix(w, x).t())
        outs.append(torch.lerp(receiver, c, z))
    return outs


class LeakyRows(torch.autograd.Function):
    """x' of :class:`~synthmtl.sharing.leaky.ConvFLU` from x and y, and y' from y and x; (B, C, H, W), channels last.

    Behind x and y, both in bfloat16 or float32, come the :data:`Weights` of the direction to x and, if y receives as
    well, those of the direction to y; returned are (x',) or (x', y'). A gradient of a gradient, and the gradients of
    many losses at once, go through autograd. See :func:`served` for what is asked of the features.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, *weights: Tensor | None) -> tuple[Tensor, ...]:
        biases = [bias for bias in weights[1::3] if bias is not None]
        found = torch.ops.synthmtl.leaky_rows(x, y, weights[::3], biases, weights[2::3], _turn(x))
        directions = len(weights) // 3
        ctx.save_for_backward(x, y, *weights, *found[directions:])
        return tuple(found[:directions])

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, y, *saved = ctx.saved_tensors
        weights, kept = saved[: 3 * len(given)], saved[3 * len(given) :]
        if torch.is_grad_enabled() or any(map(_is_batched, given)):
            return _backward_of_plain(ctx.needs_input_grad, given, x, y, *weights)
        biased, last_time = weights[1] is not None, not torch._C._autograd._get_current_graph_task_keep_graph()
        found = iter(torch.ops.synthmtl.leaky_rows_backward(given, kept, biased, last_time, _turn(x)))
        of_features = next(found), next(found)
        return *of_features, *(None if w is None else next(found).to(w.dtype) for w in weights)


def _is_batched(gradient: Tensor) -> bool:
    """Whether vmap, or ``is_grads_batched`` with its older kind, hands over many gradients as one."""
    kinds = torch._C._functorch
    return kinds.is_functorch_wrapped_tensor(gradient) or kinds.is_legacy_batchedtensor(gradient)


def _backward_of_plain(
    needed: Sequence[bool], given: Sequence[Tensor], x: Tensor, y: Tensor, *weights: Tensor | None
) -> tuple[Tensor | None, ...]:
    inputs = (x, y, *weights)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        again = [_features(out, x) for out in _plain(_rows(x), _rows(y), weights)]
        wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(again, wanted, given, create_graph=create_graph))  # type: ignore[arg-type]
    return tuple(next(found) if need else None for need in needed)


def served(*features: Tensor) -> torch.dtype | None:
    """The precision in which :class:`LeakyRows` computes with ``features``; None if it does not serve them.

    It does on a CPU, in bfloat16 by autocast or float32, if channels are last, their number is a multiple of 16 and the
    functions could be built. In code that is being compiled as a whole they are not asked for.
    """
    autocast = torch.is_autocast_enabled("cpu")
    for x in features:
        last = x.is_contiguous(memory_format=torch.channels_last)
        if x.device.type != "cpu" or x.shape[1] % LANES or not last or not (autocast or x.dtype == torch.float32):
            return None
    precision = torch.get_autocast_dtype("cpu") if autocast else torch.float32
    known = precision in (torch.bfloat16, torch.float32) and not torch.compiler.is_compiling()
    return precision if known and load_functions(SOURCE) else None
