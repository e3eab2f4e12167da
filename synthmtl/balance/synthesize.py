"""From a plan to a filtered set of synthesized faces, in chunks that survive a kill and are shared among processes."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthmtl.balance.attempts import Draft
from synthmtl.balance.calibration import JudgeCalibration
from synthmtl.balance.chunks import Chunk, ChunkStore, tensor_hash, weights_hash
from synthmtl.balance.filter import FaceFilter, Verdict, no_filter
from synthmtl.balance.plan import BalancePlan, make_plan
from synthmtl.balance.result import FILLS, BalancingResult, Origin, gather
from synthmtl.balance.strategy import Strategy
from synthmtl.balance.targets import ClassTargets
from synthmtl.data.duplicates import MIN_CORRELATION, MIN_MATCH
from synthmtl.data.pixels import to_pixels, to_unit
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.models.blocks import evaluating
from synthmtl.models.generators import FaceGenerator, class_targets, makes_new_faces, sampling_arguments
from synthmtl.models.sampling import SamplingOptions
from synthmtl.progress import shown

logger = logging.getLogger("synthmtl")

_AHEAD = 4  # chunks under way at once: one is made while others are judged, or wait for their next attempt


def edit_faces(
    generator: FaceGenerator,
    sources: Tensor | None,
    target: Tensor,
    seeds: list[int],
    *,
    spread: float = 1.0,
    sampling: SamplingOptions | None = None,
) -> tuple[Tensor, Tensor]:
    """Edit each face, or make a new one, by what its own seed draws.

    ``generator.synthesize(source, target, generator=torch.Generator().manual_seed(seed))`` gives the same face up to
    the rounding of other batch sizes.

    Args:
        sources: (B, C, H, W) uint8; None = B new faces, by a diffusion model.
        target: (B,) int64 classes, or (B, 22) or (B, 2) as the generator is conditioned. A class stands for what
            :func:`~synthmtl.models.generators.class_targets` takes it for.
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
    target = (class_targets(generator, target) if target.ndim == 1 else target).to(device)
    with evaluating(generator), torch.no_grad():
        faces: Any = None if sources is None else to_unit(sources, device)
        edited = generator.synthesize(faces, target, generator=draws, spread=spread, **options)
    edited = edited.float()
    finite = edited.isfinite().flatten(1).all(1).cpu()
    pixels = to_pixels(edited.nan_to_num())
    return pixels.cpu(), finite


def synthesize_balancing_set(
    generator: FaceGenerator,
    judge: nn.Module | None,
    table: FaceTable,
    plan: BalancePlan | Strategy = "auto",
    *,
    targets: ClassTargets | None = None,
    calibration: JudgeCalibration | None = None,
    filter: bool = True,
    max_attempts: int = 3,
    fill: str = "best",
    sources: str = "any",
    max_uses: int | None = None,
    match: Sequence[str] = (),
    seed: int = 0,
    spread: float = 1.0,
    sampling: SamplingOptions | None = None,
    min_change: float = 0.002,
    min_distance: float = 0.004,
    max_correlation: float = MIN_CORRELATION,
    max_match: float = MIN_MATCH,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    directory: str | Path | None = None,
    rank: int = 0,
    world: int = 1,
    on_chunk: Callable[[int, int], None] | None = None,
    on_faces: Callable[[FaceTable, list[dict]], None] | None = None,
) -> BalancingResult:
    """Synthesize what a table lacks, and keep what the judge agrees with.

    A rejected face is tried again by a new seed, then from a new source. If all attempts fail, ``fill`` decides.
    ``best`` takes the candidate with the highest agreement relative to its class's threshold, marks it
    ``below_threshold`` and counts it: the classes come out exactly as wanted, and the filter works as a best-of-n
    choice. ``leave`` leaves it out. Broken, unchanged and copied faces are never taken, so that ``missing`` can be
    above 0 either way; ``shortfalls`` of the result then says why.

    Work is done in chunks of ``batch_size`` wanted faces. A chunk depends on the arguments and its number only. With
    a ``directory`` each finished chunk is written at once, and a restart makes the missing ones only: the set is the
    same to the bit as without interruption (same device and thread count). Each of ``world`` processes makes chunks
    ``rank::world`` first and then whatever is still missing, so that none waits for another, all return the whole
    set, and any may be killed and restarted, or not.

    Args:
        generator: the trained network; its classes are the table's.
        judge: recognizer that did not train with the generator, and knows the expressions that the plan asks for; None
            without ``filter``.
        table: the training faces, real ones to edit among them.
        plan: a plan for this table, or a strategy from which ``sources``, ``max_uses``, ``match`` and ``seed`` make
            one.
        targets: what the generator is told of a face that is wanted; None = the class, or mixtures of what the table's
            labels say of its faces.
        calibration: of the judge, from :func:`~synthmtl.balance.calibration.calibrate_judge`; None without ``filter``.
        filter: False takes the first candidate of every face whose pixels are numbers, for studies of the filter.
        max_attempts: candidates of each wanted face, at most: the cap on rejections.
        fill: ``best`` or ``leave``.
        sources, max_uses, match, seed: as for :func:`~synthmtl.balance.plan.make_plan`.
        spread: of the styles, in standard deviations of the class's prior, or of a diffusion model's noise.
        sampling: of a diffusion model; None = its defaults.
        min_change, min_distance, max_correlation, max_match: as for :class:`~synthmtl.balance.filter.FaceFilter`.
        batch_size: wanted faces of a chunk.
        device: where networks run.
        directory: where chunks are kept; None keeps them in memory, for one process only.
        rank, world: this process and how many share the directory.
        on_chunk: called with the chunks finished so far and their number.
        on_faces: called, by another thread, with the faces and records of each finished chunk, e.g. to write them
            while the next ones are made; see :class:`BalancingResult`.

    Raises:
        InputError: if classes, sizes or channels differ, the judge is the generator or missing, an option is out of
            range or not for this generator, or the directory holds chunks of another job.
    """
    check_parts(generator, judge, table)
    options = sampling_arguments(generator, sampling)
    if not filter:
        judge = calibration = None
    elif judge is None or calibration is None:
        raise InputError("the filter needs a judge and its calibration: give both, or turn the filter off")
    if fill not in FILLS:
        raise InputError(f"unknown fill {fill!r}: use one of {', '.join(FILLS)}")
    if max_attempts < 1 or batch_size < 1:
        raise InputError(f"max_attempts and batch_size must be at least 1, not {max_attempts} and {batch_size}")
    if not 0 <= rank < world or (world > 1 and directory is None):
        raise InputError(f"process {rank} of {world}: ranks count from 0, and several processes need a directory")
    if not isinstance(plan, BalancePlan):
        plan = make_plan(
            table, plan, seed=seed, sources=sources, candidates=(max_attempts + 1) // 2, max_uses=max_uses, match=match
        )
    check_plan(plan, table, generator, sampling)
    generator.to(device)
    targets = targets or ClassTargets(generator, table)
    limits = {
        "min_change": min_change,
        "min_distance": min_distance,
        "max_correlation": max_correlation,
        "max_match": max_match,
    }
    identity = {
        "plan": plan.fingerprint(),
        "generator": weights_hash(generator),
        "judge": None if judge is None else weights_hash(judge),
        "thresholds": None if calibration is None else tensor_hash(calibration.thresholds),
        "faces": tensor_hash(table.images, table.expression, table.subject),
        "settings": {"max_attempts": max_attempts, "spread": spread, "batch_size": batch_size}
        | (limits if filter else {"filter": False})
        | ({"sampling": options} if options else {}),
    }
    if targets.identity():
        identity["targets"] = targets.identity()
    judging: Callable[..., Verdict] = no_filter
    if judge is not None and calibration is not None:
        judging = FaceFilter(
            judge,
            calibration,
            table.images,
            table.classes,
            wanted=[name for name, count in plan.requested.items() if count],
            subject=table.subject,
            device=device,
            **limits,
        )
    store = ChunkStore(directory, identity, rank=rank) if directory is not None else None
    origin = Origin(table, plan, fill, identity, batch_size, targets)
    work = _Work(generator, judging, origin, store, max_attempts, spread, sampling, on_faces)
    count = -(-len(plan) // batch_size)
    chunks: dict[int, Chunk] = {}
    made = _make_chunks(work, _turns(count, rank, world))
    for number, chunk in shown(made, "synthesizing", unit="chunk", total=count):
        chunks[number] = chunk
        if on_chunk is not None:
            on_chunk(len(chunks), count)

    def images_of(number: int) -> Tensor:
        if store is None:
            return chunks[number].images
        chunk = store.load(number)
        if chunk is None:
            raise InputError(f"{store.path(number)}: vanished or was damaged meanwhile: --resume makes it again")
        return chunk.images

    result = gather([chunks[n] for n in range(count)], origin, calibration, images_of)
    for sentence in result.shortfalls.values():
        logger.warning(sentence)
    return result


@dataclass(frozen=True)
class _Work:
    """What chunks are made of and where they go."""

    generator: FaceGenerator
    judging: Callable[..., Verdict]
    origin: Origin
    store: ChunkStore | None
    max_attempts: int
    spread: float
    sampling: SamplingOptions | None
    on_faces: Callable[[FaceTable, list[dict]], None] | None


def _make_chunks(work: _Work, numbers: Sequence[int]) -> Iterator[tuple[int, Chunk]]:
    """Each chunk by its number, made or loaded, in about this order; pixels only where there is no store.

    Generation has this thread to itself: another one judges, stores and hands on what has been made, while the next
    chunk, or the next attempt at the one before, is on its way.
    """
    started, generating, made = time.monotonic(), 0.0, 0
    waiting: deque[tuple[int, Draft | Chunk, Future]] = deque()
    numbers = deque(numbers)
    with ThreadPoolExecutor(1) as behind:
        while numbers or waiting:
            if numbers and len(waiting) < _AHEAD:
                number = numbers.popleft()
                found = work.store.load(number) if work.store else None
                if found is not None:
                    waiting.append((number, found, behind.submit(_hand_on, work, number, found)))
                    continue
                size = work.origin.chunk_size
                faces = torch.arange(number * size, min((number + 1) * size, len(work.origin.plan)))
                draft = Draft(work.origin.table, work.origin.plan, faces, work.max_attempts)
            else:
                number, oldest, judged = waiting.popleft()
                judged.result()
                if isinstance(oldest, Chunk) or oldest.done:
                    chunk = oldest if isinstance(oldest, Chunk) else oldest.chunk
                    if work.store:
                        chunk.images = chunk.images.new_empty((0, *chunk.images.shape[1:]))  # a view would keep them
                    yield number, chunk
                    continue
                draft = oldest
            rows, target, seeds = draft.candidates()
            told = work.origin.targets.draw(target, seeds)
            before, edited = time.monotonic(), draft.sources(rows)
            images, finite = edit_faces(work.generator, edited, told, seeds, spread=work.spread, sampling=work.sampling)
            generating += time.monotonic() - before
            made += len(images)
            waiting.append((number, draft, behind.submit(_judge, work, number, draft, images, finite)))
    seconds = max(time.monotonic() - started, 1e-9)
    if made:
        logger.info(
            "made %d candidates in %.1f s (%.0f a second), %.0f %% of it in the generator",
            made, seconds, made / seconds, 100 * generating / seconds,
        )  # fmt: skip


def _judge(work: _Work, number: int, draft: Draft, images: Tensor, finite: Tensor) -> None:
    draft.judge(work.judging, images, finite)
    if draft.done:
        if work.store:
            work.store.save(number, draft.chunk)
        _hand_on(work, number, draft.chunk)


def _hand_on(work: _Work, number: int, chunk: Chunk) -> None:
    if work.on_faces is not None:
        work.on_faces(*work.origin.faces(number, chunk))


def _turns(count: int, rank: int, world: int) -> list[int]:
    """Own chunks first; then the others', from the end, where their owners come last."""
    own = range(rank, count, world)
    return [*own, *(n for n in reversed(range(count)) if n not in own)]


def check_parts(generator: FaceGenerator, judge: nn.Module | None, table: FaceTable) -> None:
    """Stop at networks that do not suit each other, or the faces.

    Raises:
        InputError: if the judge is the generator, or has its weights, or if classes, sizes or channels differ.
    """
    if judge is generator or (judge is not None and weights_hash(judge) == weights_hash(generator)):
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


def check_plan(plan: BalancePlan, table: FaceTable, generator: FaceGenerator, sampling: SamplingOptions | None) -> None:
    """Stop at a plan that this generator cannot carry out, or that is for other faces.

    Raises:
        InputError: naming what does not suit.
    """
    if not plan.edits and not makes_new_faces(generator):
        raise InputError("sources is none, but this generator edits faces: only a diffusion model makes new ones")
    if not plan.edits and sampling and sampling.strength is not None:
        raise InputError("strength says how much noise is put on a source, and sources is none: leave it out")
    if plan.classes != table.classes or plan.counts != table.counts():
        raise InputError("the plan was made for other faces: make one for this table")
