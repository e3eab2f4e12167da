"""What the tests of multi-task losses share."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mixed():
    """The module ``mixed_faces.py`` beside this file."""
    spec = importlib.util.spec_from_file_location("mixed_faces", Path(__file__).with_name("mixed_faces.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
