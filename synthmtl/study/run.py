"""The study: every cell of the grid, then tables, figures and the page."""

import dataclasses
import json
import logging
from pathlib import Path

from synthmtl.experiment.workers import WorkerKilled, Workers
from synthmtl.experiment.workspace import OPTIONS, check_out, claim, describe_data, open_out, write_json
from synthmtl.report.study_figures import draw_study_figures
from synthmtl.report.study_page import write_study_page
from synthmtl.report.study_schema import validate_study
from synthmtl.study.cells import FAILED, is_left, run_cell, unit_of
from synthmtl.study.checks import check_study
from synthmtl.study.config import SINGLE, Grid, StudyConfig, grid_cells
from synthmtl.study.job import StudyJob, load_study
from synthmtl.study.ranks import Ranks, launched
from synthmtl.study.results import build_results, gate_maps_of, write_csv
from synthmtl.training import build_accelerator, fingerprints, refuse_other_data

log = logging.getLogger("synthmtl")

MAY_GROW = ("variants", *(f"grid.{f.name}" for f in dataclasses.fields(Grid)))
"""Options that ``resume`` may give more of, since every cell stands for itself."""


def run_study(config: StudyConfig, out: Path, *, resume: bool = False, overwrite: bool = False) -> dict | None:
    """Run every cell that is not finished yet in ``out``, and write what all of them show.

    Each cell lies in ``cells/NAME`` and is skipped once it is finished; one that fails is recorded in
    ``results.json`` under ``failed``, and tried again by ``resume``. The grid may have grown by then, by seeds, units
    or whatever else (:data:`MAY_GROW`): what is finished stays. Under a launcher, its processes share the cells.

    Args:
        config: all options.
        out: the study's folder.
        resume: continue what is there.
        overwrite: replace what is there.

    Returns:
        The content of ``results.json``; None in all but the first process of a launcher.

    Raises:
        InputError: if the options do not fit the data, ``out`` exists, or it belongs to other options or to cells that
            the grid lacks.
    """
    check_study(config)
    with launched() as ranks:

        def look() -> None:
            check_out(out, resume=resume, overwrite=overwrite, options=dataclasses.asdict(config))
            if resume and (out / OPTIONS).is_file():
                claim(out, dataclasses.asdict(config), may_grow=MAY_GROW, record=False)

        ranks.first(look)
        accelerator = build_accelerator(precision=config.precision, log_dir=out / "tracking", tracker=config.tracker)
        job = load_study(config, out, accelerator)
        refuse_other_data([json.loads(read) for read in ranks.gather(json.dumps(fingerprints(job.tables())))])
        add_notes(job)

        def start() -> None:
            open_out(out, resume=resume, overwrite=overwrite)
            data = describe_data(job.tables()) if job.render is None else None
            claim(out, dataclasses.asdict(config), data, may_grow=MAY_GROW)
            for cell in grid_cells(config.grid):
                (unit_of(job, cell).directory / FAILED).unlink(missing_ok=True)

        ranks.first(start)
        run_cells(job, ranks)
        ranks.wait()
        if ranks.rank:
            return None
        results = build_results(job)
        write_study(job, results)
        return results


def run_cells(job: StudyJob, ranks: Ranks) -> None:
    """Run this process's share of the cells, side by side if there is no other process."""
    cells = grid_cells(job.config.grid)
    if ranks.world > 1:
        job.progress = False
        for cell in ranks.deal(cells):
            run_cell(job, cell)
            log.info("%s finished", cell.name)
        return
    while left := [cell for cell in cells if is_left(job, cell)]:
        try:
            with Workers(job, job.config.workers) as workers:
                workers.run([(cell.name, run_cell, {"cell": cell}) for cell in left])
        except WorkerKilled as error:
            # The cells that were cut off count as failed, so that the next round has fewer.
            if len(left) == sum(is_left(job, cell) for cell in left):
                raise
            log.error("%s; the study goes on with other cells", error)


def add_notes(job: StudyJob) -> None:
    """What the reader of the page must know of the options."""
    config, seeds = job.config, len(job.config.grid.seeds)
    if config.preset == "smoke":
        job.note("Smoke preset: it proves the installation, its numbers mean nothing.")
    if SINGLE not in config.grid.sharing:
        job.note(f"The grid has no {SINGLE!r}: without single-task runs there are no relative gains.")
    if seeds < 5:
        few = "1 seed" if seeds == 1 else f"{seeds} seeds"
        job.note(f"{few}: intervals over so few are too narrow; read differences as hints.")
    if config.synthesis.labels and any(labels is not None for labels in config.grid.labels_per_class):
        job.note("Synthesis saw the expression of every training face, beyond the labels of recognition.")


def write_study(job: StudyJob, results: dict) -> None:
    """``results.json``, ``results.csv``, ``figures/`` and ``report.html`` in the study's folder."""
    validate_study(results)
    write_json(job.out / "results.json", results)
    write_csv(results, job.out / "results.csv")
    figures = draw_study_figures(results, job.out / "figures", gate_maps_of(job))
    write_study_page(results, job.out / "report.html", figures)
