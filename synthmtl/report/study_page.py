"""A study as one HTML file that needs neither network nor JavaScript, with a summary written from the numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from synthmtl.files import write_text
from synthmtl.report.figures import written
from synthmtl.report.page import embedded, template, verdict
from synthmtl.report.score_figures import LOWER_IS_BETTER, TITLES
from synthmtl.report.study_figures import StudyFigure, by_condition, condition_title
from synthmtl.report.study_schema import validate_study

FOCUS = "leaky"
"""The unit whose worth the suite is to show."""

SECTIONS = {
    # kind of a figure: (section of the page, caption)
    "gains": ("gain", "relative gain over single tasks"),
    "scores": ("gain", "scores"),
    "rho": ("rho", "over the nuisance correlation of the training faces, means and 95 % intervals"),
    "labels_per_class": ("labels", "over the number of labels that recognition saw, means and 95 % intervals"),
    "conflict": ("conflict", "cosine of the tasks' gradients by part of the encoder and training step"),
    "affinity": ("affinity", "look-ahead affinity over training, mean and 95 % interval over seeds"),
    "gates": ("gates", "mean openness of the gates after training, with 95 % intervals over seeds"),
    "gates_time": ("gates", "openness over training, mean and 95 % interval over seeds"),
    "gates_channels": (
        "gates",
        "openness of single channels after training, in order of each seed's, mean over seeds",
    ),
    "gates_expressions": ("gates", "openness on faces of an expression less the mean over expressions"),
    "gates_maps": (
        "maps",
        "where gates are open, laid over rendered faces of new people; colors run over the range below each head",
    ),
    "read": ("filtering", "read in the features that the first task is predicted from"),
    "selectivity": (
        "filtering",
        "selectivity of the message against the donor, and of the receiver after against before",
    ),
    "probes": (
        "filtering",
        "read at the deepest stage: in donor and message, in the receiver before and after",
    ),
    "interventions": (
        "interventions",
        "change of the first task's score in hundredths when gates are shut, opened or swapped",
    ),
}
COLUMNS = ("balanced_accuracy", "expression_read", "nuisance_read")
"""Metrics of the tables beside the tasks' own."""


def write_study_page(results: dict, out: Path, figures: Sequence[StudyFigure] = ()) -> Path:
    """Write a study as one HTML file with its figures inside.

    Args:
        results: as ``results.json`` holds them.
        out: the file to write.
        figures: of ``study_figures.draw_study_figures``.

    Raises:
        ValueError: if the results do not keep their contract.
    """
    validate_study(results)
    placed: dict[str, list[dict]] = {}
    for figure in figures:
        section, caption = placement(figure.kind)
        # Only a caption starts with a capital: that of ρ is Ρ, which reads as the Latin P.
        title = f"{figure.subject}: {caption}" if figure.subject else caption[0].upper() + caption[1:]
        placed.setdefault(section, []).append({"title": title, "data": embedded(figure.path)})
    tables = by_condition(results["summary"])
    columns = dict.fromkeys([*(task["metric"] for task in results["tasks"]), *COLUMNS])
    page = template("study.html.jinja").render(
        results=results,
        smoke=results["preset"] == "smoke",
        summary=study_summary(results),
        findings=study_findings(results),
        figures=placed,
        tables=tables,
        conditions={name: condition_title(entries[0]) for name, entries in tables.items()},
        columns={name: TITLES[name] for name in columns if any(name in e["metrics"] for e in results["summary"])},
        against={name: focus_rows(results, name) for name in tables},
        focus=FOCUS,
        turned={"above": "below", "below": "above"},
        lower_is_better=LOWER_IS_BETTER,
        titles=TITLES,
        tasks=[task["task"].replace("_", " ") for task in results["tasks"]],
    )
    out = Path(out)
    write_text(out, page)
    return out


def placement(kind: str) -> tuple[str, str]:
    """The section of a figure, and its caption."""
    if kind in SECTIONS:
        return SECTIONS[kind]
    if kind.startswith("interventions_"):
        title = TITLES[kind.removeprefix("interventions_")]
        return "interventions", f"change of {title} in hundredths when gates are shut, opened or swapped"
    title = TITLES[kind.removeprefix("pairs_")]
    said = "every method against every other; blue: the row's method is better, bold: the interval leaves out zero"
    return "pairs", f"{title}, {said}"


def focus_rows(results: dict, condition: str) -> dict[str, dict[str, dict]]:
    """The focus less each other method under one condition: ``{other: {metric: {difference, ci95}}}``."""
    found: dict[str, dict[str, dict]] = {}
    for one in results["comparisons"]:
        if one["condition"] != condition or FOCUS not in (one["a"], one["b"]):
            continue
        difference, ci95, other = one["difference"], one["ci95"], one["b"]
        if one["b"] == FOCUS:
            difference, other = -difference, one["a"]
            ci95 = None if ci95 is None else [-ci95[1], -ci95[0]]
        found.setdefault(other, {})[one["metric"]] = {"difference": difference, "ci95": ci95}
    return found


def study_summary(results: dict) -> list[str]:
    """What was done, in sentences."""
    cells, failed = results["cells"], results["failed"]
    methods = {entry["method"] for entry in results["summary"]}
    seeds = {cell["seed"] for cell in cells}
    tested = results["data"].get("test_faces", sum(results["data"]["test_counts"].values()))
    apart = " whose light, pose and person do not go with the expression" if results["data"]["correlation"] else ""
    sentences = [
        f"{len(cells)} of {len(cells) + len(failed)} cells were trained: {len(methods)} methods, {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'}, tested on {tested:,} faces{apart}."
    ]
    if failed:
        sentences.append(f"{len(failed)} failed and are left out of everything below.")
    if results["preset"] == "smoke":
        sentences.append("This was a smoke run: it proves that everything works, and its numbers mean nothing.")
    return sentences


def study_findings(results: dict) -> list[tuple[str, str]]:
    """Each condition's title, and what its numbers say; nothing of a smoke run."""
    findings = []
    for condition, entries in by_condition(results["summary"]).items():
        rows = focus_rows(results, condition)
        parts = [_best(task, entries, rows) for task in results["tasks"]]
        said = "; ".join(part for part in parts if part)
        if said and results["preset"] != "smoke":
            findings.append((condition_title(entries[0]), f"{said}."))
    return findings


def _best(task: dict, entries: Sequence[Mapping], rows: dict) -> str:
    """The best mean of a task's score, and what the focus was better and worse than in it."""
    metric, lower = task["metric"], task["lower_is_better"]
    having = [entry for entry in entries if metric in entry["metrics"]]
    if not having:
        return ""
    best = (min if lower else max)(having, key=lambda entry: entry["metrics"][metric]["mean"])
    title = TITLES[metric][0].lower() + TITLES[metric][1:]
    said = f"the {'lowest' if lower else 'highest'} mean {title} was {written(best['metrics'][metric]['mean'], '.3f')}"
    said += f" ({best['method']})"
    sides = ("below", "above") if lower else ("above", "below")
    return f"{said}, where {FOCUS} {_told(rows, metric, sides)}" if rows else said


def _told(rows: dict, metric: str, sides: tuple[str, str]) -> str:
    """What the focus was above and below of, the better of the two ``sides`` first, and what it cannot be told from."""
    groups: dict[str, list[str]] = {"above": [], "below": [], "open": []}
    for other, found in rows.items():
        if metric in found:
            ci95 = found[metric]["ci95"]
            groups["open" if ci95 is None else verdict(ci95)].append(other)
    parts = [f"was {side} {_joined(groups[side])}" for side in sides if groups[side]]
    if groups["open"]:
        parts.append(f"could not be told from {_joined(groups['open'])}")
    return " and ".join(parts) or "was not compared"


def _joined(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
