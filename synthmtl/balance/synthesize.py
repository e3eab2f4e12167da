"""From a plan to a filtered set of synthesized faces, in chunks that survive a kill and are shared among processes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from synthmtl.balance.chunks import Chunk, ChunkStore, tensor_hash, weights_hash
from synthmtl.balance.filter import REASONS, FaceFilter, JudgeCalibration, evaluating, to_unit
from synthmtl.balance.plan import BalancePlan, make_plan
from synthmtl.balance.strategy import Strategy
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.models.generators import FaceGenerator, class_targets, sampling_arguments
from synthmtl.models.sampling import SamplingOptions

logger = logging.getLogger("synthmtl")

FILLS = ("best", "leave")
"""What happens to a wanted face whose candidates were all rejected: its best-agreeing one is taken, or none is."""


@dataclass
class BalancingResult:
    """A balancing set and how it came about.

    Attributes:
        table: the synthesized faces. Each has the wanted expression, its source's subject, session and domain,
            ``synthetic`` = True, the attribute ``agreement`` and, as ``files``, its name in a written set. It has no
            further labels, since the edit changed them.
        records: of each face: ``source_file``, ``source_row``, ``source_expression``, ``seed``, ``attempt`` (from 0),
            ``generator``, ``agreement``, ``below_threshold``.
        plan: what was wanted.
        kept: faces in the table per class; ``requested`` minus ``kept`` is missing.
        below_threshold: of these, faces that the judge rejected and that fill the set up (``fill="best"``).
        rejected: {class: {reason: candidates}}, over all attempts.
        identity: hashes and settings that the set depends on.
        calibration: of the judge.
    """

    table: FaceTable
    records: list[dict]
    plan: BalancePlan
    kept: dict[str, int]
    below_threshold: dict[str, int]
    rejected: dict[str, dict[str, int]]
    identity: dict
    calibration: JudgeCalibration

    @property
    def requested(self) -> dict[str, int]:
        """Faces to add per class."""
        return self.plan.requested

    @property
    def missing(self) -> dict[str, int]:
        """Faces that could not be made, per class."""
        return {name: count - self.kept[name] for name, count in self.requested.items()}

    def summary(self) -> dict:
        """The ``balance`` of ``report.json``; ``rejected`` counts candidates, of which a wanted face has several."""
        return {
            "strategy": self.plan.strategy,
            "requested": self.requested,
            "kept": self.kept,
            "below_threshold": self.below_threshold,
            "missing": self.missing,
            "rejected": {name: sum(reasons.values()) for name, reasons in self.rejected.items()},
            "rejected_by_reason": self.rejected,
        }


def edit_faces(
    generator: FaceGenerator,
    sources: Tensor,
    target: Tensor,
    seeds: list[int],
    *,
    spread: float = 1.0,
    sampling: SamplingOptions | None = None,
) -> tuple[Tensor, Tensor]:
    """Edit each face by what its own seed draws.

    ``generator.synthesize(source, target, generator=torch.Generator().manual_seed(seed))`` gives the same face up to
    the rounding of other batch sizes.

    Args:
        sources: (B, C, H, W) uint8.
        target: (B,) int64.
        seeds: B seeds, of style or noise.
        spread: as in :meth:`FERSNet.synthesize` or :meth:`DiffusionFERSNet.synthesize`.
        sampling: of a diffusion model; None = its defaults.

    Returns:
        (B, C, H, W) uint8 on the CPU, and (B,) bool: all pixels were finite.

    Raises:
        InputError: as :func:`~synthmtl.models.generators.sampling_arguments`.
    """
    options = sampling_arguments(generator, sampling)
    device = next(generator.parameters()).device
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    target = class_targets(generator, target).to(device)
    with evaluating(generator):
        edited = generator.synthesize(to_unit(sources, device), target, generator=draws, spread=spread, **options)
    edited = edited.float()
    finite = edited.isfinite().flatten(1).all(1).cpu()
    pixels = edited.nan_to_num().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return pixels.cpu(), finite


def synthesize_balancing_set(
    generator: FaceGenerator,
    judge: nn.Module,
    table: FaceTable,
    plan: BalancePlan | Strategy = "auto",
    *,
    calibration: JudgeCalibration,
    max_attempts: int = 3,
    fill: str = "best",
    sources: str = "any",
    seed: int = 0,
    spread: float = 1.0,
    sampling: SamplingOptions | None = None,
    min_change: float = 0.002,
    min_distance: float = 0.004,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    directory: str | Path | None = None,
    rank: int = 0,
    world: int = 1,
    on_chunk: Callable[[int, int], None] | None = None,
) -> BalancingResult:
    """Synthesize what a table lacks, and keep what the judge agrees with.

    A rejected face is tried again by a new seed, then from a new source. If all attempts fail, ``fill`` decides.
    ``best`` takes the candidate with the highest agreement relative to its class's threshold, marks it
    ``below_threshold`` and counts it: the classes come out exactly as wanted, and the filter works as a best-of-n
    choice. ``leave`` leaves it out. Broken, unchanged and copied faces are never taken, so that ``missing`` can be
    above 0 either way.

    Work is done in chunks of ``batch_size`` wanted faces. A chunk depends on the arguments and its number only. With
    a ``directory`` each finished chunk is written at once, and a restart makes the missing ones only: the set is the
    same to the bit as without interruption (same device and thread count). Each of ``world`` processes makes chunks
    ``rank::world`` first and then whatever is still missing, so that none waits for another, all return the whole
    set, and any may be killed and restarted, or not.

    Args:
        generator: the trained network; its classes are the table's.
        judge: recognizer that did not train with the generator.
        table: the training faces, real ones to edit among them.
        plan: a plan for this table, or a strategy from which ``sources`` and ``seed`` make one.
        calibration: of the judge, from :func:`~synthmtl.balance.filter.calibrate_judge`.
        max_attempts: candidates of each wanted face, at most.
        fill: ``best`` or ``leave``.
        sources, seed: as for :func:`~synthmtl.balance.plan.make_plan`.
        spread: of the styles, in standard deviations of the class's prior, or of a diffusion model's noise.
        sampling: of a diffusion model; None = its defaults.
        min_change, min_distance: as for :class:`~synthmtl.balance.filter.FaceFilter`.
        batch_size: wanted faces of a chunk.
        device: where networks run.
        directory: where chunks are kept; None keeps them in memory, for one process only.
        rank, world: this process and how many share the directory.
        on_chunk: called with the chunks finished so far and their number.

    Raises:
        InputError: if classes, sizes or channels differ, the judge is the generator, an option is out of range or not
            for this generator, or the directory holds chunks of another job.
    """
    _check_parts(generator, judge, table)
    options = sampling_arguments(generator, sampling)
    if fill not in FILLS:
        raise InputError(f"unknown fill {fill!r}: use one of {', '.join(FILLS)}")
    if max_attempts < 1 or batch_size < 1:
        raise InputError(f"max_attempts and batch_size must be at least 1, not {max_attempts} and {batch_size}")
    if not 0 <= rank < world or (world > 1 and directory is None):
        raise InputError(f"process {rank} of {world}: ranks count from 0, and several processes need a directory")
    if not isinstance(plan, BalancePlan):
        plan = make_plan(table, plan, seed=seed, sources=sources, candidates=(max_attempts + 1) // 2)
    _check_plan(plan, table)
    generator.to(device)
    identity = {
        "plan": plan.fingerprint(),
        "generator": weights_hash(generator),
        "judge": weights_hash(judge),
        "thresholds": tensor_hash(calibration.thresholds),
        "faces": tensor_hash(table.images, table.expression),
        "settings": {
            "max_attempts": max_attempts, "spread": spread, "min_change": min_change, "min_distance": min_distance,
            "batch_size": batch_size,
        } | ({"sampling": options} if options else {}),
    }  # fmt: skip
    judging = FaceFilter(
        judge, calibration, table.images, table.classes, min_change=min_change, min_distance=min_distance, device=device
    )
    store = ChunkStore(directory, identity, rank=rank) if directory is not None else None
    parts = torch.arange(len(plan)).split(batch_size) if len(plan) else ()
    chunks: dict[int, Chunk] = {}
    for number in _turns(len(parts), rank, world):
        chunk = store.load(number) if store else None
        if chunk is None:
            chunk = _make_chunk(generator, judging, table, plan, parts[number], max_attempts, spread, sampling)
            if store:
                store.save(number, chunk)
        chunks[number] = chunk
        if on_chunk is not None:
            on_chunk(len(chunks), len(parts))
    return _gather([chunks[number] for number in range(len(parts))], table, plan, fill, identity, calibration)


def _turns(count: int, rank: int, world: int) -> list[int]:
    """Own chunks first; then the others', from the end, where their owners come last."""
    own = range(rank, count, world)
    return [*own, *(n for n in reversed(range(count)) if n not in own)]


def _make_chunk(
    generator: FaceGenerator,
    judging: FaceFilter,
    table: FaceTable,
    plan: BalancePlan,
    faces: Tensor,
    max_attempts: int,
    spread: float,
    sampling: SamplingOptions | None,
) -> Chunk:
    n = len(faces)
    target = plan.target[faces]
    chunk = Chunk(
        images=torch.zeros((n, *table.images.shape[1:]), dtype=torch.uint8),
        reason=torch.full((n,), REASONS.index("broken")),
        agreement=torch.zeros(n),
        source=torch.full((n,), -1),
        seed=torch.full((n,), -1),
        attempt=torch.full((n,), -1),
        rejected=torch.zeros(len(table.classes), len(REASONS), dtype=torch.int64),
    )
    best = torch.full((n,), float("-inf"))
    pending = torch.arange(n)
    for attempt in range(max_attempts):
        rows, seeds = plan.candidate(faces[pending], attempt)
        sources, wanted = table.images[rows], target[pending]
        images, finite = edit_faces(generator, sources, wanted, seeds, spread=spread, sampling=sampling)
        verdict = judging(images, sources, wanted, finite=finite)
        kept = verdict.reason < 0
        chunk.rejected.index_put_(
            (wanted[~kept], verdict.reason[~kept]), torch.ones((), dtype=torch.int64), accumulate=True
        )
        rank = torch.where(verdict.reason == REASONS.index("disagreement"), verdict.margin, float("-inf"))
        rank[kept] = float("inf")
        better = rank > best[pending]
        here = pending[better]
        best[here] = rank[better]
        chunk.images[here], chunk.reason[here] = images[better], verdict.reason[better]
        chunk.agreement[here], chunk.source[here] = verdict.agreement[better], rows[better]
        chunk.seed[here], chunk.attempt[here] = torch.tensor(seeds)[better], attempt
        pending = pending[~kept]
        if not len(pending):
            break
    return chunk


def _gather(
    chunks: list[Chunk],
    table: FaceTable,
    plan: BalancePlan,
    fill: str,
    identity: dict,
    calibration: JudgeCalibration,
) -> BalancingResult:
    empty = table.images[:0], *(torch.empty(0, dtype=torch.int64) for _ in range(5))

    def column(name: str, default: Tensor) -> Tensor:
        return torch.cat([getattr(chunk, name) for chunk in chunks]) if chunks else default

    names = ("images", "reason", "agreement", "source", "seed", "attempt")
    images, reason, agreement, source, seed, attempt = map(column, names, empty)
    below = reason == REASONS.index("disagreement")
    usable = (reason < 0) | (below if fill == "best" else torch.zeros_like(below))
    taken = torch.where(usable)[0]
    rejected = sum(
        (chunk.rejected for chunk in chunks), torch.zeros(len(plan.classes), len(REASONS), dtype=torch.int64)
    )
    target, source = plan.target[taken], source[taken]
    records = [
        {
            "source_file": table.files[row] or None,
            "source_row": row,
            "source_expression": table.classes[table.expression[row]],
            "seed": int(seed[i]),
            "attempt": int(attempt[i]),
            "generator": identity["generator"],
            "agreement": round(float(agreement[i]), 6),
            "below_threshold": bool(below[i]),
        }
        for i, row in zip(taken.tolist(), source.tolist(), strict=True)
    ]
    made = FaceTable(
        images=images[taken],
        classes=plan.classes,
        expression=target,
        subject=table.subject[source],
        session=table.session[source],
        domain=table.domain[source],
        synthetic=torch.ones(len(taken), dtype=torch.bool),
        attributes={"agreement": agreement[taken].float()},
        files=[f"train/{plan.classes[t]}/synthesized-{i:06d}.png" for i, t in zip(taken.tolist(), target, strict=True)],
    )
    by_class = [torch.bincount(t, minlength=len(plan.classes)).tolist() for t in (target, target[below[taken]])]
    kept, filled = (dict(zip(plan.classes, counts, strict=True)) for counts in by_class)
    result = BalancingResult(
        table=made,
        records=records,
        plan=plan,
        kept=kept,
        below_threshold=filled,
        rejected={
            name: dict(zip(REASONS, row, strict=True))
            for name, row in zip(plan.classes, rejected.tolist(), strict=True)
            if plan.requested[name]
        },
        identity=identity,
        calibration=calibration,
    )
    for name, count in result.missing.items():
        if count or filled[name]:
            logger.warning(
                "%s: of %d wanted faces %d are missing and %d lie below the judge's threshold",
                name, plan.requested[name], count, filled[name],
            )  # fmt: skip
    return result


def _check_parts(generator: FaceGenerator, judge: nn.Module, table: FaceTable) -> None:
    if judge is generator:
        raise InputError("the judge is the generator itself: give a recognizer that did not train with it")
    if generator.classes != table.classes:
        raise InputError(
            f"the generator knows {', '.join(generator.classes)}, the data {', '.join(table.classes)}: "
            "bring the table to the generator's classes"
        )
    for name, wanted, found in (
        ("pixels a side", generator.config.image_size, table.image_size),
        ("channels", generator.config.image_channels, table.channels),
    ):
        if wanted != found:
            raise InputError(f"the generator wants faces of {wanted} {name}, the data have {found}: read them so")


def _check_plan(plan: BalancePlan, table: FaceTable) -> None:
    if plan.classes != table.classes or plan.counts != table.counts():
        raise InputError("the plan was made for other faces: make one for this table")
