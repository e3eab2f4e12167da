import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def job() -> ModuleType:
    """The module ``balancing_job.py`` beside this file; its name is free in every import mode."""
    spec = importlib.util.spec_from_file_location("balancing_job", Path(__file__).with_name("balancing_job.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
