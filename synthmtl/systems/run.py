"""A system's recipe: every variant by every seed, then the table."""

import dataclasses
from pathlib import Path

import torch

from synthmtl.experiment.workers import Workers
from synthmtl.experiment.workspace import check_out, claim, open_out, write_json
from synthmtl.files import write_text
from synthmtl.systems.cells import Build, prepare, run_cell, scored_splits
from synthmtl.systems.config import (
    SystemOptions,
    check_batches,
    check_options,
    chosen_variants,
    file_hashes,
    smoke,
)
from synthmtl.systems.job import describe_read, load_job
from synthmtl.systems.results import build_results, format_table
from synthmtl.training import build_accelerator, check_same_data

MAY_GROW = ("variants", "only", "seeds", "files")
"""Options that ``resume`` may give more of, since every cell stands for itself."""


def run_system(
    options: SystemOptions, build: Build, out: Path, *, title: str, resume: bool = False, overwrite: bool = False
) -> dict:
    """Run every cell that is not finished yet in ``out``; write ``table.md`` and ``results.json``, and return this.

    Args:
        options: of the recipe; ``options.model.tasks`` names the tasks.
        build: the row's options and training faces → its system; a function of the recipe's module.
        out: the run's folder.
        title: of the results.
        resume: continue what is there.
        overwrite: replace what is there.

    Raises:
        InputError: if the options do not fit the data, ``out`` exists, or it belongs to other options. (More variants
            and seeds may join what is finished there.)
    """
    if options.preset == "smoke":
        options = smoke(options)
    check_options(options)
    accelerator = build_accelerator(precision=options.precision, log_dir=out / "tracking", tracker=options.tracker)
    check_batches(options, accelerator.num_processes)
    if accelerator.is_main_process:
        check_out(out, resume=resume, overwrite=overwrite, options=dataclasses.asdict(options))
    job = load_job(options, out, accelerator)
    check_same_data(accelerator, job.train | job.scored)
    measured: set[str] = set()
    with torch.random.fork_rng():
        for variant in chosen_variants(options):  # what cannot be trained or scored is said before anything is written
            measured.update(scored_splits(job, variant, prepare(job, variant, 0, build)))
    for where in job.scored:
        if where not in measured:
            job.note(f"{where} carries no label of what the variants predict, so nothing is scored there.")
    if accelerator.is_main_process:
        open_out(out, resume=resume, overwrite=overwrite)
        given = dataclasses.asdict(options) | {"files": file_hashes(options)}
        claim(out, given, describe_read(job), may_grow=MAY_GROW)
    accelerator.wait_for_everyone()
    calls = [
        (f"{variant} seed {seed}", run_cell, {"variant": variant, "seed": seed, "build": build})
        for variant in chosen_variants(options)
        for seed in options.seeds
    ]
    with Workers(job, options.workers) as workers:
        workers.run(calls)
    results = build_results(job, title)
    if accelerator.is_main_process:
        write_json(out / "results.json", results)
        write_text(out / "table.md", format_table(results))
    accelerator.wait_for_everyone()
    return results
