"""What the figures of a study have in common."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_ROWS = 4  # of a legend, that a figure has room for


def panels(count: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure with at least ``count`` panels, the unused ones empty."""
    columns = min(4 if width < 2.5 else 3, count)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(0.6 + width * columns + (0.9 if columns < 2 else 0), 0.6 + height * rows), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid


def legend_below(figure: Figure, *, columns: int = 4) -> None:
    """One legend of what is drawn in all panels, in as many columns as the figure is wide enough for."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:  # a panel may lack what others have
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels, handles = list(found), list(found.values())
    renderer = FigureCanvasAgg(figure).get_renderer()
    for number in range(columns, 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=number, columnspacing=1.2, handletextpad=0.4
        )
        extent = legend.get_window_extent(renderer)
        if number == 1 or extent.width <= figure.bbox.width:
            if -(-len(labels) // number) > _ROWS:  # the directions between many tasks would leave no room to the panels
                figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)
            return
        legend.remove()


def draw_series(axes: matplotlib.axes.Axes, one: Mapping, *, color: str, line: str = "-", label: str) -> None:
    """A series over training, ``steps``, ``mean`` and ``ci95``: a line, and a band where there are intervals."""
    means = [np.nan if mean is None else mean for mean in one["mean"]]
    axes.plot(one["steps"], means, line, color=color, linewidth=1.2, label=label)
    if any(one["ci95"]):
        ends = ends_of([ends or (np.nan, np.nan) for ends in one["ci95"]])
        axes.fill_between(one["steps"], *ends, color=color, alpha=0.18, linewidth=0)


def ends_of(intervals: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Lower and upper ends of intervals."""
    return [low for low, _ in intervals], [high for _, high in intervals]
