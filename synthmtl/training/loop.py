"""The training loop, for one network or several that take turns, on one process or many, interrupted or not."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from synthmtl.errors import InputError
from synthmtl.progress import ProgressLine
from synthmtl.training.checkpoint import (
    distinct_state,
    latest,
    load_checkpoint,
    load_distinct_state,
    save_checkpoint,
    tidy,
)
from synthmtl.training.config import SAVING, TrainingConfig, learning_rate_factor
from synthmtl.training.history import History, Means
from synthmtl.training.turns import Batch, Player, prepare_turns, restore_training_state, train_mode, training_state

_OPERATIONAL = (*SAVING, "precision")


class DivergedError(RuntimeError):
    """A loss or a gradient became NaN or infinite; the message names the step and the last good checkpoint."""


@dataclass
class FitResult:
    """What :func:`fit` returns.

    Attributes:
        steps: optimizer steps done.
        history: the records of ``losses.jsonl``, see ``history.read_history``.
        best: ``step`` and metrics of the chosen model, or None without ``select_by``.
        seconds: of training, all sessions together.
        stopped_because: ``steps`` or ``patience``.
    """

    steps: int
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    seconds: float
    stopped_because: str


@dataclass
class _Progress:
    step: int = 0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    without_gain: int = 0
    stopped_because: str | None = None
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)


def fit(
    *,
    players: Sequence[Player],
    stream: Callable[[int], Batch],
    config: TrainingConfig,
    accelerator: Accelerator,
    directory: Path | str | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    select_by: str | None = None,
    progress: bool = True,
    resume: bool = True,
    description: str = "",
    identity: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train the players' objectives; they end in eval mode with the chosen (best, else averaged, else last) weights.

    Each step the players take their turns, ``repeats`` times each, on the same batch. A module whose parameters no
    player trains (a frozen guide) stays in eval mode. The global generator is seeded anew for every forward pass, so
    that dropout too is a pure function of the step.

    Args:
        players: at least one; the moving average follows the first one's parameters.
        stream: this process's batch of a micro-step, ``step * accumulation + k``; it must be a pure function.
        config: settings.
        accelerator: from ``build_accelerator``.
        directory: for ``losses.jsonl`` and ``checkpoints/``; None = nothing is written.
        evaluate: metrics on the validation split; called in every process in eval mode with the averaged weights.
        select_by: the metric, higher is better, by which the best weights are chosen.
        progress: show the progress.
        resume: continue from the last checkpoint in ``directory``; otherwise it must hold none.
        description: of the run, for the progress and the trackers.
        identity: further settings (data, method, ...) that must be the same for a run to resume.

    Raises:
        InputError: if the checkpoint belongs to another configuration, or the settings contradict each other.
        DivergedError: if a loss or a gradient is not finite.
    """
    if (select_by is not None or config.patience is not None) and (evaluate is None or select_by is None):
        raise InputError("choosing a model (select_by, patience) needs both evaluate and select_by")
    if config.precision not in ("auto", accelerator.mixed_precision):
        raise InputError(f"the accelerator computes in {accelerator.mixed_precision}, not precision {config.precision}")
    folder = None if directory is None else Path(directory)
    turns = prepare_turns(players, config, accelerator)
    modules = nn.ModuleDict({player.name: player.objective for player in players})
    averaged = turns[0].parameters
    ema = None
    if config.ema_decay is not None:
        from diffusers.training_utils import EMAModel  # with it come most networks of diffusers, which takes seconds

        ema = EMAModel(averaged, decay=config.ema_decay, foreach=True)
    configuration = {
        "training": {k: v for k, v in dataclasses.asdict(config).items() if k not in _OPERATIONAL},
        "players": {turn.name: turn.identity() for turn in turns},
        "select_by": select_by,
        "identity": dict(identity or {}),
    }
    history = History(folder / "losses.jsonl" if folder else None, accelerator, description)
    now, best = _Progress(), None
    checkpoint = latest(folder / "checkpoints") if folder else None
    if checkpoint is not None:
        if not resume:
            raise InputError(f"{folder} holds checkpoints of an earlier run; resume it or choose another directory")
        state, saved, best = load_checkpoint(checkpoint, modules=modules, configuration=configuration)
        restore_training_state(state, turns, ema, accelerator)
        now = _Progress(**saved)
        if accelerator.is_main_process:  # there may be no step left after which a checkpoint would do it
            tidy(checkpoint.parent, keep=config.keep_checkpoints)
    means = Means(now.sums)
    history.rewind(now.step)

    before, started = now.seconds, time.monotonic()
    saved_at = started

    def seconds() -> float:
        return before + time.monotonic() - started

    def save() -> None:
        nonlocal checkpoint, saved_at
        if not accelerator.is_main_process:
            return
        assert folder is not None  # there is one wherever a checkpoint is due
        now.seconds, now.sums = seconds(), means.sums
        checkpoint = save_checkpoint(
            folder / "checkpoints",
            now.step,
            modules=modules,
            training=training_state(turns, ema, accelerator),
            progress=dataclasses.asdict(now),
            configuration=configuration,
            best=best,
            keep=config.keep_checkpoints,
        )
        saved_at = time.monotonic()

    def validate() -> None:
        """Evaluate with the averaged weights, and remember them if they are the best."""
        nonlocal best
        assert evaluate is not None  # there is nothing to validate by without it
        modules.eval()
        if ema is not None:
            ema.store(averaged)
            ema.copy_to(averaged)
        try:
            # One process's numbers decide for all: they stop and choose together.
            metrics = broadcast_object_list([evaluate()])[0]
            history.add(now.step, evaluation=metrics)
            if select_by is not None:
                if select_by not in metrics:
                    raise InputError(f"select_by is {select_by!r}, but the evaluation has {', '.join(metrics)}")
                score, now.without_gain = metrics[select_by], now.without_gain + 1
                if score > (now.best[select_by] if now.best else -math.inf):
                    now.best, now.without_gain = {"step": now.step, **metrics}, 0
                    best = {name: value.cpu().clone() for name, value in distinct_state(modules).items()}
        finally:
            if ema is not None:
                ema.restore(averaged)
        train_mode(modules, turns)

    line = ProgressLine(config.steps, now.step, description, progress and accelerator.is_main_process)
    # The caller's random state is his own.
    fork = []
    if accelerator.device.type == "cuda":
        index = accelerator.device.index
        fork = [torch.cuda.current_device() if index is None else index]
    try:
        with torch.random.fork_rng(devices=fork):
            train_mode(modules, turns)
            while now.step < config.steps and now.stopped_because is None:
                first = now.step * config.accumulation
                batches = [stream(first + k).to(accelerator.device) for k in range(config.accumulation)]
                factor = learning_rate_factor(config, now.step)
                values: dict[str, float] = {}
                for turn in turns:
                    for repeat in range(turn.repeats):
                        values |= turn.take(batches, factor, now.step, repeat)
                        if not turn.healthy(values):
                            where = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint yet"
                            what = f"{description}: {turn.name}" if description else turn.name
                            raise DivergedError(f"{what} diverged at step {now.step + 1} (NaN or inf); {where}")
                        turn.step(batches, now.step, repeat)
                if ema is not None:
                    ema.step(averaged)
                now.step += 1
                means.add(values)
                line.advance(values[f"{turns[0].name}/loss"])
                last = now.step == config.steps
                if now.step % config.log_every == 0 or last:
                    rate = round(means.steps_per_second() * config.batch_size * config.accumulation, 1)
                    rates = {"learning_rate": turns[0].learning_rate * factor, "images_per_second": rate}
                    history.add(now.step, losses=means.take(), **rates)
                if evaluate is not None and (last or now.step % (config.evaluate_every or config.steps) == 0):
                    validate()
                    if config.patience is not None and now.without_gain >= config.patience:
                        now.stopped_because = "patience"
                if last:
                    now.stopped_because = "steps"
                due = now.stopped_because or config.checkpoint_due(now.step, time.monotonic() - saved_at)
                if folder is not None and due:
                    save()
    finally:
        line.close()
        history.close()
        for turn in turns:
            turn.close()
        accelerator.free_memory()
    if best is not None:
        load_distinct_state(modules, best)
    elif ema is not None:
        ema.copy_to(averaged)
    modules.eval()
    accelerator.wait_for_everyone()
    assert now.stopped_because is not None  # the loop ends with a reason
    return FitResult(now.step, history.records, now.best, seconds(), now.stopped_because)
