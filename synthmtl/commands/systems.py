"""What the recipes of the other systems say."""

from pathlib import Path


def say_system(results: dict, out: str | Path) -> None:
    """Print the table of ``run_system`` and where every figure is; from the main process only."""
    from accelerate import PartialState

    from synthmtl.systems.results import format_table

    if PartialState().is_main_process:
        print(format_table(results))
        print(f"results: {Path(out) / 'results.json'}")
