"""The main job: faces → two branches that share → balancing faces → better recognition, measured and shown."""

import dataclasses
import json
import logging
from pathlib import Path

from synthmtl.data.duplicates import leaks
from synthmtl.experiment.cells import train_cell
from synthmtl.experiment.checks import check_config
from synthmtl.experiment.config import MainJobConfig
from synthmtl.experiment.generation import judged_recall, make_fills, train_jointly
from synthmtl.experiment.methods import select_methods
from synthmtl.experiment.reporting import build_report, write_report
from synthmtl.experiment.stages import Job, load_data, save, train_judge
from synthmtl.experiment.workspace import check_out, claim, open_out
from synthmtl.models.inference import load_network
from synthmtl.training import build_accelerator

log = logging.getLogger("synthmtl")


def run_main_job(config: MainJobConfig, out: Path, *, resume: bool = False, overwrite: bool = False) -> dict:
    """Run everything that is not finished yet in ``out``, and return the report.

    The parts, each in a folder of its own that is skipped once it is finished: ``guide`` and ``judge``,
    ``joint/SHARING-seedN`` (stage 1), ``balance/seedN`` (stage 2), ``cells/METHOD/seedN``. At the end ``model`` holds
    the recognizer with the best validation macro-F1, ``generator`` the synthesis network of the first seed.

    Args:
        config: all options.
        out: the run's folder.
        resume: continue what is there.
        overwrite: replace what is there.

    Raises:
        InputError: if the options do not fit the data, ``out`` exists, or it belongs to other options.
    """
    methods = select_methods(config.methods, rendered=config.faces.path is None)
    accelerator = build_accelerator(precision=config.precision, log_dir=out / "tracking")
    check_config(config, world=accelerator.num_processes)
    if accelerator.is_main_process:
        check_out(out, resume=resume, overwrite=overwrite)
    splits, render = load_data(config.faces)
    if accelerator.is_main_process:
        open_out(out, resume=resume, overwrite=overwrite)
        claim(out, dataclasses.asdict(config))
    accelerator.wait_for_everyone()
    job = Job(config, out, splits, accelerator, render)
    for note in splits.notes:
        job.note(note)
    for leak in leaks(splits.tables()):
        if leak.near or leak.subjects:
            job.note(
                f"{leak.near} of {leak.faces} {leak.split} faces have a near-duplicate in {leak.other} "
                f"({leak.exact} equal in every pixel, {leak.near_other_label} with another label); "
                f"{leak.subjects} people are in both."
            )
    if config.preset == "smoke":
        job.note("Smoke preset: it proves the installation, its numbers mean nothing.")

    judge = generator = None
    bases, fills = {}, {}
    generators = config.seeds[: config.generator_seeds] if config.generator_seeds else config.seeds
    if len(generators) < len(config.seeds):
        job.note(f"{len(generators)} generator seed(s) for {len(config.seeds)} recognizer seeds.")
    networks = {method.network for method in methods.values()}
    kinds = {method.fill for method in methods.values() if method.fill}
    if networks & {"hard", "gated"}:
        guide = train_judge(job, "guide")
        for seed in generators:
            if "gated" in networks:
                bases["gated", seed] = train_jointly(job, config.model.sharing, seed, guide)
            if "hard" in networks:
                bases["hard", seed] = train_jointly(job, "hard", seed, guide)
    balance, generation = _no_balance(job), {}
    if kinds:
        judge = train_judge(job, "judge")
        for seed in generators:
            fills[seed] = make_fills(job, bases["gated", seed], judge, seed, kinds=kinds)
        balance = fills[generators[0]].summary
    if "gated" in networks:
        generator = bases["gated", generators[0]]
        save(job, generator, out / "generator")
    if judge is not None:
        generation = {"judged_recall": judged_recall(job, generator, judge)}

    cells: dict[str, list[dict]] = {name: [] for name in methods}
    for position, seed in enumerate(config.seeds):
        source = generators[min(position, len(generators) - 1)] if len(generators) > 1 else generators[0]
        for name, method in methods.items():
            base = bases.get((method.network, source))
            fill = fills[source].tables[method.fill] if method.fill else None
            cells[name].append(train_cell(job, name, method, seed, base=base, fill=fill))
            log.info("%s seed %d: %s", name, seed, json.dumps(cells[name][-1]["validation"]))
    keep_best(job, cells)
    title = "Rendered faces" if render is not None else Path(config.faces.path).name
    report = build_report(job, cells, balance=balance, generation=generation, title=f"synthmtl: {title}")
    if accelerator.is_main_process:
        write_report(job, report, generator)
    accelerator.wait_for_everyone()
    return report


def keep_best(job: Job, cells: dict[str, list[dict]]) -> None:
    """Keep the recognizer with the best macro-F1 on the validation split as ``model``; the oracle does not compete."""
    results = [result for name, each in cells.items() if name != "oracle" for result in each]
    best = max(results, key=lambda result: result["validation"]["macro_f1"])
    job.note(f"model/ is {best['method']}, seed {best['seed']}: the best macro-F1 on the validation split.")
    folder = job.out / f"cells/{best['method']}/seed{best['seed']}"
    save(job, load_network(folder), job.out / "model")


def _no_balance(job: Job) -> dict:
    nothing = dict.fromkeys(job.train.classes, 0)
    return {"strategy": "none", "requested": nothing, "kept": dict(nothing), "rejected": dict(nothing)}
