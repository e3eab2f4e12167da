"""How noise is put on faces, what a denoiser predicts of it, and the solvers that take it away."""

import math
from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from torch import Tensor

from synthmtl.errors import InputError

TIMESTEPS = 1000
"""Noise levels run from 0 (clean) to ``TIMESTEPS`` (nothing but noise)."""

MAX_STEPS = 500
"""More sampling steps than this are refused: they would meet at the same noise levels."""

_COSINE = {"num_train_timesteps": TIMESTEPS, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}

SOLVERS: dict[str, dict[str, Callable[[], SchedulerMixin]]] = {
    "v": {
        # Below log(alpha / sigma) = -5.1 the cosine schedule is all noise, and a step over it is a step wasted.
        "dpm": lambda: DPMSolverMultistepScheduler(**_COSINE, lambda_min_clipped=-5.1),
        "ddim": lambda: DDIMScheduler(**_COSINE, clip_sample=False, timestep_spacing="trailing"),
    },
    "flow": {
        "dpm": lambda: DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=0.5
        ),
        "flow": lambda: FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=0.5),
    },
}
"""Solvers by prediction and name, the default first: DPM-Solver++ (2M), DDIM, and Euler's for flow matching."""


class NoiseSchedule:
    """The noisy face x_t = alpha_t x + sigma_t e at time t, and what is predicted of it.

    ``v``: alpha_t² + sigma_t² = 1 after the cosine schedule (Nichol and Dhariwal, ICML 2021), t whole in [0, 1000);
    predicted is the velocity v = alpha_t e - sigma_t x (Salimans and Ho, ICLR 2022).
    ``flow``: sigma_t = t / 1000 and alpha_t = 1 - sigma_t; predicted is u = e - x, the direction of the straight way
    from face to noise (Lipman et al., ICLR 2023; Liu, Gong, Liu, ICLR 2023).

    Images and noise are (B, C, H, W), times (B,) or scalars.

    Raises:
        InputError: if there is no such prediction.
    """

    def __init__(self, prediction: str):
        if prediction not in SOLVERS:
            raise InputError(f"unknown prediction {prediction!r}: use one of {', '.join(SOLVERS)}")
        self.prediction = prediction
        self._alphas_cumprod = DDIMScheduler(**_COSINE).alphas_cumprod

    def rates(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t, (B, 1, 1, 1) float32."""
        timestep = timestep.view(-1, 1, 1, 1)
        if self.prediction == "flow":
            sigma = timestep.float() / TIMESTEPS
            return 1 - sigma, sigma
        self._alphas_cumprod = self._alphas_cumprod.to(timestep.device)
        kept = self._alphas_cumprod[timestep.long()]
        return kept.sqrt(), (1 - kept).sqrt()

    def times(self, uniform: Tensor) -> Tensor:
        """Times (B,) that numbers in [0, 1) stand for, evenly spread."""
        times = uniform * TIMESTEPS
        return times if self.prediction == "flow" else times.long().clamp(max=TIMESTEPS - 1)

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t."""
        alpha, sigma = self.rates(timestep)
        return alpha * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What a denoiser should predict."""
        alpha, sigma = self.rates(timestep)
        return noise - clean if self.prediction == "flow" else alpha * noise - sigma * clean

    def clean(self, noisy: Tensor, predicted: Tensor, timestep: Tensor) -> Tensor:
        """The clean face that a prediction means."""
        alpha, sigma = self.rates(timestep)
        return noisy - sigma * predicted if self.prediction == "flow" else alpha * noisy - sigma * predicted

    def predicted(self, noisy: Tensor, clean: Tensor, timestep: Tensor) -> Tensor:
        """The prediction that means a clean face: the inverse of :meth:`clean`, for t > 0."""
        alpha, sigma = self.rates(timestep)
        return (noisy - clean if self.prediction == "flow" else alpha * noisy - clean) / sigma

    def solver(self, solver: str | SchedulerMixin | None = None) -> SchedulerMixin:
        """A fresh solver: of :data:`SOLVERS` by name (None = the default), or like the given ``diffusers`` scheduler.

        Raises:
            InputError: if the solver is unknown or does not go with the prediction.
        """
        known = SOLVERS[self.prediction]
        if solver is None or isinstance(solver, str):
            name = next(iter(known)) if solver is None else solver
            if name not in known:
                raise InputError(f"no solver {name!r} for {self.prediction} prediction: use one of {', '.join(known)}")
            return known[name]()
        model = next((made for made in (make() for make in known.values()) if type(made) is type(solver)), None)
        if model is None or model.config.get("prediction_type") != solver.config.get("prediction_type"):
            raise InputError(
                f"{type(solver).__name__} as configured cannot solve for {self.prediction} prediction: "
                f"use one of {', '.join(known)}"
            )
        return type(solver).from_config(solver.config)

    def plan(
        self, solver: SchedulerMixin, steps: int, device: torch.device, strength: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Set ``solver`` to that many steps from noise to face; a ``strength`` below 1 starts at about so much of it.

        A few even steps end at a noise level above the finer detail of a face, which then stays a blur. On Gaussian
        data of deviation 0.3, 8 even steps of DPM-Solver++ leave an error of 20 % of the deviation, 50 of DDIM 5 %, and
        8 at times that fall as (1 - i/8)^1.5 leave 2 %. So these are taken, and sigma / (2 - sigma) in flow matching.

        Returns:
            The time (steps,) of each step, and what ``solver.step`` calls it.

        Raises:
            InputError: if there is no step, or a whole way of such steps has more than 500.
        """
        # Of the whole way, at whose end the steps lie; the shift of flow matching makes the first of them less noisy.
        share = 2 * strength / (1 + strength) if self.prediction == "flow" else strength
        whole = math.ceil(steps / share)
        if not 1 <= steps <= whole <= MAX_STEPS:
            raise InputError(
                f"the number of sampling steps must lie in [1, {int(share * MAX_STEPS)}]"
                f"{'' if strength == 1 else f' at strength {strength}'}, not {steps}"
            )
        if isinstance(solver, DPMSolverMultistepScheduler) and self.prediction == "v":
            first = strength * (int((solver.lambda_t > solver.config.lambda_min_clipped).sum()) - 1)
            times = (first * (1 - np.arange(steps) / steps) ** 1.5).round().astype(int)
            if len(set(times) - {0}) == steps:  # the last of very many would be the same
                solver.set_timesteps(timesteps=times.tolist(), device=device)
                return solver.timesteps, solver.timesteps
        if isinstance(solver, FlowMatchEulerDiscreteScheduler):
            # By itself it would spend the last evaluation on a face that is clean already.
            solver.set_timesteps(sigmas=np.linspace(1, 1 / whole, whole).tolist(), device=device)
        else:
            solver.set_timesteps(whole, device=device)
        if whole > steps and not isinstance(solver, DDIMScheduler):  # which keeps no count
            solver.set_begin_index(whole - steps)
        called = solver.timesteps[whole - steps :]
        if self.prediction == "v":
            return called, called
        # DPM-Solver rounds the times of flow matching down to whole ones, its noise levels it does not round.
        return solver.sigmas[whole - steps : -1].to(device) * TIMESTEPS, called
