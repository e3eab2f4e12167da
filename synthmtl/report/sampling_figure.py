"""The figure of few sampling steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from synthmtl.report.figures import BLUE, GREEN, ORANGE, STYLE, save_figure

_SOLVERS = {"dpm": ("DPM-Solver++", BLUE, "o"), "ddim": ("DDIM", ORANGE, "s"), "flow": ("Euler (flow)", GREEN, "D")}


def few_steps_figure(rows: Sequence[Mapping], features: str, path: Path) -> Path:
    """KID with its interval, and the share of faces that show their target, over evaluations of the denoiser.

    Args:
        rows: of one network, as :func:`synthmtl.experiment.few_steps.measure_few_steps` gives them.
        features: that KID is measured in.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        distance, agreement = figure.subplots(1, 2)
        for solver in dict.fromkeys(row["solver"] for row in rows):
            own = sorted((row for row in rows if row["solver"] == solver), key=lambda row: row["evaluations"])
            label, color, marker = _SOLVERS[solver]
            at = [row["evaluations"] for row in own]
            low, high = zip(*(row["ci95"] for row in own), strict=True)
            distance.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
            shape = {"color": color, "marker": marker, "markersize": 4.5, "label": label}
            distance.plot(at, [row["kid"] for row in own], **shape)
            agreement.plot(at, [row["agreement"] for row in own], **shape)
        ticks = sorted({row["evaluations"] for row in rows})
        for axes, title in ((distance, f"KID ({features})"), (agreement, "Target seen by the judge")):
            axes.set_xscale("log")
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set(title=title, xlabel="evaluations of the denoiser")
            axes.grid(axis="y")
        if min(row["kid"] for row in rows) > 0:
            distance.set_yscale("log")
        agreement.set_ylim(-0.03, 1.03)
        agreement.legend(loc="lower right")
        return save_figure(figure, path)
