"""What several processes compute together, so that they train as one does on the joined batch."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from synthmtl.exchange import gathered, process_count, several_processes
from synthmtl.native import load_functions

SOURCE = Path(__file__).with_name("normalization.cpp")
LANES = 16  # channels that its functions compute at once


class SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor, whose gradient is the sum of every process's gradient.

    Where all processes compute the same number from such sums, the gradients that they average are those of one process
    on the joined batch. All must take part, forwards and backwards.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return gathered(x).sum(0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gathered(gradient).sum(0)


class NormalizeOverProcesses(torch.autograd.Function):
    """x (B, C, H, W) normalized by the mean and variance (C,) of all processes' rows, then scaled and shifted.

    The statistics are part of the function, so its gradient goes through them; weight and bias (C,) get that of this
    process's rows. Small messages cost time and not bandwidth, so there is one exchange forwards and one backwards.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were constants, which also gives both sums that the statistics' own gradient needs.
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # Each row's part through them is scale · (along · x̂ + level), with x̂ = (x - mean) / deviation and
        # scale = weight / deviation: the kernel that normalizes does it in one pass over half-precision features.
        rows = process_count() * x.numel() // x.shape[1]
        sums = gathered(torch.stack([to_weight, to_bias])).sum(0)
        along, level = sums * (variance + ctx.eps).rsqrt_().mul_(weight).div_(rows)
        direct -= F.batch_norm(x, mean, variance, along, level, training=False, eps=ctx.eps)
        return direct, to_weight, to_bias, None, None, None


class NormalizeRowsOverProcesses(torch.autograd.Function):
    """The same by the functions of ``normalization.cpp``, running statistics included: for what :func:`served` allows.

    Messages are those of :class:`NormalizeOverProcesses`, so that a process without these functions gets along.
    """

    @staticmethod
    def forward(ctx, x: Tensor, layer: "CrossProcessBatchNorm2d", weight: Tensor, bias: Tensor) -> Tensor:
        functions = torch.ops.synthmtl
        of_all = gathered(functions.moments(x))
        running = (layer.running_mean, layer.running_var)
        out, statistics = functions.normalize(x, of_all, weight, bias, *running, layer.momentum, layer.eps)
        ctx.save_for_backward(x, weight, statistics)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, statistics = ctx.saved_tensors
        functions = torch.ops.synthmtl
        sums = functions.normalize_sums(gradient, x, statistics)
        return functions.normalize_backward(gradient, x, weight, statistics, gathered(sums)), None, *sums


def served(x: Tensor, weight: Tensor) -> bool:
    """Whether :class:`NormalizeRowsOverProcesses` computes with these features and a layer of this weight.

    It does on a CPU, in bfloat16 or float32, if channels are last, their number is a multiple of 16 and the functions
    could be built.
    """
    known = x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32) and weight.dtype == torch.float32
    last = x.shape[1] % LANES == 0 and x.is_contiguous(memory_format=torch.channels_last)
    return known and last and load_functions(SOURCE)


def statistics_over_processes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance (C,) of the rows x (B, C, H, W) of all processes."""
    # The kernel of batch normalization: ``var_mean`` takes twenty times as long where channels are last.
    nothing = x.new_zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))  # for their precision
    of_all = gathered(torch.stack(torch.batch_norm_update_stats(x, nothing, nothing, 0.0)))
    # Variances within and between: the mean of squares less the squared mean cancels where the mean is large.
    mean, within = of_all.mean(0)
    return mean, within + of_all[:, 0].var(0, correction=0)


class CrossProcessBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over the global batch (Ioffe and Szegedy, 2015), on the CPU too.

    In one process it is ``nn.BatchNorm2d``. In several, mean and variance are those of all processes' rows, with
    gradients through them, so that W processes train exactly as one does on the joined batch. (``nn.SyncBatchNorm``
    exists for CUDA only.) The rows must be shared out evenly.
    """

    # Statistics are always kept, as moving means.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and several_processes()):
            return super().forward(x)
        if served(x, self.weight):
            self.num_batches_tracked += 1
            return NormalizeRowsOverProcesses.apply(x, self, self.weight, self.bias)
        with torch.no_grad():
            mean, variance = statistics_over_processes(x)
            count = process_count() * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
            self.num_batches_tracked += 1
        return NormalizeOverProcesses.apply(x, self.weight, self.bias, mean, variance, self.eps)
