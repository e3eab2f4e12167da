"""Figures of what a study measures inside networks: conflict of gradients, probes, interventions."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from synthmtl.report.figures import BLUE, INK, ORANGE, PURPLE, STYLE, VERMILION, save_figure, written
from synthmtl.report.panels import legend_below, panels
from synthmtl.report.score_figures import LOWER_IS_BETTER

_PLACES = {"donor": "donor", "message": "message", "receiver_before": "before", "receiver_after": "after"}
_TARGETS = {"expression": BLUE, "subject": VERMILION, "yaw": ORANGE, "light": PURPLE}


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


def _group_order(conflicts: Iterable[Sequence[Mapping]]) -> list[str]:
    names = dict.fromkeys(one["group"] for series in conflicts for one in series)

    def depth(name: str) -> tuple:
        kind, _, number = name.partition(" ")
        place = {"stem": -1, "joint": 99}.get(kind, int(number) if number.isdigit() else 50)
        return place, kind == "unit", name

    return sorted(names, key=depth)


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
                values = [entry["metrics"].get(f"probe/{stage}/{place}/{target}") for place in _PLACES]
                points = [(i, value["mean"]) for i, value in enumerate(values) if value is not None]
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=color, label=target)
            axes.set(ylim=(-0.03, 1.03), xlim=(-0.3, 3.3), title=entry["method"])
            axes.set_xticks(range(len(_PLACES)), _PLACES.values(), rotation=35, ha="right", rotation_mode="anchor")
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
            text = written(image[i, j], "+.1f")
            axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=color)
        axes.set_xticks(
            range(len(shown)), [e["method"] for e in shown], rotation=40, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(names)), [name.replace("/", " ") for name in names])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return save_figure(figure, path)
