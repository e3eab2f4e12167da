"""What is released: a wheel and a source distribution that hold everything and work outside the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import synthmtl

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "synthmtl"
FILES = {
    str(file.relative_to(ROOT))
    for file in PACKAGE.rglob("*")
    if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the source distribution, built of a copy: building leaves files beside the code."""
    copy, out = tmp_path_factory.mktemp("release") / "copy", tmp_path_factory.mktemp("dist")
    shutil.copytree(PACKAGE, copy / "synthmtl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """The wheel's content, as an installation would lay it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_and_the_license(unpacked):
    held = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert not FILES - held
    assert {"synthmtl/py.typed", "synthmtl/faces/head.json", "synthmtl/report/page.html.jinja"} <= held
    assert [name for name in held if re.search(r"dist-info/licenses/LICENSE$", name)]
    assert not [name for name in held if name.startswith(("tests", "recipes", "notebooks"))]


def test_the_source_distribution_does_so_too(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert not FILES - held and {"LICENSE", "README.md", "pyproject.toml"} <= held


def test_its_facts_come_from_one_place(unpacked):
    facts = next(unpacked.glob("*.dist-info/METADATA")).read_text(encoding="utf-8")
    assert f"\nVersion: {synthmtl.__version__}\n" in facts and "\nLicense-Expression: Apache-2.0\n" in facts
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in settings["project"] and "version" in settings["project"]["dynamic"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "synthmtl.__version__"}


def test_it_works_outside_the_checkout(unpacked, tmp_path):
    code = """
import sys
from pathlib import Path

import synthmtl
from synthmtl.cli import main
from synthmtl.report.page import template

assert Path(synthmtl.__file__).is_relative_to(sys.argv[1]), synthmtl.__file__
assert main(["render", "--count", "8", "--size", "32", "--out", "faces"]) == 0
assert template("page.html.jinja") and template("study.html.jinja")
main(["quickstart", "--out", "run", "--print_config"])
"""
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    call = [sys.executable, "-c", code, str(unpacked)]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "train_counts" in done.stdout and len(list(tmp_path.glob("faces/train/*/*.png"))) == 8
    version = subprocess.run(
        [sys.executable, "-m", "synthmtl", "--version"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert version.stdout == f"synthmtl {synthmtl.__version__}\n"
