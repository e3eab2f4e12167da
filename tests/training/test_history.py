"""The history: append-only, rolled back on resume, readable at any moment."""

import json
import math

from synthmtl.training import History, build_accelerator, read_history
from synthmtl.training.history import Means


def test_records_are_lines_and_a_cut_line_is_left_out(tmp_path):
    path = tmp_path / "losses.jsonl"
    history = History(path, build_accelerator(), "")
    history.rewind(0)
    history.add(1, losses={"a": 0.1 + 0.2, "b": math.nan}, learning_rate=1e-3)
    history.add(2, evaluation={"f1": math.inf})
    expected = [
        {"step": 1, "losses": {"a": 0.1 + 0.2, "b": None}, "learning_rate": 1e-3},
        {"step": 2, "evaluation": {"f1": None}},
    ]
    assert history.records == expected == [json.loads(line) for line in path.read_text().splitlines()]
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_history(path) == expected
    assert read_history(tmp_path / "missing.jsonl") == []


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "losses.jsonl"
    history = History(path, build_accelerator(), "")
    for step in (1, 2, 3):
        history.add(step, learning_rate=0.1)
    again = History(path, build_accelerator(), "")
    again.rewind(2)
    assert [record["step"] for record in again.records] == [1, 2]
    again.add(3, learning_rate=0.2)
    assert [record["learning_rate"] for record in read_history(path)] == [0.1, 0.1, 0.2]


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = History(None, build_accelerator(), "")
    history.rewind(0)
    history.add(1, learning_rate=0.1)
    assert history.records == [{"step": 1, "learning_rate": 0.1}] and not list(tmp_path.iterdir())


def test_means_leave_missing_numbers_out():
    means = Means({"a": [1.0, 1]})
    means.add({"a": 2.0, "b": math.nan})
    means.add({"a": 6.0, "b": math.nan})
    taken = means.take()
    assert taken["a"] == 3.0 and math.isnan(taken["b"]) and means.take() == {}
