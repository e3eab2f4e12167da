"""The figures of the report: restrained, readable in gray, safe for color-blind readers.

Colors are those of Okabe and Ito (2008). Every function writes one PNG and returns its path; nothing touches
``pyplot`` or its global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from einops import repeat
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from synthmtl.errors import InputError
from synthmtl.files import replacing

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, GRAY, PALE = "#222222", "#7A7A7A", "#D9D9D9"
HIGHLIGHT = {"plain": INK, "oversampled": ORANGE, "gated": SKY, "gated_balanced": BLUE, "oracle": GREEN}
"""Methods that keep one color throughout the report; the others are gray where many are shown."""

_MARKERS = "osD^vPXd*<>"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 150,
}
"""How every figure looks."""
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "balanced_accuracy": "Balanced accuracy",
    "minority_recall": "Recall of the rare classes",
}
"""How a metric is written for readers."""


def written(value: float, form: str) -> str:
    """A number as readers see it, by a format such as ``+.3f``: with a true minus sign."""
    return format(value, form).replace("-", "−")


def contact_sheet(
    images: np.ndarray,
    row_titles: Sequence[str] | None,
    column_titles: Sequence[str] | None,
    path: Path,
    scale: int | None = None,
    *,
    lead_columns: int = 0,
) -> Path:
    """Faces in a grid, each pixel an exact block of ``scale`` x ``scale`` pixels, under column heads.

    Args:
        images: uint8 (rows, columns, C, H, W), C = 1 or 3; array or tensor.
        scale: integer factor; None takes the largest up to 4 that keeps the sheet within about 1,000 pixels.
        lead_columns: columns at the left set apart by a wider gap, as the sources before the targets.

    Raises:
        InputError: if the images are not such an array or the titles do not fit it.
    """
    images = np.asarray(images)
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[2] not in (1, 3) or not images.size:
        raise InputError(
            f"a contact sheet needs uint8 (rows, columns, 1 or 3, H, W), not {images.dtype} {images.shape}"
        )
    rows, columns, channels, height, width = images.shape
    for name, titles, size in (("row", row_titles, rows), ("column", column_titles, columns)):
        if titles is not None and len(titles) != size:
            raise InputError(f"{len(titles)} {name} titles for {size} {name}s of faces")
    scale = scale or int(np.clip(960 // (columns * width), 1, 4))
    gap, apart, margin = 2, 10, 8
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 12)
    cell_h, cell_w = height * scale, width * scale
    heads = [font.getlength(title) for title in column_titles or ()]
    upright = any(length > cell_w for length in heads)
    head = 0 if not heads else (int(max(heads)) + 8 if upright else 20)
    side = int(max(font.getlength(title) for title in row_titles)) + 8 if row_titles else 0
    left = [margin + side + c * (cell_w + gap) + (apart if 0 < lead_columns <= c else 0) for c in range(columns)]
    top = [margin + head + r * (cell_h + gap) for r in range(rows)]
    mode, paper, ink = ("L", 255, 34) if channels == 1 else ("RGB", (255, 255, 255), (34, 34, 34))
    sheet = Image.new(mode, (left[-1] + cell_w + margin, top[-1] + cell_h + margin), paper)
    draw = ImageDraw.Draw(sheet)
    for r in range(rows):
        for c in range(columns):
            face = repeat(images[r, c], "c h w -> (h y) (w x) c", y=scale, x=scale)
            sheet.paste(Image.fromarray(face[..., 0] if channels == 1 else face), (left[c], top[r]))
        if row_titles:
            draw.text((margin + side - 6, top[r] + cell_h / 2), row_titles[r], ink, font, anchor="rm")
    for c, title in enumerate(column_titles or ()):
        if upright:
            strip = Image.new("L", (head, 18), 0)
            ImageDraw.Draw(strip).text((4, 9), title, 255, font, anchor="lm")
            strip = strip.rotate(90, expand=True)
            sheet.paste(ink, (left[c] + cell_w // 2 - 9, margin), strip)
        else:
            draw.text((left[c] + cell_w / 2, margin + head - 5), title, ink, font, anchor="ms")
    with replacing(path) as partial:
        sheet.save(partial, "PNG", optimize=True)
    return Path(path)


def class_counts_figure(before: Mapping[str, int], after: Mapping[str, int], path: Path) -> Path:
    """Faces per class before and after balancing, as one bar each: what was there, then what was added."""
    names, had = list(before), np.array(list(before.values()))
    has = np.array([after.get(name, 0) for name in names])
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, 0.9 + 0.3 * len(names))
        axes.barh(names, np.minimum(had, has), color=GRAY, height=0.66, label="before")
        axes.barh(names, np.maximum(has - had, 0), left=had, color=BLUE, height=0.66, label="added")
        if (had > has).any():
            axes.barh(names, np.maximum(had - has, 0), left=has, color=PALE, height=0.66, label="left out")
        for row, (old, new) in enumerate(zip(had, has, strict=True)):
            text = f"{old:,}" if old == new else f"{old:,} → {new:,}"
            axes.annotate(text, (max(old, new), row), (4, 0), textcoords="offset points", va="center")
        axes.set(xlim=(0, max(had.max(), has.max(), 1) * 1.16), xlabel="training faces")
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        _legend_above(axes, columns=3)
        return save_figure(figure, path)


def methods_figure(methods: Mapping[str, Mapping], metric: str, path: Path) -> Path:
    """A score of each method in the order given: mean (dot), 95 % interval (line), single seeds (small dots).

    Args:
        methods: ``methods`` of ``report.json``.
        metric: a key of its entries, of their ``ci95`` and, where the seeds are to be shown, of their ``per_seed``.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, 0.7 + 0.3 * len(methods))
        for row, (name, entry) in enumerate(methods.items()):
            color = HIGHLIGHT.get(name, INK)
            low, high = entry["ci95"][metric]
            axes.hlines(row, low, high, color=color, linewidth=2.2)
            seeds = [one[metric] for one in entry.get("per_seed", []) if one.get(metric) is not None]
            axes.plot(seeds, [row + 0.27] * len(seeds), ".", color=color, markersize=4, alpha=0.65)
            axes.plot(entry[metric], row, "o", color=color, markersize=6.5, markeredgecolor="white")
        if "plain" in methods:
            axes.axvline(methods["plain"][metric], color=GRAY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.set_yticks(range(len(methods)), list(methods))
        axes.set(xlabel=METRIC_TITLES.get(metric, metric), ylim=(len(methods) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        return save_figure(figure, path)


def per_class_figure(recall: Mapping[str, Mapping[str, float | None]], path: Path) -> Path:
    """Recall of every class under each method: ``{method: {class: recall or None}}``.

    Up to six methods have a color and a marker each; of more, those in :data:`HIGHLIGHT` do and the rest are gray.
    """
    names = list(recall)
    classes = list(next(iter(recall.values())))
    free = iter([VERMILION, PURPLE, "#B8A800", SKY, GREEN, ORANGE, BLUE])
    colors = {n: HIGHLIGHT.get(n) or (next(free) if len(names) <= 6 else PALE) for n in names}
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, 3.1)
        offsets = np.linspace(-0.3, 0.3, len(names)) if len(names) > 1 else [0.0]
        for offset, marker, (name, values) in zip(offsets, _MARKERS * len(names), recall.items(), strict=False):
            heights = np.array([values[c] for c in classes], dtype=float)  # None becomes NaN
            face = "#B5B5B5" if colors[name] == PALE else colors[name]
            axes.plot(np.arange(len(classes)) + offset, heights, marker, color=face, markersize=5.5, label=name)
        for boundary in np.arange(len(classes) - 1) + 0.5:
            axes.axvline(boundary, color="#E6E6E6", linewidth=0.6, zorder=0)
        axes.set_xticks(range(len(classes)), classes)
        axes.set(ylim=(-0.03, 1.03), xlim=(-0.5, len(classes) - 0.5), ylabel="recall")
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y")
        _legend_above(axes, columns=5)
        return save_figure(figure, path)


def confusion_figure(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> Path:
    """Confusion matrix (K true in rows, K recognized in columns), shaded and written as percent of the true class."""
    counts = np.asarray(confusion, dtype=float)
    total = counts.sum(1, keepdims=True)
    share = counts / np.maximum(total, 1)
    with matplotlib.rc_context(STYLE):
        side = 1.6 + 0.5 * len(classes)
        figure, axes = _figure(side + 0.3, side - 0.3)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for r, c in np.ndindex(share.shape):
            text = f"{100 * share[r, c]:.0f}" if total[r] else "–"
            axes.text(c, r, text, ha="center", va="center", color="white" if share[r, c] > 0.55 else INK)
        axes.set_xticks(range(len(classes)), classes, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="recognized as (% of the true class)", ylabel="true expression")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return save_figure(figure, path)


def curves_figure(history: Sequence[Mapping], path: Path, *, x: str = "step") -> Path:
    """Curves of a training run, one panel for each quantity.

    Args:
        history: records as ``losses.jsonl`` holds them: ``x`` beside numbers and named groups of numbers
            (``losses`` {name: value}, ``evaluation`` {metric: value}). A name in ``evaluation`` is drawn as
            validation, all else as training; a name in both shares a panel. What is None is left out.

    Raises:
        InputError: if nothing was logged.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in history:
        for key, value in record.items():
            group = "validation" if key == "evaluation" else "training"
            for name, number in value.items() if isinstance(value, Mapping) else ((key, value),):
                if name != x and _is_number(number):
                    panels.setdefault(name, {}).setdefault(group, []).append((record[x], number))
    if not panels:
        raise InputError(f"no curve to draw: the history has no number beside {x!r}")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * columns + 0.4, 1.9 * rows + 0.2), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (title, series) in zip(grid, panels.items(), strict=False):
            for name, points in series.items():
                color, marker = ORANGE if name == "validation" else BLUE, "." if len(points) < 3 else None
                axes.plot(*zip(*points, strict=True), color=color, linewidth=1.3, label=name, marker=marker)
            axes.set_title(title)
            axes.set_xlabel(x)
            axes.grid()
            if len(series) > 1 or "validation" in series:
                axes.legend(fontsize=8)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        return save_figure(figure, path)


def draw_report_figures(report: Mapping, folder: Path) -> dict[str, Path]:
    """Every figure that the numbers of a report allow, into ``folder``, under the names that the page places."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    methods, classes = report["methods"], report["data"]["classes"]
    drawn = {}
    for metric in METRIC_TITLES:
        having = {name: entry for name, entry in methods.items() if metric in entry["ci95"]}
        if metric in ("macro_f1", "minority_recall") and having:
            drawn[f"methods_{metric}"] = methods_figure(having, metric, folder / f"methods_{metric}.png")
    recall = {name: entry["per_class_recall"] for name, entry in methods.items()}
    drawn["per_class"] = per_class_figure(recall, folder / "per_class.png")
    before = report["data"]["train_counts"]
    after = {name: count + report["balance"]["kept"].get(name, 0) for name, count in before.items()}
    drawn["class_counts"] = class_counts_figure(before, after, folder / "class_counts.png")
    for name in ("plain", "gated_balanced"):
        if "confusion" in methods.get(name, {}):
            drawn[f"confusion_{name}"] = confusion_figure(
                methods[name]["confusion"], classes, folder / f"confusion_{name}.png"
            )
    return drawn


def _figure(width: float, height: float) -> tuple[Figure, matplotlib.axes.Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _legend_above(axes: matplotlib.axes.Axes, *, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2, handletextpad=0.4
    )


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure without a trace of when and by what it was made."""
    with replacing(path) as partial:
        figure.savefig(partial, format=Path(path).suffix[1:], metadata={"Software": None})
    return Path(path)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
