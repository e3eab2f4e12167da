"""How noise is put on faces, what a denoiser predicts of it, and the solvers that take it away."""

import math
from collections.abc import Callable

import diffusers  # which reads a scheduler, a UNet or a pipeline when it is first named
import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from synthmtl.errors import InputError

TIMESTEPS = 1000
"""Noise levels run from 0 (clean) to ``TIMESTEPS`` (nothing but noise)."""

MAX_STEPS = 500
"""More sampling steps than this are refused: they would meet at the same noise levels."""

_ROUNDING = 1e-9  # what a quotient of steps and strength may be above the whole number that it stands for

_COSINE = {"num_train_timesteps": TIMESTEPS, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}

SOLVERS: dict[str, dict[str, Callable[[], SchedulerMixin]]] = {
    "v": {
        # Below log(alpha / sigma) = -5.1 the cosine schedule is all noise, and a step over it is a step wasted.
        "dpm": lambda: diffusers.DPMSolverMultistepScheduler(**_COSINE, lambda_min_clipped=-5.1),
        "ddim": lambda: diffusers.DDIMScheduler(**_COSINE, clip_sample=False, timestep_spacing="trailing"),
    },
    "flow": {
        "dpm": lambda: diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=0.5
        ),
        "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=0.5),
    },
}
"""Solvers by prediction and name, the default first: DPM-Solver++ (2M), DDIM, and Euler's for flow matching."""

_AGREED = (
    "num_train_timesteps", "use_flow_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
    "use_lu_lambdas", "use_dynamic_shifting", "invert_sigmas", "shift_terminal", "thresholding", "stochastic_sampling",
    "algorithm_type",
)  # fmt: skip
"""Settings that a given scheduler must share with ours: others mean other noise, clip a face to another range, place
steps where :meth:`NoiseSchedule.plan` does not, or draw noise from torch's global generator."""

_OURS = ("clip_sample", "timestep_spacing", "steps_offset", "lambda_min_clipped")
"""Settings that a given scheduler gets from ours: the sampler clips, :meth:`NoiseSchedule.plan` places the steps."""


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
        self._alphas_cumprod = diffusers.DDIMScheduler(**_COSINE).alphas_cumprod

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
            InputError: if the solver is unknown or does not go with the prediction, naming the setting if it is one.
        """
        known = SOLVERS[self.prediction]
        if solver is None or isinstance(solver, str):
            name = next(iter(known)) if solver is None else solver
            if name not in known:
                raise InputError(f"no solver {name!r} for {self.prediction} prediction: use one of {', '.join(known)}")
            return known[name]()
        own = next((made for made in (make() for make in known.values()) if type(made) is type(solver)), None)
        name = type(solver).__name__
        if own is None or own.config.get("prediction_type") != solver.config.get("prediction_type"):
            raise InputError(
                f"{name} as configured cannot solve for {self.prediction} prediction: use one of {', '.join(known)}"
            )
        for setting in _AGREED:
            wanted, found = own.config.get(setting), solver.config.get(setting)
            if (found or None) != (wanted or None):  # False, None and 0 all leave a setting off
                raise InputError(
                    f"{name} with {setting}={found!r} cannot solve for {self.prediction} prediction: "
                    f"set it to {wanted!r}"
                )
        if self.prediction == "flow" and not 0 < _shift(solver) < math.inf:
            raise InputError(f"{name} shifts noise levels by {_shift(solver)!r}: set its shift to a positive number")
        ours = {key: own.config[key] for key in _OURS if own.config.get(key) != solver.config.get(key)}
        copy = type(solver).from_config(solver.config, **ours)
        known_levels = self._alphas_cumprod.cpu()
        if self.prediction == "v" and not (
            copy.alphas_cumprod.shape == known_levels.shape and torch.allclose(copy.alphas_cumprod, known_levels)
        ):
            raise InputError(
                f"{name} has other noise levels than the network: set beta_schedule to {_COSINE['beta_schedule']!r}, "
                "and neither trained_betas nor rescale_betas_zero_snr"
            )
        return copy

    def plan(
        self, solver: SchedulerMixin, steps: int, device: torch.device, strength: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Set ``solver`` to that many steps from noise to face; a ``strength`` below 1 starts at about so much of it.

        A few even steps end at a noise level above the finer detail of a face, which then stays a blur. On Gaussian
        data of deviation 0.3, 8 even steps of DPM-Solver++ leave an error of 20 % of the deviation, 50 of DDIM 5 %, and
        8 at times that fall as (1 - i/8)^1.5 leave 2 %. So these are taken, and sigma / (2 - sigma) in flow matching.

        Below strength 1 the first time is that share of the solver's own first time. Only DDIM has no other times than
        those of whole ways: it takes the last steps of a way of ceil(steps / strength), and so starts at
        steps / ceil(steps / strength), the same for nearby strengths.

        Returns:
            The time (steps,) of each step, and what ``solver.step`` calls it.

        Raises:
            InputError: if there is no step, or a whole way of such steps has more than 500.
        """
        # Flow matching shifts even levels s to shift s / (1 + (shift - 1) s): those from share start at strength.
        shift = _shift(solver) if self.prediction == "flow" else 1.0
        share = strength / (shift + (1 - shift) * strength)
        most = math.floor(share * (MAX_STEPS + _ROUNDING))
        if most < 1:
            raise InputError(f"strength {strength} is less than one of {MAX_STEPS} steps takes away: use a greater one")
        if not 1 <= steps <= most:
            raise InputError(
                f"the number of sampling steps must lie in [1, {most}]"
                f"{'' if strength == 1 else f' at strength {strength}'}, not {steps}"
            )
        if isinstance(solver, diffusers.FlowMatchEulerDiscreteScheduler):
            # By itself it would spend the last evaluation on a face that is clean already.
            solver.set_timesteps(sigmas=np.linspace(share, share / steps, steps).tolist(), device=device)
            return solver.sigmas[:-1].to(device) * TIMESTEPS, solver.timesteps
        if self.prediction == "flow":
            solver.set_timesteps(steps, device=device)
            if strength < 1:
                # By itself it can start at its first level only, which is a little below 1.
                even = share * (1 - 1 / TIMESTEPS) * (1 - np.arange(steps) / steps)
                levels = torch.from_numpy(shift * even / (1 + (shift - 1) * even)).float()
                solver.sigmas = torch.cat([levels, solver.sigmas[-1:]])
                solver.timesteps = levels.to(device) * TIMESTEPS
            # It rounds the times of flow matching down to whole ones, its noise levels it does not round.
            return solver.sigmas[:-1].to(device) * TIMESTEPS, solver.timesteps
        if isinstance(solver, diffusers.DPMSolverMultistepScheduler):
            first = strength * (int((solver.lambda_t > solver.config.lambda_min_clipped).sum()) - 1)
            times = (first * (1 - np.arange(steps) / steps) ** 1.5).round().astype(int)
            if len(set(times) - {0}) == steps:  # the last of very many would be the same
                solver.set_timesteps(timesteps=times.tolist(), device=device)
                return solver.timesteps, solver.timesteps
        whole = math.ceil(steps / share - _ROUNDING)
        solver.set_timesteps(whole, device=device)
        if whole > steps and not isinstance(solver, diffusers.DDIMScheduler):  # which keeps no count
            solver.set_begin_index(whole - steps)
        called = solver.timesteps[whole - steps :]
        return called, called


def _shift(solver: SchedulerMixin) -> float:
    """By what a solver of flow matching shifts its noise levels."""
    return solver.config["shift" if isinstance(solver, diffusers.FlowMatchEulerDiscreteScheduler) else "flow_shift"]
