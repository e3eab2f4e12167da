"""From finished cells to ``results.json`` and a table: every label's scores, with intervals and paired differences."""

from collections.abc import Sequence
from statistics import fmean

from torch import Tensor

from synthmtl.data import FaceTable
from synthmtl.data.mixture import usable_labels
from synthmtl.experiment.reporting import environment
from synthmtl.experiment.workspace import Unit
from synthmtl.metrics.multitask import HEADLINES, compare_tasks, scorable_labels, task_intervals, task_metrics
from synthmtl.systems.cells import cell_outputs
from synthmtl.systems.config import chosen_variants
from synthmtl.systems.job import SystemJob


def build_results(job: SystemJob, title: str) -> dict:
    """The content of ``results.json``; every scored split is read here and only here.

    - ``data`` {name: {``train`` {task: faces with its label}}}, ``scored`` {``DATA/SPLIT``: {task: faces}};
    - ``variants`` {name: {``changes``, ``parameters``, ``faces``, ``seconds``, ``seeds``, ``scores`` {``DATA/SPLIT``:
      {task: {``metric``, ``value``, ``ci95``, ``per_seed``, ``faces``, ``all`` [metrics of each seed]}}}}};
    - ``comparisons`` [{``a`` (the first variant), ``b``, ``where``, ``task``, ``metric``, ``difference``, ``ci95``,
      ``paired_by``, ``per_seed``, ``faces``}], a minus b; of ``nme`` less is better;
    - ``notes``, ``preset``, ``environment`` as in ``report.json``.
    """
    seeds, variants = job.config.seeds, chosen_variants(job.config)
    outputs = {name: [cell_outputs(job, name, seed) for seed in seeds] for name in variants}
    entries = {}
    for name, changes in variants.items():
        cells = [Unit(job.out, f"cells/{name}/seed{seed}").finished for seed in seeds]
        entries[name] = {
            "changes": changes,
            "parameters": cells[0]["parameters"],
            "faces": cells[0]["faces"],
            "seconds": fmean(cell["seconds"] for cell in cells),
            "seeds": list(seeds),
            "scores": {where: _scores(job, outputs[name], where) for where in job.scored},
        }
    first, *others = variants
    comparisons = [
        compared.as_dict(first, other) | {"where": where, "task": task}
        for other in others
        for where, table in job.scored.items()
        if set(_tasks(outputs[first][0][where], table)) & set(_tasks(outputs[other][0][where], table))
        for task, compared in compare_tasks(
            [each[where] for each in outputs[first]],
            [each[where] for each in outputs[other]],
            table,
            unit_threshold=_unit_threshold(job, where),
        ).items()
    ]
    return {
        "title": title,
        "preset": job.config.preset,
        "notes": job.notes,
        "data": {name: {"train": _labels(table)} for name, table in job.train.items()},
        "scored": {where: _labels(table) for where, table in job.scored.items()},
        "variants": entries,
        "comparisons": comparisons,
        "environment": environment(job),
    }


def _labels(table: FaceTable) -> dict[str, int]:
    return {"faces": len(table)} | {task: count for task, count in usable_labels(table).items() if count}


def _tasks(outputs: dict[str, Tensor], table: FaceTable) -> list[str]:
    """Tasks of the outputs that the split can score; a data set may carry no label of a variant's."""
    return [task for task in scorable_labels(table) if task in outputs]


def _scores(job: SystemJob, outputs: Sequence[dict[str, dict[str, Tensor]]], where: str) -> dict:
    """{task: headline with interval, and all metrics of each seed} of one variant on one split."""
    table, threshold = job.scored[where], _unit_threshold(job, where)
    given = [each[where] for each in outputs]
    if not _tasks(given[0], table):
        return {}
    each = [task_metrics(one, table, unit_threshold=threshold) for one in given]
    return {
        task: headline.as_dict() | {"all": [metrics[task] for metrics in each]}
        for task, headline in task_intervals(given, table, unit_threshold=threshold).items()
    }


def _unit_threshold(job: SystemJob, where: str) -> float:
    """That of the data set whose split it is."""
    return job.config.data[where.rpartition("/")[0]].unit_threshold


def format_table(results: dict) -> str:
    """The headline scores as a Markdown table, a row a variant, and the differences from the first one."""
    variants = results["variants"]
    first = next(iter(variants))
    columns = [
        (where, task)
        for where in results["scored"]
        for task in HEADLINES
        if any(task in entry["scores"][where] for entry in variants.values())
    ]
    heads = [f"{where} {task.replace('_', ' ')} ({HEADLINES[task].replace('_', '-')})" for where, task in columns]
    lines = [_row(["variant", "parameters", *heads]), _row(["---"] * (2 + len(columns)))]
    for name, entry in variants.items():
        cells = [entry["scores"][where].get(task) for where, task in columns]
        lines.append(_row([f"`{name}`", f"{entry['parameters'] / 1e6:.2f} M", *map(_headline, cells)]))
    compared = {(c["b"], c["where"], c["task"]): c for c in results["comparisons"]}
    if compared:
        lines += ["", f"`{first}` minus another variant, paired by seed:", ""]
        lines += [_row(["against", *heads]), _row(["---"] * (1 + len(columns)))]
        for name in list(variants)[1:]:
            cells = [compared.get((name, where, task)) for where, task in columns]
            lines.append(_row([f"`{name}`", *map(_difference, cells)]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _headline(score: dict | None) -> str:
    if score is None:
        return "-"
    low, high = score["ci95"]
    return f"{score['value']:.3f} [{low:.3f}, {high:.3f}]"


def _difference(comparison: dict | None) -> str:
    if comparison is None:
        return "-"
    low, high = comparison["ci95"]
    return f"{comparison['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
