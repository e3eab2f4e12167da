"""How several tasks' gradients become one step: rules, by name, that give every task a weight.

All of them need no more than the Gramian of the tasks' gradients on the shared parameters (T×T inner products) and the
tasks' losses. So they run on the CPU in double precision, on the same numbers in every process. The gradient methods
come from ``torchjd``; uncertainty weighting, DWA and FAMO are written here, since their state must go into checkpoints.
"""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthmtl.errors import InputError

_INSTALL = "pip install 'synthmtl[interference]'"


class TaskWeighting:
    """A rule that weighs tasks; this one, the plain sum, gives each the weight 1.

    Attributes:
        scales_losses: the weights stand in front of whole losses, so that they also scale the gradients of parameters
            that one task alone reaches; otherwise those get their task's plain gradient.
        looks_back: the rule wants the losses of the same batch after the step, see :meth:`look_back`.
    """

    scales_losses = False
    looks_back = False

    def weights(self, gramian: Tensor, losses: Tensor, seed: int) -> Tensor:
        """Weights (T,) of the tasks; a rule with state moves on.

        A task that no face of the batch is labelled for has a loss and a gradient of exactly zero. It is left out: it
        neither counts as fully learned nor holds the others back.

        Args:
            gramian: (T, T) float64 on the CPU, inner products of the tasks' gradients on the shared parameters.
            losses: (T,) float64 on the CPU.
            seed: of whatever is random.
        """
        return torch.ones_like(losses)

    def look_back(self, losses: Tensor) -> None:
        """Learn from the losses (T,) of the last batch after the step."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers, for checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


class GramianWeighting(TaskWeighting):
    """Weights from the Gramian by a ``torchjd`` weighting; its random numbers come from the seed alone.

    The Gramian is divided by its trace before: these rules do not depend on the gradients' common scale, their
    safeguards against division by zero do.
    """

    def __init__(self, weighting: Callable[[Tensor], Tensor]):
        self.weighting = weighting

    def weights(self, gramian: Tensor, losses: Tensor, seed: int) -> Tensor:
        there = gramian.diagonal() > 0
        weights = there.to(gramian.dtype)
        if there.sum() > 1:
            some = gramian[there][:, there]
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                weights[there] = self.weighting(some / some.trace()).to(weights)
        return weights


class RandomLossWeighting(GramianWeighting):
    """RLW: softmax of standard normal numbers, anew in each step.

    Lin et al., *Reasonable Effectiveness of Random Weighting*, TMLR 2022.
    """

    scales_losses = True

    def weights(self, gramian: Tensor, losses: Tensor, seed: int) -> Tensor:
        return super().weights(torch.eye(len(losses), dtype=losses.dtype), losses, seed)


class NashMTL(TaskWeighting):
    """Nash-MTL: weights α > 0 with G α = 1 / α, found from the step before's; the step's norm is at most ``max_norm``.

    Navon et al., *Multi-Task Learning as a Bargaining Game*, ICML 2022.

    Args:
        bargain: ``torchjd.aggregation.NashMTL``. It takes gradients; a root of the Gramian has the same inner products.
    """

    def __init__(self, bargain: Any):
        self.bargain = bargain

    def weights(self, gramian: Tensor, losses: Tensor, seed: int) -> Tensor:
        there = gramian.diagonal() > 0
        if not there.all():  # the bargain is among all tasks: the others keep what they had
            alpha = torch.as_tensor(self.bargain.weighting.prvs_alpha, dtype=gramian.dtype) * there
            norm, most = float((alpha @ gramian @ alpha).sqrt()), self.bargain.max_norm
            return alpha * (most / max(norm, most))
        values, vectors = torch.linalg.eigh(gramian)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are solving a parameterized problem that is not DPP")
            return self.bargain.weighting(vectors * values.clamp(min=0).sqrt())

    def state_dict(self) -> dict[str, Any]:
        return {"alpha": torch.as_tensor(self.bargain.weighting.prvs_alpha)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.bargain.reset()
        self.bargain.weighting.prvs_alpha = state["alpha"].numpy()


class UncertaintyWeighting(TaskWeighting):
    """Uncertainty weighting: Σ e^(-s) L + s with a learned log variance s per task, which starts at 0.

    This is twice the paper's form for regression, so that it starts as the plain sum.
    Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses*, CVPR 2018.

    Args:
        tasks: how many.
        learning_rate: of the log variances' Adam.
    """

    scales_losses = True

    def __init__(self, tasks: int, *, learning_rate: float):
        self.log_variance = torch.zeros(tasks, dtype=torch.float64)
        self.optimizer = torch.optim.Adam([self.log_variance], learning_rate)

    def weights(self, gramian: Tensor, losses: Tensor, seed: int) -> Tensor:
        weights, before = (-self.log_variance).exp(), self.log_variance.clone()
        self.log_variance.grad = (1 - weights * losses) * (losses != 0)
        self.optimizer.step()
        self.log_variance.copy_(torch.where(losses != 0, self.log_variance, before))  # nor by Adam's momentum
        return weights

    def state_dict(self) -> dict[str, Any]:
        return {"log_variance": self.log_variance.clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.log_variance.copy_(state["log_variance"])
        self.optimizer.load_state_dict(state["optimizer"])


class DynamicWeightAverage(TaskWeighting):
    """DWA: w = T softmax(r / temperature) with r = L(t-1) / L(t-2), the losses' means over the last two periods.

    The weights are 1 until two periods are over. The paper's period is an epoch, here it is a number of steps.
    Liu, Johns and Davison, *End-to-End Multi-Task Learning with Attention*, CVPR 2019.

    Args:
        period: steps over which losses are averaged.
        temperature: a higher one makes the weights more alike.
    """

    scales_losses = True

    def __init__(self, *, period: float, temperature: float):
        self.period, self.temperature = period, temperature
        self.means: list[Tensor] = []
        self.running: list[Tensor] = []

    def weights(self, gramian: Tensor, losses: Tensor, seed: int) -> Tensor:
        weights = torch.ones_like(losses)
        if len(self.means) == 2:
            rates = self.means[1] / self.means[0].clamp(min=torch.finfo(losses.dtype).tiny)
            weights = len(losses) * torch.softmax(rates.nan_to_num(nan=1.0) / self.temperature, 0)
        self.running.append(torch.where(losses != 0, losses, float("nan")))
        if len(self.running) >= self.period:
            self.means = [*self.means, torch.stack(self.running).nanmean(0)][-2:]
            self.running = []
        return weights

    def state_dict(self) -> dict[str, Any]:
        return {"means": list(self.means), "running": list(self.running)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.means, self.running = list(state["means"]), list(state["running"])


class FAMO(TaskWeighting):
    """FAMO: w = c z / L with z = softmax(ξ) and Σ w = 1; ξ learns from how much each log L fell in the step.

    ξ ← Adam step on Jᵀ (log L before - log L after), J = ∂z/∂ξ: a task that fell less than the others gains weight.
    The losses after the step are those of the same batch, which costs one forward pass.
    Liu et al., *FAMO: Fast Adaptive Multitask Optimization*, NeurIPS 2023.

    Args:
        tasks: how many.
        learning_rate, weight_decay: of the logits' Adam.
    """

    scales_losses = True
    looks_back = True

    def __init__(self, tasks: int, *, learning_rate: float, weight_decay: float):
        self.logits = torch.zeros(tasks, dtype=torch.float64)
        self.optimizer = torch.optim.Adam([self.logits], learning_rate, weight_decay=weight_decay)
        self.before = torch.ones_like(self.logits)

    def weights(self, gramian: Tensor, losses: Tensor, seed: int) -> Tensor:
        if losses.min() < 0:
            raise InputError(f"aggregator famo takes logarithms of the losses: {losses.tolist()} are not all above 0")
        self.before = losses
        weights = torch.where(losses > 0, self._shares(losses) / losses, 0.0)
        return weights / weights.sum() if losses.any() else weights

    def look_back(self, losses: Tensor) -> None:
        there, before = self.before > 0, self.logits.clone()
        fallen = self.before.log() - losses.clamp(min=torch.finfo(losses.dtype).tiny).log()
        fallen = torch.where(there, fallen, 0.0)
        share = self._shares(self.before)
        self.logits.grad = share * (fallen - share @ fallen)
        self.optimizer.step()
        self.logits.copy_(torch.where(there, self.logits, before))

    def _shares(self, losses: Tensor) -> Tensor:
        """z among the tasks whose loss is above 0, 0 for the others."""
        if not losses.any():
            return torch.zeros_like(losses)
        return torch.softmax(torch.where(losses > 0, self.logits, -float("inf")), 0)

    def state_dict(self) -> dict[str, Any]:
        return {"logits": self.logits.clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.logits.copy_(state["logits"])
        self.optimizer.load_state_dict(state["optimizer"])


def _library(name: str, **options: Any) -> Any:
    from torchjd import aggregation

    return getattr(aggregation, name)(**options)


def _gramian(name: str) -> Callable[..., TaskWeighting]:
    return lambda tasks, **options: GramianWeighting(_library(name, **options))


@dataclass(frozen=True)
class Aggregator:
    """One method of :data:`AGGREGATORS`.

    Attributes:
        build: (number of tasks, options) → rule.
        options: numbers that can be set, with their defaults.
        packages: what it needs beyond synthmtl's own dependencies.
    """

    build: Callable[..., TaskWeighting]
    options: Mapping[str, float]
    packages: tuple[str, ...] = ()


AGGREGATORS = {
    "sum": Aggregator(lambda tasks: TaskWeighting(), {}),
    "uncertainty": Aggregator(UncertaintyWeighting, {"learning_rate": 0.01}),
    "dwa": Aggregator(lambda tasks, **o: DynamicWeightAverage(**o), {"period": 20, "temperature": 2.0}),
    "famo": Aggregator(FAMO, {"learning_rate": 0.025, "weight_decay": 0.001}),
    "rlw": Aggregator(lambda tasks: RandomLossWeighting(_library("RandomWeighting")), {}, ("torchjd",)),
    "pcgrad": Aggregator(_gramian("PCGradWeighting"), {}, ("torchjd",)),
    "cagrad": Aggregator(_gramian("CAGradWeighting"), {"c": 0.5}, ("torchjd", "cvxpy", "clarabel")),
    "mgda": Aggregator(_gramian("MGDAWeighting"), {}, ("torchjd",)),
    "imtl_g": Aggregator(_gramian("IMTLGWeighting"), {}, ("torchjd",)),
    "aligned_mtl": Aggregator(_gramian("AlignedMTLWeighting"), {}, ("torchjd",)),
    "upgrad": Aggregator(_gramian("UPGradWeighting"), {}, ("torchjd", "qpsolvers", "quadprog")),
    "nash_mtl": Aggregator(
        lambda tasks, **o: NashMTL(_library("NashMTL", n_tasks=tasks, **o)),
        {"max_norm": 1.0},
        ("torchjd", "cvxpy", "ecos"),
    ),
}
"""By name: the plain sum, weights on losses (uncertainty, dwa, famo, rlw), weights on the shared gradients (the rest):
PCGrad (Yu 2020), CAGrad (Liu 2021), MGDA (Sener and Koltun 2018), IMTL-G (Liu 2021), Aligned-MTL (Senushkin 2023),
UPGrad (Quinton and Rey 2024), Nash-MTL (Navon 2022)."""


def check_aggregator(name: str, options: Mapping[str, float] | None = None) -> None:
    """Stop at what :func:`build_weighting` could not build.

    Raises:
        InputError: if there is no such aggregator or option, or a package is missing.
    """
    if name not in AGGREGATORS:
        raise InputError(f"unknown aggregator {name!r}: use one of {', '.join(AGGREGATORS)}")
    known = AGGREGATORS[name].options
    for option, value in (options or {}).items():
        if option not in known:
            raise InputError(f"aggregator {name} has no option {option!r}: it takes {', '.join(known) or 'none'}")
        if not value >= 0 or (option != "weight_decay" and value == 0):
            raise InputError(f"aggregator {name}: {option} must be above 0, not {value}")
    missing = [package for package in AGGREGATORS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(f"aggregator {name} needs {', '.join(missing)}: {_INSTALL}")


def build_weighting(name: str, tasks: Sequence[str], options: Mapping[str, float] | None = None) -> TaskWeighting:
    """The rule called ``name`` for these tasks, at its start.

    Args:
        name: a key of :data:`AGGREGATORS`.
        tasks: their names.
        options: instead of the defaults in :data:`AGGREGATORS`.

    Raises:
        InputError: as :func:`check_aggregator`.
    """
    check_aggregator(name, options)
    method = AGGREGATORS[name]
    return method.build(len(tasks), **{**method.options, **(options or {})})
