"""The notebooks as a newcomer finds them, and run from top to bottom at the smallest setting."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ["01_balance_a_dataset", "02_study_interference", "03_compare_the_four_systems"]


def read(name, folder=FOLDER):
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


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
    shutil.copy(FOLDER / f"{name}.ipynb", tmp_path)
    # In a process of its own, with the options that a reader would give: nbmake runs it where it lies, and --overwrite
    # writes what it showed.
    command = ["-m", "pytest", "--nbmake", "--nbmake-timeout=300", "--overwrite", f"{name}.ipynb"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    notebook = read(name, tmp_path)
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in data for data in shown) >= 3
    assert list(tmp_path.glob("synthmtl-*"))  # and nothing is left elsewhere
