"""One gradient per task instead of one of their sum: collected, averaged over processes, combined by an aggregator."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.exchange import process_mean
from synthmtl.training.aggregation import TaskWeighting, build_weighting

TASK = "task/"
"""An objective's results whose names start with this are its tasks' losses; they add up to its ``loss``."""


class TaskGradients:
    """Writes a player's gradients, task by task.

    Parameters that more than one task reaches are *shared*: their gradient is the aggregator's combination of the
    tasks' gradients. All others get the gradient of their only task, multiplied by its weight if the aggregator weighs
    losses. Gradients are averaged over processes before they are combined, so that several processes do what one would
    on the same global batch, and summed over micro-steps.

    Args:
        parameters: of the player.
        aggregator: a key of ``AGGREGATORS``.
        options: of the aggregator.
        accelerator: of the run.

    Attributes:
        names: of the tasks, known after the first batch; none for an objective that returns no task's loss.

    Raises:
        InputError: if the accelerator computes in fp16, whose scaled gradients cannot be compared between tasks.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        aggregator: str,
        options: Mapping[str, float] | None,
        accelerator: Accelerator,
    ):
        if accelerator.scaler is not None:
            raise InputError(f"aggregator {aggregator} does not work in precision fp16: choose bf16 or no")
        self.parameters, self.accelerator = list(parameters), accelerator
        self.aggregator, self.options = aggregator, options
        self.names: tuple[str, ...] = ()
        self.weighting: TaskWeighting | None = None
        self._rows: list[list[Tensor | None]] = []

    @property
    def looks_back(self) -> bool:
        """Whether :meth:`look_back` waits for the losses after the step."""
        return self.weighting is not None and self.weighting.looks_back

    def add(self, losses: Mapping[str, Tensor], micro_steps: int) -> None:
        """Gradients of a micro-step's results, of which there are ``micro_steps``.

        Raises:
            ValueError: if the tasks are not those of the batches before.
        """
        named = {name.removeprefix(TASK): value for name, value in losses.items() if name.startswith(TASK)}
        if not self.names:
            self._know(tuple(named))
        elif self.names != tuple(named):
            raise ValueError(f"the tasks were {', '.join(self.names)} and are now {', '.join(named) or 'none'}")
        values = list(named.values()) or [losses["loss"]]
        self._rows = self._rows or [[None] * len(self.parameters) for _ in values]
        for i, (row, value) in enumerate(zip(self._rows, values, strict=True)):
            if not value.requires_grad:
                continue
            found = torch.autograd.grad(
                value / micro_steps, self.parameters, retain_graph=i < len(values) - 1, allow_unused=True
            )
            for k, gradient in enumerate(found):
                if gradient is not None:
                    before = row[k]
                    row[k] = gradient if before is None else before + gradient

    def write(self, losses: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Combine what was added and leave it in the parameters' ``grad``.

        Args:
            losses: the objective's results, this process's means over the micro-steps.
            seed: of a random aggregator.

        Returns:
            The tasks' weights as ``weight/NAME``; none if there are less than two tasks.

        Raises:
            ValueError: if the tasks' losses do not add up to ``loss``.
        """
        values = self._values(losses)
        if not torch.allclose(values.sum(), losses["loss"], rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(f"the tasks' losses add up to {values.sum():g}, but the loss is {losses['loss']:g}")
        rows, self._rows = self._rows, []
        reached = self._mean(torch.tensor([[g is not None for g in row] for row in rows]).float()).cpu() > 0
        tasks = reached.sum(0).tolist()
        shared = [k for k, count in enumerate(tasks) if count > 1]
        single = [(k, int(reached[:, k].long().argmax())) for k, count in enumerate(tasks) if count == 1]

        parts = [self._flat(row, k) for row in rows for k in shared] + [self._flat(rows[i], k) for k, i in single]
        numbers = self._mean(torch.cat([*parts, values]))
        together, alone = ([self.parameters[k].numel() for k in some] for some in (shared, [k for k, _ in single]))
        matrix, rest, values = numbers.split([len(rows) * sum(together), sum(alone), len(rows)])
        matrix = matrix.view(len(rows), -1)
        weights = self._weights(matrix, values, seed)
        for k, part in zip(shared, (weights.to(matrix) @ matrix).split(together), strict=True):
            self._put(k, part)
        scales = weights if self.weighting is not None and self.weighting.scales_losses else torch.ones_like(weights)
        for (k, i), part in zip(single, rest.split(alone), strict=True):
            self._put(k, part * float(scales[i]))
        if self.weighting is None:
            return {}
        return {f"weight/{name}": weight for name, weight in zip(self.names, weights.to(values), strict=True)}

    def look_back(self, losses: Mapping[str, Tensor]) -> None:
        """Tell the aggregator the objective's results after the step, this process's means over the micro-steps."""
        assert self.weighting is not None  # it looks back
        self.weighting.look_back(self._same(self._mean(self._values(losses))))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for checkpoints."""
        return {"tasks": list(self.names), "state": {} if self.weighting is None else self.weighting.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._know(tuple(state["tasks"]))
        if self.weighting is not None:
            self.weighting.load_state_dict(state["state"])

    def _know(self, tasks: tuple[str, ...]) -> None:
        self.names = tasks
        if len(tasks) > 1:
            self.weighting = build_weighting(self.aggregator, tasks, self.options)

    def _values(self, losses: Mapping[str, Tensor]) -> Tensor:
        names = [TASK + name for name in self.names] or ["loss"]
        return torch.stack([losses[name].float() for name in names])

    def _weights(self, matrix: Tensor, losses: Tensor, seed: int) -> Tensor:
        """Weights (T,) float64; 1 where there is nothing to weigh, or nothing finite: the loop then stops the run."""
        plain = torch.ones(len(losses), dtype=torch.float64)
        if self.weighting is None:
            return plain
        gramian, losses = self._same(matrix @ matrix.T), self._same(losses)
        gramian = (gramian + gramian.T) / 2
        nothing = not self.weighting.scales_losses and gramian.trace() == 0
        if nothing or not (gramian.isfinite().all() and losses.isfinite().all()):
            return plain
        return self.weighting.weights(gramian, losses, seed)

    def _flat(self, row: Sequence[Tensor | None], k: int) -> Tensor:
        parameter, gradient = self.parameters[k], row[k]
        return parameter.new_zeros(parameter.numel()) if gradient is None else gradient.reshape(-1)

    def _put(self, k: int, flat: Tensor) -> None:
        # In the parameter's memory format: fused optimizers read both in the order of memory.
        parameter = self.parameters[k]
        parameter.grad = torch.empty_like(parameter).copy_(flat.view(parameter.shape))

    def _mean(self, tensor: Tensor) -> Tensor:
        return process_mean(tensor.to(self.accelerator.device))

    def _same(self, tensor: Tensor) -> Tensor:
        """The main process's numbers in all processes, on the CPU: a rounding error must not part their weights."""
        return broadcast(tensor.contiguous()).cpu().double()
