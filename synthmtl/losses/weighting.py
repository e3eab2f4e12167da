"""Means over the rows that count, on one process or many."""

import torch
import torch.distributed as dist
from torch import Tensor


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i v_i / sum_i w_i of values (B,) with weights (B,), at least 0; zero if all weights are zero.

    In training on several processes the lower sum is that of the mean process, so that averaged gradients are those
    of one process on the joined batch, however the weights fall to the processes. Every process must call it then.
    """
    weights = weights.to(values.dtype)
    total = weights.sum()
    if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
        total = total.clone()
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return (values * weights).sum() / torch.where(total > 0, total, 1.0)
