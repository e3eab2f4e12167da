"""The main job: faces → two branches that share → balancing faces → better recognition, measured and shown."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthmtl.errors import InputError
from synthmtl.experiment.cells import train_cell
from synthmtl.experiment.checks import check_config
from synthmtl.experiment.config import MainJobConfig
from synthmtl.experiment.further import check_labels, further_scores
from synthmtl.experiment.gates import gates_of_run
from synthmtl.experiment.generation import (
    Fills,
    check_plans,
    judged_recall,
    make_fills,
    maps_photographs,
    note_synthesis_mode,
    train_jointly,
)
from synthmtl.experiment.labeler import lacking, targets_note, told_faces, train_labeler
from synthmtl.experiment.mapped import map_photographs
from synthmtl.experiment.methods import Method, select_methods
from synthmtl.experiment.quality import balancing_quality
from synthmtl.experiment.reporting import build_report, write_report
from synthmtl.experiment.stages import Job, load_data, save, train_judge
from synthmtl.experiment.workers import Call, Workers
from synthmtl.experiment.workspace import Unit, check_out, claim, describe_data, open_out
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.inference import load_network
from synthmtl.training import build_accelerator, check_same_data


def run_main_job(config: MainJobConfig, out: Path, *, resume: bool = False, overwrite: bool = False) -> dict:
    """Run everything that is not finished yet in ``out``, and return the report.

    The parts, each in a folder of its own that is skipped once it is finished: ``guide`` and ``judge``,
    ``joint/NETWORK-seedN`` (stage 1), ``balance/seedN`` (stage 2), ``cells/METHOD/seedN``, ``quality``. At the end
    ``model`` holds the recognizer with the best validation macro-F1, ``generator`` the synthesis network of the first
    seed.

    Args:
        config: all options.
        out: the run's folder.
        resume: continue what is there.
        overwrite: replace what is there.

    Raises:
        InputError: if the options do not fit the data, ``out`` exists, or it belongs to other options.
    """
    methods = select_methods(config.methods, rendered=config.faces.path is None)
    accelerator = build_accelerator(precision=config.precision, log_dir=out / "tracking", tracker=config.tracker)
    check_config(config, world=accelerator.num_processes)
    if accelerator.is_main_process:
        check_out(out, resume=resume, overwrite=overwrite, options=dataclasses.asdict(config))
    splits, render = load_data(config.faces)
    check_same_data(accelerator, splits.tables())
    job = Job(config, out, splits, accelerator, render)
    job.notes.extend(splits.notes)  # the reader has logged them
    check_labels(job)
    check_plans(job, methods.values())
    if config.synthesis.labeler is not None and bool(lacking(job).any()):
        told_faces(job)  # to see whether the network suits, before anything is written or trained
    if accelerator.is_main_process:
        open_out(out, resume=resume, overwrite=overwrite)
        claim(out, dataclasses.asdict(config), describe_data(splits.tables()) if render is None else None)
    accelerator.wait_for_everyone()
    if config.preset == "smoke":
        job.note("Smoke preset: it proves the installation, its numbers mean nothing.")

    with Workers(job, config.workers) as workers:
        trained = train_everything(job, methods, workers)
    keep_best(job, trained.cells)
    title = "Rendered faces" if config.faces.path is None else Path(config.faces.path).name
    report = build_report(
        job,
        trained.cells,
        balance=trained.balance,
        generation=trained.generation,
        tasks=trained.tasks,
        gates=trained.gates,
        title=f"synthmtl: {title}",
    )
    if accelerator.is_main_process:
        write_report(job, report, trained.generator)
    accelerator.wait_for_everyone()
    return report


@dataclass
class Trained:
    """What the report is made of.

    Attributes:
        cells: {method: the result of each seed}.
        balance: the ``balance`` of ``report.json``.
        generation: the ``generation`` of ``report.json``.
        generator: the synthesis network of the first seed, or None.
        tasks: the ``tasks`` of ``report.json``.
        gates: the ``gates`` of ``report.json``.
    """

    cells: dict[str, list[dict]]
    balance: dict
    generation: dict
    generator: FaceGenerator | None
    tasks: dict[str, dict]
    gates: list[dict]


def train_everything(job: Job, methods: dict[str, Method], workers: Workers) -> Trained:
    """Guide and judge, joint training, balancing, and every method by every seed."""
    config, device = job.config, job.accelerator.device
    generators = config.seeds[: config.generator_seeds] if config.generator_seeds else config.seeds
    if len(generators) < len(config.seeds):
        what = "generator seed" if len(generators) == 1 else "generator seeds"
        job.note(f"{len(generators)} {what} for {len(config.seeds)} recognizer seeds.")
    networks = {method.network for method in methods.values()}
    kinds = {method.fill for method in methods.values() if method.fill}

    taught = config.model.generator == "gan" and networks & {"hard", "gated"}
    roles = (["guide"] if taught else []) + (["judge"] if kinds else [])
    first: list[Call] = [(role, train_judge, {"role": role}) for role in roles]
    if networks & {"hard", "gated"} and config.synthesis.labeler is None and bool(lacking(job).any()):
        first.append(("labeler", train_labeler, {}))
    if networks & {"hard", "gated"} and maps_photographs(job):
        first.append(("mapped photographs", map_photographs, {}))
    workers.run(first)
    calls: list[Call]
    bases: dict[tuple[str, int], Path] = {}
    fills: dict[int, Fills] = {}
    targets: dict[str, Any] = {}
    if networks & {"hard", "gated"}:
        note_synthesis_mode(job)
        targets = targets_note(job)
        wanted = [(name, seed) for seed in generators for name in ("gated", "hard") if name in networks]
        calls = [(f"{n} joint seed {s}", train_jointly, {"network": n, "seed": s}) for n, s in wanted]
        bases = dict(zip(wanted, workers.run(calls), strict=True))

    generator, balance, generation = None, _no_balance(job), {}
    if "gated" in networks:
        generator = load_network(bases["gated", generators[0]]).to(device)
        save(job, generator, job.out / "generator")
    if kinds:
        assert generator is not None  # methods with a fill fine-tune the gated network
        judge = load_network(job.out / "judge").to(device)
        for seed in generators:
            made_by = load_network(bases["gated", seed]).to(device)
            fills[seed] = make_fills(job, made_by, judge, seed, kinds=kinds)
        balance = fills[generators[0]].summary
        generation = {"generator": config.model.generator, "judged_recall": judged_recall(job, generator, judge)}
        generation |= {"targets": targets} if targets else {}
        if maps_photographs(job):
            generation["mapped"] = Unit(job.out, "mapped").finished
        methods = without_empty_fills(job, methods, fills)

    calls = []
    for position, seed in enumerate(config.seeds):
        source = generators[min(position, len(generators) - 1)]
        for name, method in methods.items():
            base = bases.get((method.network, source))
            fill = fills[source].tables[method.fill] if method.fill else None
            options = {"name": name, "method": method, "seed": seed, "base": base, "fill": fill}
            calls.append((f"{name} seed {seed}", train_cell, options))
    results = workers.run(calls)
    cells = {name: [result for result in results if result["method"] == name] for name in methods}
    if config.balance.quality and fills and fills[generators[0]].tables:
        generation["quality"] = balancing_quality(job, fills[generators[0]], cells)
    return Trained(cells, balance, generation, generator, further_scores(job, bases), gates_of_run(job, bases, cells))


def without_empty_fills(job: Job, methods: dict[str, Method], fills: dict[int, Fills]) -> dict[str, Method]:
    """The methods that can be trained: no face may be missing, or none may have been good enough.

    Raises:
        InputError: if none is left.
    """
    empty = [name for name, m in methods.items() if m.fill and not all(m.fill in f.tables for f in fills.values())]
    if not empty:
        return methods
    wanted = any(any(f.summary["requested"].values()) for f in fills.values())
    why = "every synthesized face was rejected" if wanted else "the strategy wants no further face of any class"
    if len(empty) == len(methods):
        raise InputError(f"nothing to train: {why}; add other methods than {', '.join(empty)}, or change --balance")
    job.note(f"Left out {', '.join(empty)}: {why}.")
    return {name: method for name, method in methods.items() if name not in empty}


def keep_best(job: Job, cells: dict[str, list[dict]]) -> None:
    """Keep the recognizer with the best macro-F1 on the validation split as ``model``; the oracle does not compete,
    unless it is alone."""
    results = [result for name, each in cells.items() if name != "oracle" or len(cells) == 1 for result in each]
    best = max(results, key=lambda result: result["validation"]["macro_f1"])
    job.note(f"model/ is {best['method']}, seed {best['seed']}: the best macro-F1 on the validation split.")
    folder = job.out / f"cells/{best['method']}/seed{best['seed']}"
    save(job, load_network(folder), job.out / "model")


def _no_balance(job: Job) -> dict:
    nothing = dict.fromkeys(job.train.classes, 0)
    return {"strategy": "none", "requested": nothing, "kept": dict(nothing), "rejected": dict(nothing)}
