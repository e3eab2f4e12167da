"""Figures of a study's scores: of each method, of one against another, over the conditions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from synthmtl.report.figures import BLUE, GRAY, GREEN, INK, ORANGE, PURPLE, SKY, STYLE, VERMILION, save_figure, written
from synthmtl.report.panels import legend_below

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

READ = ("expression_read", "nuisance_read")
"""What probes read at the features of the classifier."""

_COLORS = (INK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GRAY)
_MARKERS = "osD^vPX*"

Value = tuple[float | None, list[float] | None, list[float | None]]
"""Mean, interval or None, and single seeds."""


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
                j, i, written(matrix[i, j], "+.1f"), ha="center", va="center", fontsize=7.5,
                color=INK if light else "white", weight="bold" if clear[i, j] else "normal",
            )  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set_title(f"{TITLES[metric]}: row less column (hundredths)")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return save_figure(figure, path)


def curves_figure(entries: Sequence[Mapping], axis: str, scores: Sequence[str], path: Path) -> Path:
    """Curves over ``rho`` or ``labels_per_class`` with 95 % intervals: a line each method, a panel each metric."""
    metrics = [metric for metric in (*scores, *READ) if any(metric in entry["metrics"] for entry in entries)]
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
