"""Looks at a training: each at the step that it is of, whatever the aggregator runs besides."""

import dataclasses
from types import SimpleNamespace

import pytest

from synthmtl.faces import RenderConfig, render_faces
from synthmtl.study import preset
from synthmtl.study.config import Cell, Condition
from synthmtl.study.heads import train_heads
from synthmtl.study.looks import NumberedStream
from synthmtl.training import build_accelerator


@pytest.fixture(scope="module")
def faces():
    return render_faces(RenderConfig(counts=2, image_size=32, subjects=4, sessions_per_subject=1))


def looks(faces, aggregator, directory, **settings):
    """What is recorded of a few steps of two heads."""
    config = preset("smoke")
    config.tasks, config.precision = ["expression", "landmarks"], "no"
    config.joint = dataclasses.replace(config.joint, steps=4, batch_size=4, checkpoint_every_steps=1, **settings)
    config.measures = dataclasses.replace(config.measures, conflict_every=2, gates_every=2, affinity_every=2)
    job = SimpleNamespace(config=config, train=faces, accelerator=build_accelerator(precision="no"), progress=False)
    return train_heads(job, Cell("leaky", aggregator, Condition(0.0), 0), directory).looks


def steps(found):
    return {name: [record["step"] for record in records] for name, records in found.items()}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_aggregator_that_looks_back_is_looked_at_as_any_other(faces, tmp_path, accumulation):
    found = {}
    for aggregator in ("sum", "famo"):
        found[aggregator] = steps(looks(faces, aggregator, tmp_path / aggregator, accumulation=accumulation))
        for each in found[aggregator].values():
            assert sorted(set(each)) == each[:: len(each) // (2 * accumulation)] == list(range(0, 4 * accumulation, 2))
    assert found["sum"] == found["famo"] and set(found["sum"]) == {"affinity", "gates", "conflict"}


def test_an_interrupted_look_back_goes_on_as_if_nothing_had_been(faces, tmp_path, interrupted):
    whole = looks(faces, "famo", tmp_path / "whole")
    with interrupted(), pytest.raises(KeyboardInterrupt):
        looks(faces, "famo", tmp_path / "cut")
    assert looks(faces, "famo", tmp_path / "cut") == whole


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_batch_is_known_by_its_micro_step(passes, accumulation):
    stream = NumberedStream(lambda step: {"step": step}, accumulation)
    for first in (6, 9):  # as after a resume
        batches = [dict(stream(first + k)) for k in range(accumulation)]  # as copied to a device
        for _ in range(passes):
            assert [stream.step_of(batch) for batch in batches] == [batch["step"] for batch in batches]
            assert stream.step_of(batches[-1]) == batches[-1]["step"], "a second recorder asks too"
