"""The accelerator: what it refuses, and which precision it takes."""

import pytest
import torch

from synthmtl.data import FaceTable
from synthmtl.errors import InputError
from synthmtl.training import build_accelerator, fingerprints, refuse_other_data, resolve_precision


def test_it_uses_the_hardware_there_is():
    accelerator = build_accelerator(accumulation=3)
    expected = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    assert accelerator.device.type == expected
    assert accelerator.num_processes == 1 and accelerator.gradient_accumulation_steps == 3
    assert not accelerator.log_with


def test_each_call_may_choose_its_precision():
    assert build_accelerator(precision="bf16").mixed_precision == "bf16"
    assert build_accelerator().mixed_precision == "no"
    assert build_accelerator(precision="auto").mixed_precision == resolve_precision("auto")


@pytest.mark.parametrize("capability, expected", [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx2", "no")])
def test_auto_precision_follows_the_processor(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    assert resolve_precision("auto") == expected
    assert resolve_precision("no") == "no"


@pytest.mark.parametrize("precision, instructions, warned", [("bf16", False, 1), ("bf16", True, 0), ("no", False, 0)])
def test_emulated_bf16_is_told(monkeypatch, caplog, precision, instructions, warned):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    known = {"architecture": "x86_64", "avx2": True, "avx512_bf16": instructions}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    build_accelerator(precision=precision)
    assert [record.levelname for record in caplog.records if "emulating" in record.message] == ["WARNING"] * warned


@pytest.mark.parametrize("further", [{}, {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}])
def test_processes_that_would_train_alone_are_refused(monkeypatch, further):
    build_accelerator()
    for name, value in {"WORLD_SIZE": "2", **further}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"2 processes .* 1 would train together.*--multi_gpu"):
        build_accelerator()


def test_unknown_precision_is_refused():
    with pytest.raises(InputError, match="not 'half'"):
        build_accelerator(precision="half")


def test_fp16_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a GPU"):
        build_accelerator(precision="fp16")


def test_processes_with_other_data_are_told():
    table = FaceTable(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), ("fear",))
    same, other = table.replace(), table.replace(expression=torch.tensor([0, -1, -1]))
    refuse_other_data([fingerprints({"train": each}) for each in (table, same, same)])
    with pytest.raises(InputError, match="process 1, 2 of 3 has read other test faces than process 0"):
        refuse_other_data([fingerprints({"train": table, "test": each}) for each in (table, other, other)])
