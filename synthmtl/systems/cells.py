"""The cells of a system's table: one variant trained by one seed, its predictions kept."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from synthmtl.data import FaceTable
from synthmtl.data.mixture import MixtureSampler
from synthmtl.data.randomness import derive_seed
from synthmtl.data.streams import RecognitionStream
from synthmtl.errors import InputError
from synthmtl.experiment.workspace import Unit
from synthmtl.files import write_tensors
from synthmtl.losses import MultiTaskObjective
from synthmtl.metrics.multitask import scorable_labels
from synthmtl.models.heads import checked_tasks
from synthmtl.models.inference import predict_tasks, save_network
from synthmtl.models.multitask import MultiTaskModel
from synthmtl.systems.config import SystemOptions, network_options, override
from synthmtl.systems.job import SystemJob, mixture
from synthmtl.systems.objectives import warmed
from synthmtl.training import Player, fit


@dataclass
class System:
    """What a recipe builds for a row of its table.

    Attributes:
        model: images → outputs by task; a diffusers model with ``tasks`` and ``predict``.
        objective: what its training minimizes, over :class:`FaceBatch`.
        read: outputs of ``predict`` for a whole split → outputs that are scored; None scores them as they are.
    """

    model: MultiTaskModel
    objective: MultiTaskObjective
    read: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None


Build = Callable[[Any, FaceTable], System]
"""(the row's options, its training faces) → the system, weights drawn from the global generator."""


@dataclass
class Prepared:
    """A row that could be trained: its options, training faces, batches and system."""

    options: SystemOptions
    table: FaceTable
    sampler: MixtureSampler
    system: System


def prepare(job: SystemJob, variant: str, seed: int, build: Build) -> Prepared:
    """Everything of a row before its training; weights are drawn from the global generator.

    Raises:
        InputError: if the row's options do not fit each other or the data.
    """
    options = override(job.config, job.config.variants[variant], where=f"variants.{variant}")
    table, names = mixture(job, options, checked_tasks(network_options(options).tasks))
    wanted = options.sampling
    sampling: str | dict[str | int, float]
    if isinstance(wanted, dict):  # a variant may leave data sets out
        sampling = {name: weight for name, weight in wanted.items() if name in names or name not in options.data}
    else:
        sampling = wanted
    sampler = MixtureSampler(
        table.domain,
        options.training.batch_size,
        seed,
        sampling=sampling,
        temperature=options.temperature,
        names=names,
    )
    return Prepared(options, table, sampler, build(options, table))


def scored_splits(job: SystemJob, variant: str, prepared: Prepared) -> list[str]:
    """The ``DATA/SPLIT`` that carry a label of what a row says.

    Raises:
        InputError: if none does.
    """
    first = next(iter(job.scored.values())).select([0])
    said = read_outputs(prepared.system, first)  # a recipe may read more out of a network than it predicts
    carried = {where: scorable_labels(table) for where, table in job.scored.items()}
    found = [where for where, tasks in carried.items() if set(tasks) & said.keys()]
    if not found:
        splits = "; ".join(f"{where}: {', '.join(tasks) or 'no label'}" for where, tasks in carried.items())
        raise InputError(
            f"variants.{variant}: no scored split carries a label of {', '.join(said)} ({splits}): choose other tasks, "
            "data or splits in score"
        )
    return found


def read_outputs(
    system: System, faces: FaceTable, *, device: torch.device | str = "cpu", mirror: bool = False
) -> dict[str, Tensor]:
    """What a system says of every face, (N, ...) by task, as it is scored."""
    found = predict_tasks(system.model, faces, device=device, mirror=mirror)
    return found if system.read is None else system.read(found)


def run_cell(job: SystemJob, *, variant: str, seed: int, build: Build) -> dict:
    """Train one variant by one seed, or read what an earlier run of it left.

    Returns:
        The result: seed, seconds of training (all sessions together), parameters. Predictions for every scored split
        lie beside it.
    """
    unit = Unit(job.out, f"cells/{variant}/seed{seed}")
    if unit.result is not None:
        return unit.result
    cell_seed = derive_seed("cell", seed)  # the same for every variant, so that comparisons are paired
    torch.manual_seed(cell_seed)
    prepared = prepare(job, variant, cell_seed, build)
    options, system, table = prepared.options, prepared.system, prepared.table
    accelerator = job.accelerator
    stream = RecognitionStream(
        table,
        prepared.sampler,
        augmentation=options.augmentation,
        seed=cell_seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    warm_steps = round(options.losses.association_warmup * options.training.steps)
    trained = fit(
        players=[Player("system", system.objective)],
        stream=warmed(stream, system.objective, warm_steps, accumulation=options.training.accumulation),
        config=dataclasses.replace(options.training, seed=cell_seed),
        accelerator=accelerator,
        directory=unit.directory,
        progress=job.progress,
        description=f"{variant} seed {seed}",
    )
    outputs: dict[str, Tensor] = {}
    for name, faces in job.scored.items():
        found = read_outputs(system, faces, device=accelerator.device, mirror=options.mirror)
        outputs |= {f"{name}/{task}": values.contiguous() for task, values in found.items()}
    result = {
        "variant": variant,
        "seed": seed,
        "seconds": trained.seconds,
        "faces": len(table),
        "parameters": sum(p.numel() for p in system.model.parameters()),
    }
    if accelerator.is_main_process:
        save_network(system.model, unit.directory / "model")
        write_tensors(unit.directory / "outputs.safetensors", outputs)
        unit.finish(result)
    accelerator.wait_for_everyone()
    return result


def cell_outputs(job: SystemJob, variant: str, seed: int) -> dict[str, dict[str, Tensor]]:
    """What a finished cell predicted: {``DATA/SPLIT``: {task: (N, ...)}}."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, values in load_file(job.out / f"cells/{variant}/seed{seed}/outputs.safetensors").items():
        where, task = name.rsplit("/", 1)
        found.setdefault(where, {})[task] = values
    return found
