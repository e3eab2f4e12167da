"""What the table of a recipe says of finished cells."""

from dataclasses import dataclass, field

import pytest
import torch
from accelerate import Accelerator

from synthmtl.data import FaceTable
from synthmtl.labels import ACTION_UNITS
from synthmtl.systems import Source, SystemOptions
from synthmtl.systems.job import SystemJob
from synthmtl.systems.results import _scores


@dataclass
class Options(SystemOptions):
    model: dict = field(default_factory=dict)


def test_units_are_active_by_the_rule_of_their_data_set(tmp_path):
    # Grade 2 of 5 on every other face, and a network that says so: found by DISFA's rule, and by a half nowhere.
    grades = torch.full((40, len(ACTION_UNITS)), 0.0)
    grades[::2, 3] = 0.4
    table = FaceTable(
        images=torch.zeros(40, 1, 32, 32, dtype=torch.uint8), classes=("neutral", "happiness"), action_units=grades
    )
    options = Options(data={"disfa": Source(unit_threshold=0.4), "other": Source()})
    scored = {"disfa/test": table, "other/test": table}
    job = SystemJob(options, tmp_path, Accelerator(cpu=True), {}, scored)
    outputs = [{where: {"action_units": grades} for where in scored}]
    found = _scores(job, outputs, "disfa/test")["action_units"]
    assert found["value"] == pytest.approx(1.0) and found["all"][0]["threshold"] == 0.4
    assert "action_units" not in _scores(job, outputs, "other/test")
