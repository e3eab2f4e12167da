"""The leaky unit of 1×1 kernels as two compiled functions over rows of channels, for training on a CPU.

Left to itself, ``torch.compile`` computes the gates again in the backward pass, which on a CPU costs more than reading
them, and copies concatenated features element by element. Here the backward pass is written out, and both passes go
through the rows in turns that stay in the cache.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor

TURN = 300_000  # features of one map that a turn takes at most: all maps of a turn fit a core's share of the cache
KEPT = 600_000  # features of one map up to which joined maps are kept for the backward pass instead of joined again


def _forward(
    out: Tensor, x: Tensor, y: Tensor, w_gates: Tensor, bias: Tensor | None, w: Tensor, keep: bool
) -> tuple[Tensor, ...]:
    """x' (rows, C) into ``out``, and [r, z] (rows, 2 C) and c (rows, C); if asked, [x, y] and [r . y, x] as well."""
    joined = torch.cat([x, y], 1)
    logits = _wide(joined @ w_gates.t())
    maps = torch.sigmoid(logits if bias is None else logits + bias).to(x.dtype)
    r, z = maps.chunk(2, 1)
    mixed = torch.cat([r * y, x], 1)
    candidate = (2 * torch.sigmoid(2 * _wide(mixed @ w.t())) - 1).to(x.dtype)  # tanh, in half of the time
    out.copy_(torch.lerp(x, candidate, z))
    return (maps, candidate, joined, mixed) if keep else (maps, candidate)


def _backward(
    of_x: Tensor,
    of_y: Tensor,
    given: Tensor,
    x: Tensor,
    y: Tensor,
    w_gates: Tensor,
    w: Tensor,
    before_this: Sequence[Tensor] | None,
    maps: Tensor,
    c: Tensor,
    joined: Tensor | None = None,
    mixed: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """From the gradient ``given`` of x', those of x and y, and those of weights and biases, with what came before."""
    r, z = maps.chunk(2, 1)
    if joined is None or mixed is None:
        joined, mixed = torch.cat([x, y], 1), torch.cat([r * y, x], 1)
    else:
        x, y = joined.chunk(2, 1)  # one map to be read instead of two
    channels = x.shape[1]
    candidate = given * z * (1 - c * c)
    message, direct = (candidate @ w).chunk(2, 1)
    logits = torch.cat([message * y * ((1 - r) * r), (c - x) * given * ((1 - z) * z)], 1)
    both = logits @ w_gates
    of_x.copy_(both[:, :channels] + (direct + (given - given * z)))
    of_y.copy_(both[:, channels:] + message * r)
    found = (logits.t() @ joined, logits.sum(0), candidate.t() @ mixed)
    if before_this is None:
        return tuple(_wide(part) for part in found)
    return tuple(sums + part for sums, part in zip(before_this, found, strict=True))


@cache
def _compiled(function: Callable) -> Callable:
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(function, dynamic=False, options={"max_pointwise_cat_inputs": 0})


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _matrix(weight: Tensor, like: Tensor) -> Tensor:
    return weight.flatten(1).to(like.dtype)


def _rows(features: Tensor) -> Tensor:
    """(B, C, H, W) as (B H W, C), without a copy if the channels are last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _features(rows: Tensor, like: Tensor) -> Tensor:
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _turns(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Equally many rows of each, the first of which sets how many."""
    rows, channels = tensors[0].shape
    turns = max(1, -(-rows * channels // TURN))
    if turns == 1:
        return [tensors]
    return zip(*(tensor.split(max(1, -(-rows // turns))) for tensor in tensors), strict=True)


def _plain(x: Tensor, y: Tensor, w_gates: Tensor, bias: Tensor | None, w: Tensor) -> Tensor:
    """The same for autograd, (rows, C)."""
    logits = torch.cat([x, y], 1) @ _matrix(w_gates, x).t()
    r, z = torch.sigmoid(logits if bias is None else logits + bias.to(x.dtype)).chunk(2, 1)
    return torch.lerp(x, torch.tanh(torch.cat([r * y, x], 1) @ _matrix(w, x).t()), z)


class LeakyRows(torch.autograd.Function):
    """x' of :class:`~synthmtl.sharing.leaky.ConvFLU` from x and y, (B, C, H, W) in channels_last.

    The weights are those of the gates (2 C, 2 C, 1, 1), their biases (2 C,) or None, and the candidate's
    (C, 2 C, 1, 1), which are taken in the precision of x and y. A gradient of a gradient, and the gradients of many
    losses at once, go through autograd.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, w_gates: Tensor, bias: Tensor | None, w: Tensor) -> Tensor:
        receiver, donor = _rows(x), _rows(y)
        out = torch.empty_like(receiver)
        cast_gates, cast, keep = _matrix(w_gates, x), _matrix(w, x), x.numel() <= KEPT
        turns = [_compiled(_forward)(*turn, cast_gates, bias, cast, keep) for turn in _turns(out, receiver, donor)]
        ctx.save_for_backward(x, y, w_gates, bias, w, cast_gates, cast, *chain.from_iterable(turns))
        ctx.maps = len(turns[0])
        return _features(out, x)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, y, w_gates, bias, w, cast_gates, cast, *parts = ctx.saved_tensors
        if torch.is_grad_enabled() or _is_batched(given):
            return _backward_of_plain(ctx.needs_input_grad, given, x, y, w_gates, bias, w)
        receiver, donor, of_out = _rows(x), _rows(y), _rows(given)
        of_x, of_y = torch.empty_like(receiver), torch.empty_like(donor)
        sums: tuple[Tensor, ...] | None = None
        maps = zip(*[iter(parts)] * ctx.maps, strict=True)
        for turn, kept in zip(_turns(of_x, of_y, of_out, receiver, donor), maps, strict=True):
            sums = _compiled(_backward)(*turn, cast_gates, cast, sums, *kept)
        assert sums is not None  # there is a turn even without rows
        of_gates, of_bias, of_w = (part.to(w.dtype) for part in sums)
        return (
            _features(of_x, x),
            _features(of_y, y),
            of_gates.view_as(w_gates),
            None if bias is None else of_bias,
            of_w.view_as(w),
        )


def _is_batched(gradient: Tensor) -> bool:
    """Whether vmap, or ``is_grads_batched`` with its older kind, hands over many gradients as one."""
    kinds = torch._C._functorch
    return kinds.is_functorch_wrapped_tensor(gradient) or kinds.is_legacy_batchedtensor(gradient)


def _backward_of_plain(
    needed: Sequence[bool], given: Tensor, x: Tensor, y: Tensor, *weights: Tensor | None
) -> tuple[Tensor | None, ...]:
    inputs = (x, y, *weights)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        again = _features(_plain(_rows(x), _rows(y), *weights), x)  # type: ignore[arg-type]
        wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(again, wanted, given, create_graph=create_graph))  # type: ignore[arg-type]
    return tuple(next(found) if need else None for need in needed)


def low_precision(*features: Tensor) -> torch.dtype | None:
    """The half precision in which autocast computes with ``features``, if these functions serve them."""
    if not (torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return None
    if any(x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last) for x in features):
        return None
    return torch.get_autocast_dtype("cpu")
