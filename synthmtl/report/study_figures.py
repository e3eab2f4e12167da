"""The figures of a study, drawn from ``results.json`` as ``study_schema`` describes it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from synthmtl.report.figures import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    STYLE,
    VERMILION,
    save_figure,
)
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
from synthmtl.report.panels import legend_below, panels

TITLES = {
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "synthesis_error": "Synthesis error",
    "mean_f1": "Action units, mean F1",
    "nme": "Landmarks, NME",
    "ccc": "Affect, CCC",
    "expression_read": "Expression read",
    "nuisance_read": "Nuisance read",
    "selectivity_message": "Selectivity of the message",
    "selectivity_receiver": "Selectivity of the exchange",
}
"""How a metric of a study is written for readers."""

LOWER_IS_BETTER = ("synthesis_error", "nme", "nuisance_read")
"""Of these a difference below zero is a gain."""

PLACES = {"donor": "donor", "message": "message", "receiver_before": "before", "receiver_after": "after"}
_TARGETS = {"expression": BLUE, "subject": VERMILION, "yaw": ORANGE, "light": PURPLE}
_COLORS = (INK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GRAY)
_MARKERS = "osD^vPX*"

Value = tuple[float | None, list[float] | None, list[float | None]]
"""Mean, interval or None, and single seeds."""


_READ = ("expression_read", "nuisance_read")
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
            "read": partial(metrics_figure, entries, _READ),
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


def dots_figure(rows: Sequence[str], panels: Mapping[str, Sequence[Value]], path: Path, *, zero: bool = False) -> Path:
    """A panel for each quantity, a row for each method: mean (dot), 95 % interval (line), single seeds (small dots)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 2.4 * len(panels), 0.8 + 0.3 * len(rows)), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, values) in zip(grid, panels.items(), strict=True):
            for row, (mean, ci95, seeds) in enumerate(values):
                if mean is None:
                    axes.annotate("–", (0.5, row), xycoords=("axes fraction", "data"), ha="center", va="center")
                    continue
                if ci95 is not None:
                    axes.hlines(row, *ci95, color=BLUE, linewidth=2.2)
                single = [value for value in seeds if value is not None]
                axes.plot(single, [row + 0.27] * len(single), ".", color=BLUE, markersize=4, alpha=0.65)
                axes.plot(mean, row, "o", color=BLUE, markersize=6.5, markeredgecolor="white")
            if zero:
                axes.axvline(0, color=GRAY, linewidth=0.8, zorder=0)
            axes.set_title(title)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
        grid[0].set_yticks(range(len(rows)), rows)
        grid[0].set_ylim(len(rows) - 0.4, -0.6)
        return save_figure(figure, path)


def gains_figure(entries: Sequence[Mapping], path: Path) -> Path | None:
    """Relative gain of each task and overall over single tasks, in percent."""
    shown = [entry for entry in entries if entry["gain"] is not None]
    if not shown:
        return None

    def value(gain: Mapping) -> Value:
        percent = [None if seed is None else 100 * seed for seed in gain["per_seed"]]
        mean = None if gain["delta"] is None else 100 * gain["delta"]
        return mean, None if gain["ci95"] is None else [100 * end for end in gain["ci95"]], percent

    panels = {
        f"Δ {task.replace('_', ' ')} (%)": [value(entry["gain"]["tasks"][task]) for entry in shown]
        for task in shown[0]["gain"]["tasks"]
    } | {"Δ overall (%)": [value(entry["gain"]["overall"]) for entry in shown]}
    return dots_figure([entry["method"] for entry in shown], panels, path, zero=True)


def metrics_figure(entries: Sequence[Mapping], metrics: Sequence[str], path: Path) -> Path | None:
    """Metrics of each method; those that no method has are left out."""
    known = [metric for metric in metrics if any(metric in entry["metrics"] for entry in entries)]
    if not known:
        return None

    def value(entry: Mapping, metric: str) -> Value:
        found = entry["metrics"].get(metric)
        return (None, None, []) if found is None else (found["mean"], found["ci95"], found["per_seed"])

    panels = {TITLES[metric]: [value(entry, metric) for entry in entries] for metric in known}
    return dots_figure([entry["method"] for entry in entries], panels, path)


def pairs_figure(entries: Sequence[Mapping], comparisons: Sequence[Mapping], metric: str, path: Path) -> Path | None:
    """Every method (row) less every other (column), in hundredths; bold where the interval leaves out zero."""
    names = [entry["method"] for entry in entries]
    found = {(one["a"], one["b"]): one for one in comparisons if one["metric"] == metric}
    if not found:
        return None
    matrix, clear = np.full((len(names),) * 2, np.nan), np.zeros((len(names),) * 2, bool)
    for (a, b), one in found.items():
        i, j = names.index(a), names.index(b)
        matrix[i, j], matrix[j, i] = 100 * one["difference"], -100 * one["difference"]
        clear[i, j] = clear[j, i] = one["ci95"] is not None and (one["ci95"][0] > 0 or one["ci95"][1] < 0)
    limit = max(float(np.nanmax(np.abs(matrix))), 1e-6)
    # Blue is good for the method in the row, whether the metric is a score or an error.
    sign = -1 if metric in LOWER_IS_BETTER else 1
    with matplotlib.rc_context(STYLE):
        side = 2.0 + 0.48 * len(names)
        figure = Figure(figsize=(side + 0.6, side - 0.4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sign * matrix, cmap="RdBu", vmin=-limit, vmax=limit)
        for i, j in zip(*np.nonzero(~np.isnan(matrix)), strict=True):
            light = abs(matrix[i, j]) < 0.6 * limit
            axes.text(
                j, i, f"{matrix[i, j]:+.1f}".replace("-", "−"), ha="center", va="center", fontsize=7.5,
                color=INK if light else "white", weight="bold" if clear[i, j] else "normal",
            )  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set_title(f"{TITLES[metric]}: row less column (hundredths)")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return save_figure(figure, path)


def conflict_figure(entries: Sequence[Mapping], path: Path) -> Path | None:
    """Cosine of two tasks' gradients by part of the encoder (rows) and training step (columns).

    A panel for each method and, if there are more than two tasks, pair of them.
    """
    shown: dict[tuple, list[Mapping]] = {}
    for entry in entries:
        for one in entry["conflict"]:
            shown.setdefault((entry["method"], *one["tasks"]), []).append(one)
    if not shown:
        return None
    order = _group_order(shown.values())
    values = [abs(c) for series in shown.values() for one in series for c in one["cosine"]]
    several = len({key[1:] for key in shown}) > 1
    limit = max(0.1, float(np.quantile(values, 0.98)))
    with matplotlib.rc_context(STYLE):
        figure, grid = panels(len(shown), 2.6, 0.7 + 0.2 * len(order))
        for axes, ((method, *pair), series) in zip(grid, shown.items(), strict=False):
            steps = sorted({step for one in series for step in one["steps"]})
            image = np.full((len(order), len(steps)), np.nan)
            for one in series:
                columns = [steps.index(step) for step in one["steps"]]
                image[order.index(one["group"]), columns] = one["cosine"]
            ends = (steps[0], steps[-1] + (steps[1] - steps[0] if len(steps) > 1 else 1))
            shades = axes.imshow(
                image, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest",
                extent=(*ends, len(order) - 0.5, -0.5),
            )  # fmt: skip
            axes.set_facecolor("#EEEEEE")
            axes.set_title(f"{method}\n{', '.join(pair).replace('_', ' ')}" if several else method)
            axes.set_yticks(range(len(order)), order)
            axes.tick_params(axis="y", length=0)
            axes.set_xlabel("step")
        figure.colorbar(shades, ax=list(grid), label="cosine (red: conflict)", shrink=0.8)
        return save_figure(figure, path)


def probes_figure(entries: Sequence[Mapping], path: Path) -> Path | None:
    """What a linear probe reads in the donor, in the message, and in the receiver before and after the exchange.

    At the deepest stage, toward the first task; of more than two tasks, from the second.
    """
    shown = []
    for entry in entries:
        stages = {
            int(m.split("/")[1]) for m in entry["metrics"] if m.startswith("probe/") and m.split("/")[1].isdigit()
        }
        if stages and f"probe/{max(stages)}/donor/expression" in entry["metrics"]:
            shown.append((entry, max(stages)))
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, grid = panels(len(shown), 2.0, 1.7)
        for axes, (entry, stage) in zip(grid, shown, strict=False):
            for target, color in _TARGETS.items():
                values = [entry["metrics"].get(f"probe/{stage}/{place}/{target}") for place in PLACES]
                points = [(i, value["mean"]) for i, value in enumerate(values) if value is not None]
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=color, label=target)
            axes.set(ylim=(-0.03, 1.03), xlim=(-0.3, 3.3), title=entry["method"])
            axes.set_xticks(range(len(PLACES)), PLACES.values(), rotation=35, ha="right", rotation_mode="anchor")
            axes.grid(axis="y")
        legend_below(figure)
        return save_figure(figure, path)


def interventions_figure(entries: Sequence[Mapping], metric: str, path: Path) -> Path | None:
    """Change of a score by each intervention (rows) in each gated method (columns), in hundredths."""
    prefix, suffix = "intervention/", f"/{metric}"
    shown = [entry for entry in entries if any(m.startswith(prefix) for m in entry["metrics"])]
    if not shown:
        return None
    names = dict.fromkeys(
        m[len(prefix) : -len(suffix)]
        for entry in shown
        for m in entry["metrics"]
        if m.startswith(prefix) and m.endswith(suffix)
    )
    image = np.full((len(names), len(shown)), np.nan)
    for j, entry in enumerate(shown):
        for i, name in enumerate(names):
            found = entry["metrics"].get(f"{prefix}{name}{suffix}")
            image[i, j] = np.nan if found is None else 100 * found["mean"]
    limit = max(float(np.nanmax(np.abs(image), initial=0)), 1e-6)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 0.75 * len(shown), 1.2 + 0.22 * len(names)), layout="constrained")
        axes = figure.subplots()
        sign = -1 if metric in LOWER_IS_BETTER else 1
        axes.imshow(sign * image, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        for i, j in zip(*np.nonzero(~np.isnan(image)), strict=True):
            color = INK if abs(image[i, j]) < 0.6 * limit else "white"
            text = f"{image[i, j]:+.1f}".replace("-", "−")
            axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=color)
        axes.set_xticks(
            range(len(shown)), [e["method"] for e in shown], rotation=40, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(names)), [name.replace("/", " ") for name in names])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return save_figure(figure, path)


def curves_figure(entries: Sequence[Mapping], axis: str, scores: Sequence[str], path: Path) -> Path:
    """Curves over ``rho`` or ``labels_per_class`` with 95 % intervals: a line each method, a panel each metric."""
    metrics = [metric for metric in (*scores, *_READ) if any(metric in entry["metrics"] for entry in entries)]
    methods = list(dict.fromkeys(entry["method"] for entry in entries))
    # Numbers of labels stand side by side, whatever their distance; all of them come last.
    places = sorted({e[axis] for e in entries}, key=lambda value: math.inf if value is None else value)
    with matplotlib.rc_context(STYLE):
        size = (7.2, 2.3 * (-(-len(metrics) // 2)) + 0.2 * (-(-len(methods) // 5)))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(-(-len(metrics) // 2), 2, squeeze=False).ravel()
        for axes in grid[len(metrics) :]:
            axes.set_axis_off()
        for axes, metric in zip(grid, metrics, strict=False):
            for i, method in enumerate(methods):
                having = [e for e in entries if e["method"] == method and metric in e["metrics"]]
                having.sort(key=lambda e: places.index(e[axis]))
                x = np.array([e["rho"] if axis == "rho" else places.index(e[axis]) for e in having])
                values = np.array([e["metrics"][metric]["mean"] for e in having], float)
                ends = np.array([e["metrics"][metric]["ci95"] or (math.nan, math.nan) for e in having], float).T
                # Side by side, so that intervals do not cover each other.
                x = x + 0.012 * np.ptp(x) * (i - (len(methods) - 1) / 2)
                axes.errorbar(
                    x, values, abs(ends - values), color=_COLORS[i % len(_COLORS)], elinewidth=0.6, linewidth=1.2,
                    linestyle=("-", "--", ":")[i // len(_COLORS) % 3], marker=_MARKERS[i % len(_MARKERS)],
                    markersize=4, label=method,
                )  # fmt: skip
            axes.set(title=TITLES[metric], xlabel="ρ" if axis == "rho" else "labels a class")
            if axis != "rho":
                axes.set_xticks(range(len(places)), ["all" if place is None else str(place) for place in places])
            axes.grid()
        legend_below(figure, columns=5)
        return save_figure(figure, path)


def _group_order(conflicts: Iterable[Sequence[Mapping]]) -> list[str]:
    names = dict.fromkeys(one["group"] for series in conflicts for one in series)

    def depth(name: str) -> tuple:
        kind, _, number = name.partition(" ")
        place = {"stem": -1, "joint": 99}.get(kind, int(number) if number.isdigit() else 50)
        return place, kind == "unit", name

    return sorted(names, key=depth)
