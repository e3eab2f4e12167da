"""The figures of a study, drawn from ``results.json`` as ``study_schema`` describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from synthmtl.report.gate_figures import (
    GateMaps,
    affinity_figure,
    channels_figure,
    expressions_figure,
    gate_kinds,
    maps_figure,
    stages_figure,
    time_figure,
)
from synthmtl.report.measure_figures import conflict_figure, interventions_figure, probes_figure
from synthmtl.report.score_figures import READ, curves_figure, gains_figure, metrics_figure, pairs_figure

_SELECTED = ("selectivity_message", "selectivity_receiver")


@dataclass(frozen=True)
class StudyFigure:
    """A figure and what it is of.

    Attributes:
        kind: by which the page knows its section and caption.
        subject: under what condition, or of what, in words; empty = of the whole study.
        path: PNG file.
    """

    kind: str
    subject: str
    path: Path


def draw_study_figures(results: Mapping, folder: Path, maps: Sequence[GateMaps] = ()) -> list[StudyFigure]:
    """Every figure that the results allow, into ``folder``, as ``KIND-CONDITION.png``.

    Args:
        results: as ``results.json`` holds them.
        folder: is made.
        maps: of gates over faces; rendered ones, if the figures are to be shown to others.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = results["summary"]
    scores = [task["metric"] for task in results["tasks"]]
    tasks = [task["task"] for task in results["tasks"]]
    ways = gate_kinds(tasks)
    drawn = curves(summary, scores, folder)
    for condition, entries in by_condition(summary).items():
        compared = [one for one in results["comparisons"] if one["condition"] == condition]
        kinds = {
            "gains": partial(gains_figure, entries),
            "scores": partial(metrics_figure, entries, scores),
            **{f"pairs_{metric}": partial(pairs_figure, entries, compared, metric) for metric in scores},
            "conflict": partial(conflict_figure, entries),
            "affinity": partial(affinity_figure, entries),
            "gates": partial(stages_figure, entries, kinds=ways),
            "gates_time": partial(time_figure, entries, kinds=ways),
            "gates_channels": partial(channels_figure, entries, kinds=ways),
            "gates_expressions": partial(expressions_figure, entries, kinds=ways),
            "read": partial(metrics_figure, entries, READ),
            "selectivity": partial(metrics_figure, entries, _SELECTED),
            "probes": partial(probes_figure, entries),
            "interventions": partial(interventions_figure, entries, scores[0]),
        }
        if "synthesis" not in tasks:
            kinds |= {f"interventions_{m}": partial(interventions_figure, entries, m) for m in scores[1:]}
        said = condition_title(entries[0])
        for kind, draw in kinds.items():
            path = draw(folder / f"{kind}-{condition}.png")
            if path is not None:
                drawn.append(StudyFigure(kind, said, path))
        for one in (one for one in maps if one.condition == condition):
            name, subject = f"gates_maps-{condition}-{one.method}", f"{said}, {one.method}, seed {one.seed}"
            for i, task in enumerate(tasks if len(tasks) > 2 else ()):
                toward = {way: how for way, how in ways.items() if way[0].endswith(f"_to_{i}")}
                if not any(key.split("/")[1] == direction for key in one.maps for direction, _ in toward):
                    continue  # a unit may have gates toward some tasks only
                path = maps_figure(one, folder / f"{name}-{task}.png", toward)
                drawn.append(StudyFigure("gates_maps", f"{subject}, toward {task.replace('_', ' ')}", path))
            if len(tasks) == 2:
                drawn.append(StudyFigure("gates_maps", subject, maps_figure(one, folder / f"{name}.png", ways)))
    return drawn


def by_condition(entries: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """Entries of a summary by the name of their condition, in order."""
    found: dict[str, list[Mapping]] = {}
    for entry in entries:
        found.setdefault(entry["condition"], []).append(entry)
    return found


def condition_title(one: Mapping, *, without: str = "") -> str:
    """A condition in words, perhaps without one of its parts."""
    parts = {"rho": f"ρ = {one['rho']:g}"}
    if one["labels_per_class"] is not None:
        parts["labels_per_class"] = f"{one['labels_per_class']} labels a class"
    if one["schedule"] != "joint":
        parts["schedule"] = "synthesis first"
    return ", ".join(text for name, text in parts.items() if name != without)


def curves(summary: Sequence[Mapping], scores: Sequence[str], folder: Path) -> list[StudyFigure]:
    """Figures over the nuisance correlation and over the number of labels, the rest of the condition being fixed."""
    drawn = []
    for axis in ("rho", "labels_per_class"):
        groups: dict[tuple, list[Mapping]] = {}
        for entry in summary:
            rest = tuple(entry[name] for name in ("rho", "labels_per_class", "schedule") if name != axis)
            groups.setdefault(rest, []).append(entry)
        for rest, entries in groups.items():
            if len({entry[axis] for entry in entries}) > 1:
                name = "-".join([axis, *(f"{value:g}" if isinstance(value, float) else str(value) for value in rest)])
                path = curves_figure(entries, axis, scores, folder / f"over-{name}.png")
                drawn.append(StudyFigure(axis, condition_title(entries[0], without=axis), path))
    return drawn
