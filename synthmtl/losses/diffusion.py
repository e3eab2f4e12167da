"""The objective of joint training with a diffusion model: recognition and denoising."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from synthmtl.data.batch import EditBatch
from synthmtl.errors import InputError
from synthmtl.losses.expression import ExpressionLoss
from synthmtl.losses.weighting import weighted_mean
from synthmtl.models.denoiser import DiffusionFERSNet
from synthmtl.models.encoder import Encoded
from synthmtl.models.noise import TIMESTEPS


@dataclass
class DenoisingOptions:
    """How denoising is learned.

    Attributes:
        denoising: weight of the denoising loss.
        drop_source: share of the paired edits that are learned without their source.
        drop_condition: share of the edits that are learned without their target, for classifier-free guidance.
        times: how noise levels are drawn: ``uniform``, or ``logit_normal``, the middle more often (Esser et al., ICML
            2024).
        snr_gamma: gamma of min-SNR weighting (Hang et al., ICCV 2023), 5 in the paper; None = every noise level counts
            the same in units of the prediction.
        balancing: weight of the class-balancing regularizer (Qin et al., CVPR 2023), 1 in the paper; 0 turns it off.
            It needs a second evaluation of the denoiser.
        commitment: gamma of that regularizer, 1/4 in the paper.
        sharing: weight of what the sharing units ask for, which they weigh themselves.

    Raises:
        InputError: if a number is out of range, or there is no such way to draw noise levels.
    """

    denoising: float = 1.0
    drop_source: float = 0.1
    drop_condition: float = 0.1
    times: Literal["uniform", "logit_normal"] = "uniform"
    snr_gamma: float | None = None
    balancing: float = 0.0
    commitment: float = 0.25
    sharing: float = 1.0

    def __post_init__(self):
        for name in ("drop_source", "drop_condition"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share in [0, 1], not {getattr(self, name)}")
        for name in ("denoising", "balancing", "commitment", "sharing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"the weight {name} must be a finite number from 0 up, not {getattr(self, name)}")
        if self.snr_gamma is not None and not self.snr_gamma > 0:
            raise InputError(f"snr_gamma must be above 0, not {self.snr_gamma}; null turns the weighting off")
        if self.times not in ("uniform", "logit_normal"):
            raise InputError(f"unknown times {self.times!r}: use uniform or logit_normal")


class DiffusionObjective(nn.Module):
    """Recognition and denoising together.

    Each edit's target face is made noisy and denoised, told its own label: ``expression``, ``action_units`` or
    ``valence_arousal``, as the network is conditioned. With m over pixels and channels and the edit's weight w,

        L = sum_i w_i s(t_i) m (f(x_t, t, target, source)_i - schedule.target_i)² / sum_i w_i,

    s = 1, or min(SNR, gamma) sigma_t², which is min-SNR weighting of the error of the clean face, in terms of either
    prediction. A paired edit's source conditions the denoiser, and may be what its target is a change of
    (``diffused``). An unpaired one's is somebody else and nothing to learn from: its target is denoised from its
    expression alone. (A face that conditioned its own denoising would only teach the network to copy.) With no paired
    edits at all, denoising leaves the encoder alone.

    The class-balancing regularizer draws another expression y' for each edit, all alike, and adds

        t/1000 (m (e(y) - sg e(y'))² + gamma m (sg e(y) - e(y'))²),

    e the noise that the prediction means and sg a stopped gradient.

    Args:
        model: the network.
        expression_loss: cross-entropy of the recognition branch.
        options: of denoising.
        recognition: weight of the recognition loss.

    ``forward(batch: EditBatch)`` returns every term by name, their weighted sum as ``loss``, and the two parts of that
    sum, for aggregators, as ``task/recognition`` (the expression term) and ``task/synthesis`` (all others). All it
    draws comes from ``batch.random``.

    Raises:
        InputError: if the regularizer is wanted for a network that is not conditioned on the expression.
    """

    def __init__(
        self,
        model: DiffusionFERSNet,
        expression_loss: ExpressionLoss,
        options: DenoisingOptions,
        *,
        recognition: float = 1.0,
    ):
        super().__init__()
        if options.balancing and model.config.condition != "expression":
            raise InputError(
                f"the class-balancing regularizer needs classes, the network is conditioned on "
                f"{model.config.condition}: set balancing to 0"
            )
        self.model = model
        self.expression_loss = expression_loss
        self.options = dataclasses.replace(options)
        self.recognition = recognition

    def forward(self, batch: EditBatch) -> dict[str, Tensor]:
        model, options = self.model, self.options
        labelled, paired = batch.labelled, torch.where(batch.paired)[0]
        encoded = model.encode(torch.cat([labelled.image, batch.source.image[paired]]))
        faces = _rows(encoded, slice(len(labelled)))
        expression = self.expression_loss(
            model.classify(faces), labelled.expression, labelled.weight, labelled.expression_distribution
        )
        sources = _rows(encoded, slice(len(labelled), None), paired, len(batch.source)) if len(paired) else None
        terms = self._denoising_terms(batch, sources)
        if encoded.penalty is not None and options.sharing:
            terms["sharing"] = encoded.penalty
        recognition = self.recognition * expression
        synthesis = sum(getattr(options, name) * value for name, value in terms.items())
        tasks = {"task/recognition": recognition, "task/synthesis": synthesis}
        terms = {name: value.detach() for name, value in (terms | {"expression": expression}).items()}
        return {"loss": recognition + synthesis} | tasks | terms

    def _denoising_terms(self, batch: EditBatch, sources: Encoded | None) -> dict[str, Tensor]:
        model, options, random = self.model, self.options, batch.random
        schedule, count = model.schedule, len(batch.target)
        logit_normal = options.times == "logit_normal"
        times = schedule.times(
            random.normal("time", count).sigmoid() if logit_normal else random.uniform("time", count)
        )
        keep_source = batch.paired & (random.uniform("drop-source", count) >= options.drop_source)
        clean = model.diffusible(batch.target.image, batch.source.image, keep_source)
        noise = random.normal("noise", *clean.shape)
        noisy = schedule.noisy(clean, noise, times)
        target = getattr(batch.target, model.config.condition)
        keep_condition = random.uniform("drop-condition", count) >= options.drop_condition
        alpha, sigma = (rate.flatten() for rate in schedule.rates(times))
        predicted = model.denoise(noisy, times, sources, target, keep_source=keep_source, keep_condition=keep_condition)
        errors = _distance(predicted, schedule.target(clean, noise, times))
        if options.snr_gamma is not None:
            errors = (alpha / sigma).square().clamp(max=options.snr_gamma) * sigma.square() * errors
        weight = batch.target.weight
        terms = {"denoising": weighted_mean(errors, weight)}
        if options.balancing:
            other = random.integers("balancing", 0, len(model.classes), count)
            others = model.denoise(noisy, times, sources, other, keep_source=keep_source)
            apart = _distance(predicted, others.detach())
            apart = apart + options.commitment * _distance(predicted.detach(), others)
            # Of either prediction, the noise that it means is alpha_t times as far apart.
            apart = times / TIMESTEPS * alpha.square() * apart
            terms["balancing"] = weighted_mean(apart, weight * keep_condition)
        return terms


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of each row, (B,)."""
    return (a - b).square().mean((1, 2, 3))


def _rows(encoded: Encoded, part: slice, places: Tensor | None = None, count: int = 0) -> Encoded:
    """Some rows of what the encoder hands on; with ``places``, put there among ``count`` rows of zeros."""

    def take(x: Tensor) -> Tensor:
        x = x[part]
        return x if places is None else x.new_zeros(count, *x.shape[1:]).index_copy(0, places, x)

    return Encoded(take(encoded.recognition), take(encoded.synthesis), [take(skip) for skip in encoded.skips])
