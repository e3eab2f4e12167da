"""Branches for any number of tasks, with a sharing unit after every stage that they do not have in common."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.blocks import Stage, Stem
from synthmtl.models.cross_process import CrossProcessBatchNorm2d
from synthmtl.sharing import NoSharing, ProjectedExchange, SharingUnit, build_sharing, sharing_class
from synthmtl.sharing.gates import PairwiseSharing


class MultiTaskTrunk(nn.Module):
    """A stem and some stages in common, then a branch of stages for each task, which share through units.

    (B, C, H, W) → after the stem (B, stem, H/2, W/2), after stage i (B, stages[i], H/2^(i+2), ...). A single-trunk unit
    builds one branch, whose features serve all tasks. With ``sharing="none"`` nothing but the stem and the first
    ``shared_stages`` stages is common; a true single-task control is a network trained with one task. One task has no
    unit, whatever the unit's name.

    Args:
        tasks: T, how many.
        image_channels: C.
        stem_channels, stage_channels: widths.
        shared_stages: how many of the stages are common, from 0 to all of them.
        sharing: name of the sharing unit; ``sharing_options`` go to it, but for ``stages``: after which of the stages
            that are not common the tasks meet, counted from 0, e.g. ``[2]``; after all of them by default.
        one_unit: the same unit, as wide as the widest stage that has one, after every stage, with 1×1 projections where
            the widths differ; else each stage has its own.
        norm: normalization (``blocks.normalization``) of everything, or of each task's branch; then what is common has
            the first task's.
        stem_kind, pool_first: as in :class:`Stem` and :class:`Stage`.

    Raises:
        InputError: if there are not as many stages as are shared, or the sharing unit or its options do not suit.
    """

    def __init__(
        self,
        *,
        tasks: int,
        image_channels: int,
        stem_channels: int,
        stage_channels: Sequence[int],
        shared_stages: int = 0,
        sharing: str = "hard",
        sharing_options: dict | None = None,
        one_unit: bool = False,
        norm: str | Sequence[str] = "batch",
        stem_kind: str = "pool",
        pool_first: bool = False,
    ):
        super().__init__()
        if not 0 <= shared_stages <= len(stage_channels):
            raise InputError(f"shared_stages is {shared_stages}: use 0 to {len(stage_channels)}, the number of stages")
        self.tasks = tasks
        self.single_trunk = sharing_class(sharing).single_trunk or tasks == 1
        self.joined = sharing != "none" and tasks > 1
        norms = [norm] * tasks if isinstance(norm, str) else list(norm)
        widths = list(pairwise((stem_channels, *stage_channels)))
        self.stem = Stem(image_channels, stem_channels, norms[0], stem_kind)
        self.shared = nn.ModuleList(Stage(*width, norms[0], pool_first) for width in widths[:shared_stages])
        self.branches = nn.ModuleList(
            nn.ModuleList(Stage(*width, own, pool_first) for width in widths[shared_stages:])
            for own in (norms[:1] if self.single_trunk else norms)
        )
        meetings = [width for _, width in widths[shared_stages:]] if tasks > 1 else []
        apart = self.single_trunk or not self.joined
        one_unit = one_unit and not apart and bool(meetings)
        unit_widths = [max(meetings)] if one_unit else meetings
        options = dict(sharing_options or {})
        if not apart and (chosen := options.pop("stages", None)) is not None:
            check_stages(chosen, len(meetings), one_unit)
        else:
            chosen = range(len(meetings))
        units: list[SharingUnit] = [
            build_sharing(sharing, width, tasks, options) if i in chosen else NoSharing(width, tasks)
            for i, width in enumerate(unit_widths)
        ]
        self.units = nn.ModuleList(units)
        self.projections = nn.ModuleList(
            ProjectedExchange(width, unit_widths[0] if one_unit else width, tasks) for width in meetings
        )
        if one_unit:
            units[0].stages = len(meetings)
        normalize_across_processes(self.units)

    def walk(self, images: Tensor) -> tuple[list[list[Tensor]], Tensor | None]:
        """The T tasks' features after the stem and after each stage, and what the units add to the loss, or None."""
        x = self.stem(images)
        levels = [[x] * self.tasks]
        for stage in self.shared:
            x = stage(x)
            levels.append([x] * self.tasks)
        penalties = []
        for i, stages in enumerate(zip(*(branch.children() for branch in self.branches), strict=True)):
            features = levels[-1]
            if self.single_trunk:
                features = [stages[0](features[0])] * self.tasks
            else:
                features = [stage(x) for stage, x in zip(stages, features, strict=True)]
            if self.units:
                unit = self.units[min(i, len(self.units) - 1)]
                features = self.projections[i](features, unit)
                if (penalty := unit.penalty()) is not None:  # type: ignore[operator]
                    penalties.append(penalty)
            levels.append(features)
        return levels, sum(penalties) if penalties else None

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The T tasks' features (B, C, h, w), and what the units add to the loss, a scalar, or None."""
        levels, penalty = self.walk(images)
        return levels[-1], penalty

    def parameters_of(self, *tasks: int) -> list[nn.Parameter]:
        """The parameters that the features of ``tasks`` depend on, each once."""
        needed, found = set(tasks), [*self.stem.parameters(), *self.shared.parameters()]
        for i in reversed(range(len(self.branches[0]))):  # type: ignore[arg-type]
            if self.units:
                unit: SharingUnit = self.units[min(i, len(self.units) - 1)]  # type: ignore[assignment]
                projection: ProjectedExchange = self.projections[i]  # type: ignore[assignment]
                wanted = needed
                needed, passed = exchanged_for(unit, wanted)
                found += passed
                for layers, read in ((projection.to_unit, needed), (projection.to_stage, wanted)):
                    for task in read if layers else ():
                        found += layers[task].parameters()
            for branch in {0} if self.single_trunk else needed:
                found += self.branches[branch][i].parameters()  # type: ignore[index]
        return list(dict.fromkeys(found))  # one unit for all stages is met in each


def exchanged_for(unit: SharingUnit, wanted: set[int]) -> tuple[set[int], list[nn.Parameter]]:
    """What the ``wanted`` tasks' features after an exchange depend on.

    Returns:
        The tasks whose features in front of it they depend on, and the unit's parameters. Of a unit that is no exchange
        by pairs those are all tasks, and all parameters but the other tasks' in its lists whose names end in
        ``per_task``.
    """
    if isinstance(unit, NoSharing):
        return wanted, []
    if isinstance(unit, PairwiseSharing):
        ways = [(donor, unit.key(receiver, donor)) for receiver in wanted for donor in range(unit.tasks)]
        # A pair whose z is 0 hands its receiver on as it is.
        ways = [(donor, key) for donor, key in ways if key in unit.units and unit.units[key].forced_take != 0]
        return wanted | {donor for donor, _ in ways}, [p for _, key in ways for p in unit.units[key].parameters()]
    lists = [part for name, part in unit.named_children() if name.endswith("per_task")]
    others = {
        p for part in lists for task, own in enumerate(part.children()) if task not in wanted for p in own.parameters()
    }
    return set(range(unit.tasks)), [p for p in unit.parameters() if p not in others]


def check_stages(chosen: Any, count: int, one_unit: bool) -> None:
    """Stop at ``stages`` that are none of the ``count`` that there are, or that one unit for all would have to skip.

    Raises:
        InputError: naming what it takes.
    """
    if one_unit:
        raise InputError("sharing_options: stages cannot be chosen with one_unit, which serves all of them")
    stages = chosen if isinstance(chosen, list | tuple) else []
    if not stages or any(type(stage) is not int or not 0 <= stage < count for stage in stages):
        raise InputError(f"sharing_options: stages is {chosen}, name stages from 0 to {count - 1}, or null for all")


def normalize_across_processes(module: nn.Module) -> None:
    """Make every ``nn.BatchNorm2d`` in ``module`` one over all processes, keeping parameters and statistics."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            layer = CrossProcessBatchNorm2d(child.num_features, child.eps, child.momentum)
            layer.weight, layer.bias = child.weight, child.bias
            for buffer, value in child.named_buffers():
                setattr(layer, buffer, value)
            setattr(module, name, layer)
        else:
            normalize_across_processes(child)
