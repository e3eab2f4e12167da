"""Means over the rows that count, on one process or many."""

import torch
from torch import Tensor

from synthmtl.exchange import process_count
from synthmtl.models.cross_process import SumOverProcesses


def processes() -> int:
    """How many processes share the batch of a loss that is computed now: 1 outside of training."""
    return process_count() if torch.is_grad_enabled() else 1


def summed(x: Tensor) -> Tensor:
    """The sum of every process's ``x``, with gradients to all of them; every process must call it in training."""
    return SumOverProcesses.apply(x) if processes() > 1 else x


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i v_i / sum_i w_i of values and weights of one shape, at least 0; zero if all weights are zero.

    In training on several processes the lower sum is that of the mean process, so that averaged gradients are those
    of one process on the joined batch, however the weights fall to the processes. Every process must call it then.
    """
    weights = weights.to(values.dtype)
    # Divided before they meet the values, the weights need no gradient: a step of a small network is short.
    return (values * ratio(weights, summed(weights.sum()) / processes())).sum()


def ratio(upper: Tensor, lower: Tensor) -> Tensor:
    """``upper / lower``, and ``upper`` itself where nothing counts (lower = 0), which then is a zero."""
    return upper / torch.where(lower > 0, lower, 1.0)


def per_row(weight: Tensor, like: Tensor) -> Tensor:
    """Weights of faces (B,) in a shape that multiplies ``like``, (B, ...)."""
    return weight.view(-1, *[1] * (like.ndim - 1))
