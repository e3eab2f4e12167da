"""The notebooks as a newcomer finds them, and run from top to bottom at the smallest setting."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ["01_balance_a_dataset", "02_study_interference", "03_compare_the_four_systems"]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_stored_without_outputs(name):
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and notebook.metadata.kernelspec.name == "python3"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("name", NAMES)
def test_ends_with_the_readers_data(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    assert [line for line in text.splitlines() if line.startswith("#")][-1] == "## Now on your data"
    assert "../recipes/RESULTS.md" in text  # where the results are that so short trainings are not


@pytest.mark.parametrize("name", NAMES)
def test_runs_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHMTL_NOTEBOOK_PRESET", "smoke")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what the notebook writes, and its kernel's files
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read(name)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in data for data in shown) >= 3
    assert list(tmp_path.glob("synthmtl-*"))  # and nothing is left elsewhere
