"""From cells to the report: what is stated of each seed."""

from types import SimpleNamespace

import pytest
import torch

from synthmtl.data import FaceTable
from synthmtl.experiment import reporting
from synthmtl.experiment.config import preset
from synthmtl.report import draw_report_figures, validate_report, write_page

CLASSES = ("neutral", "happiness", "surprise", "anger")
METHODS = ("plain", "gated_balanced")
SEEDS = (0, 1, 2)


def faces(counts, people=0):
    expression = torch.tensor([index for index, count in enumerate(counts) for _ in range(count)])
    return FaceTable(
        images=torch.zeros(len(expression), 1, 8, 8, dtype=torch.uint8),
        classes=CLASSES,
        expression=expression,
        subject=torch.arange(len(expression)) % people if people else None,
    )


def built(monkeypatch, train, test, people=0):
    """The report of networks that guess, on faces of the given counts, and their guesses."""
    guesses = {
        (name, seed): torch.rand(sum(test), 4, generator=torch.Generator().manual_seed(10 * i + seed)).softmax(1)
        for i, name in enumerate(METHODS)
        for seed in SEEDS
    }
    monkeypatch.setattr(reporting, "cell_predictions", lambda job, name, seed: guesses[name, seed])
    splits = SimpleNamespace(test=faces(test, people), validation=faces(test))
    job = SimpleNamespace(
        config=preset("quick", rendered=True),
        splits=splits,
        train=faces(train),
        notes=[],
        accelerator=SimpleNamespace(device="cpu", num_processes=1),
    )
    validation = dict.fromkeys(("accuracy", "macro_f1", "balanced_accuracy"), 0.5)
    cell = {"seconds": 1.0, "parameters": 10, "validation": validation}
    cells = {name: [cell | {"seed": seed} for seed in SEEDS] for name in METHODS}
    balance = {"strategy": "auto", "requested": {}, "kept": {}, "rejected": {}}
    report = reporting.build_report(
        job, cells, balance=balance, generation={}, tasks={}, gates=[], title="Networks that guess"
    )
    validate_report(report)
    return report, guesses


def test_each_seed_states_its_recall_of_the_rare_classes(monkeypatch, tmp_path):
    test = (20, 20, 20, 20)
    report, guesses = built(monkeypatch, (40, 40, 4, 4), test)
    assert report["minority"] == ["surprise", "anger"]
    expression = faces(test).expression
    for name, entry in report["methods"].items():
        for seed, stated in zip(SEEDS, entry["per_seed"], strict=True):
            right = guesses[name, seed].argmax(1) == expression
            recalls = [right[expression == index].double().mean().item() for index in (2, 3)]
            assert stated["minority_recall"] == pytest.approx(sum(recalls) / 2)
        stated = [one["minority_recall"] for one in entry["per_seed"]]
        assert entry["minority_recall"] == pytest.approx(sum(stated) / 3)
    assert "methods_minority_recall" in draw_report_figures(report, tmp_path)


def test_without_rare_classes_there_is_no_such_recall(monkeypatch):
    report, _ = built(monkeypatch, (10, 10, 10, 10), (5, 5, 5, 5))
    assert report["minority"] == []
    for entry in report["methods"].values():
        assert "minority_recall" not in entry and all("minority_recall" not in one for one in entry["per_seed"])


@pytest.mark.parametrize(("people", "drawn"), [(0, "faces"), (8, "faces"), (12, "people")])
def test_the_report_says_what_intervals_draw(monkeypatch, tmp_path, people, drawn):
    report, _ = built(monkeypatch, (10, 10, 10, 10), (12, 12, 12, 12), people)
    assert (report["data"]["resampled"], report["data"]["test_people"]) == (drawn, people)
    page = " ".join(write_page(report, tmp_path).read_text(encoding="utf-8").split())
    assert ("test people, with all of their faces, and seeds resampled" in page) == (people == 12)
    assert ("shows only 8 known people" in page) == (people == 8)
