"""Leaky units of 1×1 kernels as two compiled functions over rows of channels, for training on a CPU.

Left to itself, ``torch.compile`` computes the gates again in the backward pass, which on a CPU costs more than reading
them, and copies concatenated features element by element. Here the backward pass is written out, and both passes go
through the rows in turns that stay in the cache. The two directions of an exchange read the same features: computed
together, these are joined once, and all four gates are one matrix product.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor

TURN = 300_000  # features of one map that a turn takes at most: the maps of a turn fit a core's share of the cache
KEPT = 600_000  # features of one map up to which joined maps are kept for the backward pass instead of joined again


def _directions(x: Tensor, y: Tensor, maps: Tensor, count: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Receiver, donor, r and z of each direction: from y to x, and from x to y if there are two."""
    gates = maps.chunk(2 * count, 1)
    both = zip([(x, y), (y, x)], gates[::2], gates[1::2], strict=False)
    return [(receiver, donor, r, z) for (receiver, donor), r, z in both]


def _forward(
    outs: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    w_gates: Tensor,
    bias: Tensor | None,
    ws: Sequence[Tensor],
    keep: bool,
) -> list[Tensor]:
    """Each direction's x' (rows, C) into ``outs``.

    Returned are, for D directions, [r, z] of each (rows, 2 C D), c of each (rows, C); if asked, [x, y] and
    [r . y, x] of each (rows, 2 C) as well.
    """
    joined = torch.cat([x, y], 1)
    logits = _wide(joined @ w_gates.t())
    maps = torch.sigmoid(logits if bias is None else logits + bias).to(x.dtype)
    candidates, mixed = [], []
    for out, w, (receiver, donor, r, z) in zip(outs, ws, _directions(x, y, maps, len(ws)), strict=True):
        mixed.append(torch.cat([r * donor, receiver], 1))
        c = 2 * torch.sigmoid(2 * _wide(mixed[-1] @ w.t())) - 1  # tanh, in half of the time
        candidates.append(c.to(x.dtype))
        out.copy_(torch.lerp(receiver, candidates[-1], z))
    return [maps, *candidates, joined, *mixed] if keep else [maps, *candidates]


def _backward(
    of_x: Tensor,
    of_y: Tensor,
    given: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    w_gates: Tensor,
    ws: Sequence[Tensor],
    before_this: Sequence[Tensor] | None,
    maps: Tensor,
    *kept: Tensor,
) -> list[Tensor]:
    """From the gradients ``given`` of each x', those of x and y into ``of_x`` and ``of_y``.

    Returned are those of the weights and biases, added to what came before; ``maps`` and ``kept`` are what the forward
    pass returned.
    """
    candidates, joined_maps = kept[: len(ws)], kept[len(ws) :]
    if joined_maps:
        joined, *mixed = joined_maps
        x, y = joined.chunk(2, 1)  # one map to be read instead of two
    directions = _directions(x, y, maps, len(ws))
    if not joined_maps:
        joined = torch.cat([x, y], 1)
        mixed = [torch.cat([r * donor, receiver], 1) for receiver, donor, r, _ in directions]
    of_candidates, of_logits, of_receivers, of_donors = [], [], [], []
    for of_out, c, w, (receiver, donor, r, z) in zip(given, candidates, ws, directions, strict=True):
        of_candidates.append(of_out * z * (1 - c * c))
        message, direct = (of_candidates[-1] @ w).chunk(2, 1)
        of_logits += [message * donor * ((1 - r) * r), (c - receiver) * of_out * ((1 - z) * z)]
        of_receivers.append(direct + (of_out - of_out * z))
        of_donors.append(message * r)
    logits = torch.cat(of_logits, 1)
    of_features = list((logits @ w_gates).chunk(2, 1))
    for turned, (of_receiver, of_donor) in enumerate(zip(of_receivers, of_donors, strict=True)):
        of_features[turned] = of_features[turned] + of_receiver
        of_features[1 - turned] = of_features[1 - turned] + of_donor
    of_x.copy_(of_features[0])
    of_y.copy_(of_features[1])
    found = [logits.t() @ joined, logits.sum(0), *(c.t() @ m for c, m in zip(of_candidates, mixed, strict=True))]
    if before_this is None:
        return [_wide(part) for part in found]
    return [sums + part for sums, part in zip(before_this, found, strict=True)]


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


def _turns(rows: int, channels: int) -> list[slice]:
    """Equally many rows each."""
    turns = max(1, -(-rows * channels // TURN))
    each = max(1, -(-rows // turns))
    return [slice(start, start + each) for start in range(0, max(1, rows), each)]


Weights = tuple[Tensor, Tensor | None, Tensor]
"""Of a direction: the gates' (2 C, 2 C, 1, 1), their biases (2 C,) or None, and the candidate's (C, 2 C, 1, 1)."""


def _by_direction(weights: Sequence[Tensor | None]) -> list[Weights]:
    return list(zip(*[iter(weights)] * 3, strict=True))  # type: ignore[arg-type]


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

    Behind x and y come the :data:`Weights` of the direction to x and, if y receives as well, those of the direction to
    y, which are taken in the precision of x and y; returned are (x',) or (x', y'). A gradient of a gradient, and the
    gradients of many losses at once, go through autograd.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, *weights: Tensor | None) -> tuple[Tensor, ...]:
        to_x, *to_y = _by_direction(weights)
        channels, keep = x.shape[1], x.numel() <= KEPT
        # Gates of the direction to y read [y, x]: with their columns swapped they read [x, y], as the others do.
        gates = [to_x[0].flatten(1), *(w_gates.flatten(1).roll(channels, 1) for w_gates, _, _ in to_y)]
        w_gates = torch.cat(gates).to(x.dtype)
        biases = [bias for _, bias, _ in (to_x, *to_y) if bias is not None]
        bias = torch.cat(biases) if biases else None
        ws = [_matrix(w, x) for _, _, w in (to_x, *to_y)]
        rows = _rows(x), _rows(y)
        outs = [torch.empty_like(rows[0]) for _ in ws]
        turns = _turns(*rows[0].shape)
        kept = []
        for turn in turns:
            into, features = [out[turn] for out in outs], [part[turn] for part in rows]
            kept.append(_compiled(_forward)(into, *features, w_gates, bias, ws, keep))
        ctx.save_for_backward(x, y, *weights, w_gates, *ws, *chain.from_iterable(kept))
        ctx.directions, ctx.maps, ctx.turns = len(ws), len(kept[0]), turns
        return tuple(_features(out, x) for out in outs)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, y, *saved = ctx.saved_tensors
        count = ctx.directions
        weights, (w_gates, *saved) = saved[: 3 * count], saved[3 * count :]
        if torch.is_grad_enabled() or any(map(_is_batched, given)):
            return _backward_of_plain(ctx.needs_input_grad, given, x, y, *weights)
        ws, parts = saved[:count], saved[count:]
        rows, of_outs = (_rows(x), _rows(y)), [_rows(each) for each in given]
        of_rows = [torch.empty_like(part) for part in rows]
        sums: list[Tensor] | None = None
        for turn, maps in zip(ctx.turns, zip(*[iter(parts)] * ctx.maps, strict=True), strict=True):
            into, features = [part[turn] for part in of_rows], [part[turn] for part in rows]
            sums = _compiled(_backward)(*into, [part[turn] for part in of_outs], *features, w_gates, ws, sums, *maps)
        assert sums is not None  # there is a turn even without rows
        of_gates, of_biases, *of_ws = sums
        found: list[Tensor | None] = [_features(part, x) for part in of_rows]
        channels, split = x.shape[1], 2 * x.shape[1]
        each = zip(_by_direction(weights), of_gates.split(split), of_biases.split(split), of_ws, strict=True)
        for turned, ((of, bias, w), of_gate, of_bias, of_w) in enumerate(each):
            of_gate = of_gate.roll(channels, 1) if turned else of_gate
            found += [of_gate.to(of.dtype).view_as(of), None if bias is None else of_bias, of_w.to(w.dtype).view_as(w)]
        return tuple(found)


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


def low_precision(*features: Tensor) -> torch.dtype | None:
    """The half precision in which autocast computes with ``features``, if these functions serve them."""
    if not (torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return None
    if any(x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last) for x in features):
        return None
    return torch.get_autocast_dtype("cpu")
