"""From noise to faces: a pure function of its arguments, each face by its own noise."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import diffusers
import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.encoder import Encoded
from synthmtl.models.noise import NoiseSchedule

Generator = torch.Generator | Sequence[torch.Generator]
"""One generator for a whole batch, or one for each face, which then is the same in every batch."""


@dataclass
class SamplingOptions:
    """How a diffusion model samples faces; a decoder needs none of it.

    Attributes:
        steps: of the solver, in [1, 500].
        guidance_scale: strength of classifier-free guidance; 1 is none, others double the cost of a step.
        solver: ``dpm``, ``ddim`` (v prediction) or ``flow`` (flow prediction); null = ``dpm``.
        eta: noise added anew in each step, from 0 (none) to 1 (as much as in DDPM); ``ddim`` only.
        strength: null = what the gates let through of the source tells the denoiser whom to make; a number in (0, 1] =
            the source itself, made noisy so far, is denoised by the target alone (SDEdit; Meng et al., ICLR 2022),
            which also photographs without pairs can teach. 1 leaves nothing of it, 0.5 its outlines; ``ddim`` rounds it
            down to steps / ceil(steps / strength).
    """

    steps: int = 8
    guidance_scale: float = 1.0
    solver: str | None = None
    eta: float = 0.0
    strength: float | None = None

    def check(self, schedule: NoiseSchedule) -> None:
        """Stop at options that no face could be sampled with.

        Raises:
            InputError: naming the option and what it takes.
        """
        _check_ranges(self.guidance_scale, self.eta)
        _planned(schedule, self.solver, self.steps, self.eta, torch.device("cpu"), self.strength)


def _check_ranges(guidance_scale: float, eta: float) -> None:
    """Stop at numbers that would make faces of NaN."""
    if not 0 <= guidance_scale < math.inf:
        raise InputError(f"guidance_scale must be at least 0 and finite, not {guidance_scale}")
    if not 0 <= eta <= 1:
        raise InputError(f"eta lies in [0, 1], not {eta}")


def _planned(
    schedule: NoiseSchedule,
    solver: str | SchedulerMixin | None,
    steps: int,
    eta: float,
    device: torch.device,
    strength: float | None = None,
) -> tuple[SchedulerMixin, Tensor, Tensor]:
    """A solver that is ready, the time of each of its steps, and what it calls it."""
    if strength is not None and not 0 < strength <= 1:
        raise InputError(f"strength lies in (0, 1], not {strength}; null tells the denoiser of the source")
    made = schedule.solver(solver)
    if eta and not isinstance(made, diffusers.DDIMScheduler):
        raise InputError("only the solver ddim adds noise while it samples: choose it, or leave eta at 0")
    return made, *schedule.plan(made, steps, device, 1.0 if strength is None else strength)


def draw_noise(shape: Sequence[int], generator: Generator | None, device: torch.device) -> Tensor:
    """Standard normal (B, ...), drawn where the generators are, so that a seed gives the same on every device.

    Raises:
        InputError: if there is neither one generator nor one for each row.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        generator = list(generator)
        if len(generator) != shape[0]:
            raise InputError(f"{len(generator)} generators for {shape[0]} faces: give one, or one for each face")
    return randn_tensor(tuple(shape), generator=generator, device=device, dtype=torch.float32)


class Denoiser(Protocol):
    """What is sampled from, e.g. :class:`synthmtl.models.DiffusionFERSNet`."""

    schedule: NoiseSchedule
    target: nn.Module

    def denoise(
        self, noisy: Tensor, timestep: Tensor, encoded: Encoded | None, condition: Tensor | None, **kept: Tensor | None
    ) -> Tensor:
        """What ``schedule.target`` is of noisy faces (B, C, H, W), as far as can be told."""
        ...


@torch.no_grad()
def sample_faces(
    model: Denoiser,
    noise: Tensor,
    target: Tensor,
    encoded: Encoded | None = None,
    *,
    steps: int = 8,
    guidance_scale: float = 1.0,
    solver: str | SchedulerMixin | None = None,
    eta: float = 0.0,
    generator: Generator | None = None,
    low: Tensor | float = -1.0,
    high: Tensor | float = 1.0,
    start: Tensor | None = None,
    strength: float | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """Solve from noise to faces, or to whatever else the model was trained to make.

    Guidance w replaces the prediction by f(null) + w (f(target) - f(null)) (Ho and Salimans, 2021), the source kept in
    both: 1 is none and needs one evaluation a step, others need two. The face that a prediction means is clipped to
    its range in every step, since errors of the first few steps would grow.

    Args:
        model: the network, in evaluation mode.
        noise: standard normal (B, C, H, W).
        target: as ``model.target`` takes it, with B rows.
        encoded: of B sources; None = new faces.
        steps: of the solver.
        guidance_scale: w, finite and at least 0.
        solver: as for :meth:`NoiseSchedule.solver`.
        eta: noise added anew in each step, from 0 (none) to 1 (as much as in DDPM); DDIM only.
        generator: draws that noise.
        low, high: range of what is made, numbers or (B, C, H, W).
        start: (B, C, H, W), what solving starts from once the noise is put on it; None = the noise alone.
        strength: how much noise, in (0, 1], with ``start``.
        progress: wraps the iterable of steps.

    Returns:
        (B, C, H, W) float32 in [low, high].

    Raises:
        InputError: if the solver does not suit the model, or ``eta`` the solver, or a number is out of range.
    """
    _check_ranges(guidance_scale, eta)
    schedule = model.schedule
    ready, times, called = _planned(schedule, solver, steps, eta, noise.device, strength)
    stochastic = isinstance(ready, diffusers.DDIMScheduler)
    extra = {"eta": eta, "generator": generator if isinstance(generator, torch.Generator | None) else list(generator)}
    keep = None
    if guidance_scale != 1:
        keep = torch.arange(2 * len(noise), device=noise.device) < len(noise)
        target = torch.cat([target, target])
        encoded = None if encoded is None else _twice(encoded)
    x = noise if start is None else schedule.noisy(start, noise, times[0])
    for i in progress(range(len(times))):
        if keep is None:
            predicted = model.denoise(x, times[i], encoded, target)
        else:
            predicted = model.denoise(torch.cat([x, x]), times[i], encoded, target, keep_condition=keep)
            wanted, null = predicted.chunk(2)
            predicted = null + guidance_scale * (wanted - null)
        clean = _within(schedule.clean(x, predicted, times[i]), low, high)
        predicted = schedule.predicted(x, clean, times[i])
        x = ready.step(predicted, called[i], x, **(extra if stochastic else {})).prev_sample
    return _within(x, low, high)


def _within(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``x`` where it lies in the range, else the nearer end of it."""
    return x.clip(torch.as_tensor(low, device=x.device), torch.as_tensor(high, device=x.device))


def _twice(encoded: Encoded) -> Encoded:
    def double(x: Tensor) -> Tensor:
        return torch.cat([x, x])

    return Encoded(double(encoded.recognition), double(encoded.synthesis), [double(skip) for skip in encoded.skips])
