"""The balancing of this package behind imbalanced-learn's interface."""

from pathlib import Path

import torch
from torch import nn

from synthmtl.balance.filter import JudgeCalibration
from synthmtl.balance.plan import make_plan
from synthmtl.balance.strategy import Strategy
from synthmtl.balance.synthesize import BalancingResult, synthesize_balancing_set
from synthmtl.data.table import FaceTable
from synthmtl.models.generators import FaceGenerator


class SynthesisBalancer:
    """Over-samples rare expressions by synthesis: ``fit_resample(table)``, as imbalanced-learn's samplers do.

    Args:
        generator, judge, calibration, device, directory: as for
            :func:`~synthmtl.balance.synthesize.synthesize_balancing_set`.
        sampling_strategy: as for :func:`~synthmtl.balance.strategy.resolve_strategy`.
        random_state: seed of everything drawn.
        options: further keyword arguments of ``synthesize_balancing_set``.

    Attributes:
        sampling_strategy_: {class: faces to add}, of classes that need some; after fitting.
        result_: the :class:`BalancingResult`, with provenance and what was rejected; after resampling.
    """

    def __init__(
        self,
        *,
        generator: FaceGenerator,
        judge: nn.Module,
        calibration: JudgeCalibration,
        sampling_strategy: Strategy = "auto",
        random_state: int = 0,
        device: torch.device | str = "cpu",
        directory: str | Path | None = None,
        **options,
    ):
        self.generator, self.judge, self.calibration = generator, judge, calibration
        self.sampling_strategy, self.random_state = sampling_strategy, random_state
        self.device, self.directory, self.options = device, directory, options
        self.sampling_strategy_: dict[str, int] | None = None
        self.result_: BalancingResult | None = None

    def fit_resample(self, table: FaceTable) -> FaceTable:
        """All faces of ``table``, first and untouched, then the synthesized ones.

        Raises:
            InputError: as ``synthesize_balancing_set``.
        """
        options = dict(self.options)
        plan = make_plan(
            table,
            self.sampling_strategy,
            seed=self.random_state,
            sources=options.pop("sources", "any"),
            candidates=(options.get("max_attempts", 3) + 1) // 2,
        )
        self.sampling_strategy_ = {name: count for name, count in plan.requested.items() if count}
        self.result_ = synthesize_balancing_set(
            self.generator,
            self.judge,
            table,
            plan,
            calibration=self.calibration,
            device=self.device,
            directory=self.directory,
            **options,
        )
        return FaceTable.concatenate([table, self.result_.table])
