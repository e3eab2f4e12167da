"""The report of a run: its contract, its figures, its page."""

from synthmtl.report.figures import (
    class_counts_figure,
    confusion_figure,
    contact_sheet,
    curves_figure,
    draw_report_figures,
    methods_figure,
    per_class_figure,
)
from synthmtl.report.gate_figures import draw_gate_figures
from synthmtl.report.page import summary, write_page
from synthmtl.report.schema import validate_report

__all__ = [
    "class_counts_figure",
    "confusion_figure",
    "contact_sheet",
    "curves_figure",
    "draw_gate_figures",
    "draw_report_figures",
    "methods_figure",
    "per_class_figure",
    "summary",
    "validate_report",
    "write_page",
]
