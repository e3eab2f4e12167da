"""Functions in C++ are built once, and their absence is no error."""

import logging
import subprocess
import sys

import pytest
import torch

from synthmtl.native import build
from synthmtl.sharing import LeakySharing, compile_units, rows

FUNCTION = """
#include <ATen/core/Tensor.h>
#include <torch/library.h>
TORCH_LIBRARY(synthmtl_NAME, library) { library.def("twice", [](int64_t value) { return 2 * value; }); }
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A function of its own in an empty folder."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    build.load_functions.cache_clear()
    yield tmp_path / "twice.cpp"
    build.load_functions.cache_clear()


@pytest.mark.skipif(not build.load_functions(rows.SOURCE), reason="needs Linux and a C++ compiler")
def test_a_function_is_built_once(source, tmp_path, monkeypatch):
    source.write_text(FUNCTION.replace("NAME", "tested"))
    assert build.load_functions(source)
    assert torch.ops.synthmtl_tested.twice(21) == 42
    (library,) = (tmp_path / "cache/synthmtl").iterdir()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("built again"))
    code = f"""
import pathlib, subprocess, torch
from synthmtl.native import load_functions
subprocess.run = None
assert load_functions(pathlib.Path({str(source)!r})) and torch.ops.synthmtl_tested.twice(2) == 4
"""
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list((tmp_path / "cache/synthmtl").iterdir()) == [library]


@pytest.mark.skipif(not build.load_functions(rows.SOURCE), reason="needs Linux and a C++ compiler")
def test_what_it_includes_belongs_to_a_function(source, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "HEADERS", tmp_path)
    source.write_text('#include "number.h"\nint synthmtl_number() { return NUMBER; }')
    for number in (1, 2, 2):
        (tmp_path / "number.h").write_text(f"#define NUMBER {number}")
        build.load_functions.cache_clear()
        assert build.load_functions(source)
    assert len(list((tmp_path / "cache/synthmtl").iterdir())) == 2


@pytest.mark.parametrize(
    ("compiler", "code"), [("/nowhere/c++", FUNCTION), ("c++", "not C++"), ("c++ -no-such-option", FUNCTION)]
)
def test_what_cannot_be_built_is_said_once(compiler, code, source, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", compiler)
    source.write_text(code)
    with caplog.at_level(logging.WARNING):
        assert not build.load_functions(source)
        assert not build.load_functions(source)
    (record,) = caplog.records
    assert "twice.cpp was not built" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not list((tmp_path / "cache/synthmtl").iterdir())


def test_a_unit_computes_without_them(monkeypatch):
    monkeypatch.setattr(rows, "load_functions", lambda source: False)
    unit = LeakySharing(16).to(memory_format=torch.channels_last)
    given = [torch.randn(2, 16, 4, 4).to(memory_format=torch.channels_last) for _ in range(2)]
    expected = unit(given)
    compile_units(unit)
    torch.testing.assert_close(unit(given), expected)
