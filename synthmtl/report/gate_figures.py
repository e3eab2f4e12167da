"""How far gates are open: by stage, over training, by channel and expression, and laid over faces."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from synthmtl.report.figures import BLUE, GRAY, GREEN, INK, ORANGE, PURPLE, SKY, STYLE, VERMILION, save_figure
from synthmtl.report.panels import draw_series, ends_of, legend_below, panels

Kinds = Mapping[tuple[str, str], tuple[str, str, str]]
"""Direction and gate → how they are written, color and line."""

_COLORS = (BLUE, ORANGE, VERMILION, GREEN, PURPLE, SKY, INK, GRAY)
_GATES = {"pass": ("r", "-"), "take": ("z", ":")}


def gate_kinds(tasks: Sequence[str]) -> dict[tuple[str, str], tuple[str, str, str]]:
    """How the gates between ``tasks``, in the order of the network's, are written and drawn; see :data:`Kinds`.

    Between two tasks a gate is named by who receives.
    """
    names = [task.replace("_", " ") for task in tasks]
    pairs = [(donor, receiver) for receiver in range(len(names)) for donor in range(len(names)) if donor != receiver]
    found = {}
    for (donor, receiver), color in zip(pairs, _colors(len(pairs)), strict=True):
        way = f"to {names[receiver]}" if len(names) == 2 else f"{names[donor]} to {names[receiver]}"
        for gate, (letter, line) in _GATES.items():
            found[f"{donor}_to_{receiver}", gate] = (f"{letter} {way}", color, line)
    return found


def _colors(count: int) -> list[str]:
    """A color for each of ``count`` directions."""
    if count <= len(_COLORS):
        return list(_COLORS[:count])
    return [matplotlib.colors.to_hex(color) for color in matplotlib.colormaps["hsv"](np.arange(count) / count)]


KINDS: Kinds = gate_kinds(("recognition", "synthesis"))
"""The gates between recognition and synthesis."""

_LEAST_RANGE = 0.02  # of openness, so that a map without any structure does not look as if it had some


def draw_gate_figures(report: Mapping, folder: Path) -> dict[str, Path]:
    """The gates between recognition and synthesis that ``report.json`` tells of, under the names that the page places.

    Without such gates there is no figure.
    """
    entries = [
        entry | {"gates": [g | {"ci95": g["range"]} for g in entry["gates"] if (g["direction"], g["gate"]) in KINDS]}
        for entry in report.get("gates", [])
    ]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "gates": stages_figure(entries, folder / "gates.png"),
        "gates_expressions": expressions_figure(entries, folder / "gates_expressions.png"),
    }
    return {name: path for name, path in drawn.items() if path is not None}


@dataclass(frozen=True)
class GateMaps:
    """Where the gates of one network are open on F faces.

    Attributes:
        condition, method, seed: of the network.
        faces: (F, C, H, W) uint8.
        titles: what each face shows.
        maps: ``STAGE/DIRECTION/GATE`` → (F, H, W) in [0, 1].
    """

    condition: str
    method: str
    seed: int
    faces: np.ndarray
    titles: Sequence[str]
    maps: Mapping[str, np.ndarray]


def stages_figure(entries: Sequence[Mapping], path: Path, kinds: Kinds = KINDS) -> Path | None:
    """How far r (pass) and z (take) are open at each stage, by direction."""
    shown = [entry for entry in entries if entry["gates"]]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, grid = panels(len(shown), 2.0, 1.7)
        for axes, entry in zip(grid, shown, strict=False):
            for (direction, gate), (label, color, line) in kinds.items():
                found = [g for g in entry["gates"] if g["direction"] == direction and g["gate"] == gate]
                stages, means = [g["stage"] for g in found], [g["mean"] for g in found]
                axes.plot(stages, means, line, marker="o", markersize=4, color=color, label=label)
                known = [g for g in found if g["ci95"] is not None]
                axes.vlines([g["stage"] for g in known], *ends_of([g["ci95"] for g in known]), color=color, linewidth=1)
            axes.set(ylim=(-0.03, 1.03), title=entry["method"], xlabel="stage")
            axes.set_xticks(sorted({g["stage"] for g in entry["gates"]}))
            axes.grid(axis="y")
        legend_below(figure)
        return save_figure(figure, path)


def time_figure(entries: Sequence[Mapping], path: Path, kinds: Kinds = KINDS) -> Path | None:
    """Openness over training: a row each method, a panel each stage; mean (line) and interval (band) over seeds."""
    shown = [entry for entry in entries if entry["gates_over_time"]]
    return _by_stage(shown, "gates_over_time", path, kinds, xlabel="step") if shown else None


def channels_figure(entries: Sequence[Mapping], path: Path, kinds: Kinds = KINDS) -> Path | None:
    """Openness of single channels after training, from the most shut to the most open one."""
    shown = [entry for entry in entries if entry["gates"]]
    return _by_stage(shown, "gates", path, kinds, xlabel="share of channels") if shown else None


def _by_stage(entries: Sequence[Mapping], key: str, path: Path, kinds: Kinds, *, xlabel: str) -> Path:
    stages = sorted({one["stage"] for entry in entries for one in entry[key]})
    with matplotlib.rc_context(STYLE):
        size = (0.9 + 1.9 * len(stages), 0.8 + 1.35 * len(entries))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(entries), len(stages), squeeze=False, sharex=key == "gates", sharey=True)
        for row, entry in zip(grid, entries, strict=True):
            for axes, stage in zip(row, stages, strict=True):
                for (direction, gate), (label, color, line) in kinds.items():
                    for one in entry[key]:
                        if (one["stage"], one["direction"], one["gate"]) == (stage, direction, gate):
                            _draw(axes, one, color, line, label)
                axes.set(ylim=(-0.03, 1.03))
                axes.grid(axis="y")
            row[0].set_ylabel(entry["method"])
        for axes, stage in zip(grid[0], stages, strict=True):
            axes.set_title(f"stage {stage}")
        for axes in grid[-1]:
            axes.set_xlabel(xlabel)
        legend_below(figure)
        return save_figure(figure, path)


def _draw(axes: matplotlib.axes.Axes, one: Mapping, color: str, line: str, label: str) -> None:
    if "steps" not in one:
        axes.plot(
            np.linspace(0, 1, len(one["channels"])), one["channels"], line, color=color, linewidth=1.2, label=label
        )
        return
    draw_series(axes, one, color=color, line=line, label=label)


def expressions_figure(entries: Sequence[Mapping], path: Path, kinds: Kinds = KINDS) -> Path | None:
    """How much farther than on average each gate (row) is open on faces of each expression (column), in hundredths."""
    shown = [entry for entry in entries if entry["gates"]]
    if not shown:
        return None
    rows = [(stage, *kind) for stage in sorted({g["stage"] for e in shown for g in e["gates"]}) for kind in kinds]
    names = list(shown[0]["gates"][0]["expressions"])
    images = []
    for entry in shown:
        image = np.full((len(rows), len(names)), np.nan)
        for gate in entry["gates"]:
            values = np.array([gate["expressions"][name] for name in names], dtype=float)  # None becomes NaN
            image[rows.index((gate["stage"], gate["direction"], gate["gate"]))] = 100 * (values - np.nanmean(values))
        images.append(image)
    limit = max(1.0, max(float(np.nanmax(np.abs(image))) for image in images))
    with matplotlib.rc_context(STYLE):
        figure, grid = panels(len(shown), 2.6, 0.9 + 0.16 * len(rows))
        for axes, entry, image in zip(grid, shown, images, strict=False):
            shades = axes.imshow(image, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
            axes.set_facecolor("#EEEEEE")
            axes.set_title(entry["method"])
            axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
            labels = [f"{stage} {kinds[direction, gate][0]}" for stage, direction, gate in rows]
            axes.set_yticks(range(len(rows)), labels, fontsize=6.5)
            axes.tick_params(length=0)
        figure.colorbar(shades, ax=list(grid), label="hundredths (blue: more open)", shrink=0.8)
        return save_figure(figure, path)


def maps_figure(found: GateMaps, path: Path, kinds: Kinds = KINDS) -> Path:
    """Gates laid over faces: a row each face, a column each stage, direction and gate.

    Colors run from the least (dark) to the greatest openness (light) in a column, which stand below its head.
    """
    faces, size = found.faces, found.faces.shape[-1]
    gray = faces.mean(1) / 255
    keys = [f"{s}/{d}/{g}" for s in sorted({key.split("/")[0] for key in found.maps}) for d, g in kinds]
    keys = [key for key in keys if key in found.maps]
    colors = matplotlib.colormaps["viridis"]
    plain = np.moveaxis(faces, 1, -1) / 255
    columns, heads = [np.broadcast_to(plain, (*plain.shape[:3], 3))], ["face"]
    for key in keys:
        values = found.maps[key]
        low, high = float(values.min()), float(values.max())
        shades = colors((values - low) / max(high - low, _LEAST_RANGE))[..., :3]
        columns.append(0.5 * gray[..., None] + 0.5 * shades)
        stage, direction, gate = key.split("/")
        heads.append(f"stage {stage}\n{textwrap.fill(kinds[direction, gate][0], 17)}\n{low:.2f} to {high:.2f}")
    sheet = np.ones((len(faces) * (size + 2), len(columns) * (size + 2), 3))
    for c, column in enumerate(columns):
        for r, face in enumerate(column):
            sheet[r * (size + 2) : r * (size + 2) + size, c * (size + 2) : c * (size + 2) + size] = face
    with matplotlib.rc_context(STYLE):
        width = 0.9 + 0.86 * len(columns)
        figure = Figure(figsize=(width, 0.9 + 0.86 * len(faces)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sheet, interpolation="nearest")
        middle = (size - 1) / 2
        axes.set_xticks([middle + c * (size + 2) for c in range(len(columns))], heads, fontsize=6)
        axes.set_yticks([middle + r * (size + 2) for r in range(len(faces))], found.titles, fontsize=7)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return save_figure(figure, path)


def affinity_figure(entries: Sequence[Mapping], path: Path) -> Path | None:
    """Look-ahead affinity over training: what a step on one task does to another's loss; above zero it helps."""
    shown = [entry for entry in entries if entry["affinity"]]
    if not shown:
        return None
    pairs = dict.fromkeys((one["from"], one["to"]) for entry in shown for one in entry["affinity"])
    ways = [way for way in pairs if way[0] != way[1]]
    colors = [ORANGE, BLUE] if len(ways) <= 2 else _colors(len(ways))
    with matplotlib.rc_context(STYLE):
        figure, grid = panels(len(shown), 2.4, 1.6)
        for axes, entry in zip(grid, shown, strict=False):
            for one in entry["affinity"]:
                if (way := (one["from"], one["to"])) in ways:
                    label = f"a step on {way[0]}, for {way[1]}".replace("_", " ")
                    draw_series(axes, one, color=colors[ways.index(way)], label=label)
            axes.axhline(0, color=GRAY, linewidth=0.8, zorder=0)
            axes.set(title=entry["method"], xlabel="step")
            axes.grid(axis="y")
        legend_below(figure)
        return save_figure(figure, path)
