import json

import pytest
import torch

from synthmtl.data import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import COMPOUND_EXPRESSIONS, EXPRESSIONS_7
from synthmtl.metrics import (
    HEADLINES,
    action_unit_metrics,
    affect_metrics,
    bootstrap_intervals,
    compare_paired,
    compare_tasks,
    landmark_metrics,
    recognition_metrics,
    task_intervals,
    task_metrics,
)


def faces(count=120, seed=0):
    """Faces that each carry some labels."""
    random = torch.Generator().manual_seed(seed)
    row = torch.arange(count)
    landmarks = torch.rand(count, 68, 2, generator=random)
    landmarks[row % 5 == 1] = torch.nan
    landmarks[3, 36] = torch.nan
    units = torch.rand(count, 22, generator=random)
    units[row % 3 == 0] = torch.nan
    affect = torch.rand(count, 2, generator=random) * 2 - 1
    affect[row % 7 == 0] = torch.nan
    expression, compound = (torch.randint(size, (count,), generator=random) for size in (7, 12))
    return FaceTable(
        images=torch.zeros(count, 1, 8, 8, dtype=torch.uint8),
        classes=EXPRESSIONS_7,
        expression=torch.where(row % 4 == 0, -1, expression),
        compound=torch.where(row % 2 == 0, -1, compound),
        landmarks=landmarks,
        action_units=units,
        valence_arousal=affect,
    )


def predict(table, error, seed=0):
    """Outputs of all tasks, the truth with an ``error`` of this size."""
    random = torch.Generator().manual_seed(seed)

    def near(truth):
        truth = torch.where(truth.isnan(), 0.5, truth)
        return truth + error * torch.randn(truth.shape, generator=random)

    def likely(truth, classes):
        logits = torch.nn.functional.one_hot(truth.clamp(min=0), classes).float()
        return near(logits).softmax(1)

    return {
        "expression": likely(table.expression, 7),
        "compound": likely(table.compound, 12),
        "action_units": near(table.action_units).clip(0, 1),
        "landmarks": near(table.landmarks),
        "valence_arousal": near(table.valence_arousal).clip(-1, 1),
    }


TABLE = faces()


def test_every_task_is_scored_by_its_own_metrics():
    outputs = predict(TABLE, 0.5)
    results = task_metrics(outputs | {"penalty": torch.zeros(())}, TABLE)
    assert list(results) == list(HEADLINES)
    assert (
        results["expression"] == recognition_metrics(outputs["expression"], TABLE.expression, EXPRESSIONS_7).as_dict()
    )
    compound = recognition_metrics(outputs["compound"], TABLE.compound, COMPOUND_EXPRESSIONS)
    assert results["compound"] == compound.as_dict()
    assert results["action_units"] == action_unit_metrics(outputs["action_units"], TABLE.action_units).as_dict()
    assert results["landmarks"] == landmark_metrics(outputs["landmarks"], TABLE.landmarks).as_dict()
    assert results["valence_arousal"] == affect_metrics(outputs["valence_arousal"], TABLE.valence_arousal).as_dict()
    counts = {task: (result["count"], result["missing"]) for task, result in results.items()}
    assert counts == {
        "expression": (90, 30),
        "compound": (60, 60),
        "action_units": (80, 40),
        "landmarks": (95, 24),  # and one without eyes
        "valence_arousal": (102, 18),
    }
    json.dumps(results, allow_nan=False)


def test_faces_without_labels_change_the_missing_counts_only():
    blank = FaceTable(images=TABLE.images[:9], classes=EXPRESSIONS_7)
    outputs, others = predict(TABLE, 0.5), predict(blank, 0.5)
    more = task_metrics({t: torch.cat([outputs[t], others[t]]) for t in outputs}, FaceTable.concatenate([TABLE, blank]))
    for task, result in task_metrics(outputs, TABLE).items():
        assert more[task] == result | {"missing": result["missing"] + 9}


def test_tasks_without_labels_or_outputs_are_left_out():
    outputs = predict(TABLE, 0.5)
    del outputs["compound"]
    unlabelled = TABLE.replace(landmarks=torch.full_like(TABLE.landmarks, torch.nan))
    assert list(task_metrics(outputs, unlabelled)) == ["expression", "action_units", "valence_arousal"]
    assert list(task_intervals([outputs], unlabelled, samples=20)) == ["expression", "action_units", "valence_arousal"]
    with pytest.raises(InputError, match="labels of expression, compound, .* predicts synthesis"):
        task_metrics({"synthesis": torch.zeros(120)}, TABLE)


def test_headlines_are_the_metrics_and_lie_in_their_intervals():
    seeds = [predict(TABLE, 0.5, seed) for seed in range(3)]
    headlines = task_intervals(seeds, TABLE, samples=300)
    for task, headline in headlines.items():
        expected = [task_metrics(one, TABLE)[task][HEADLINES[task]] for one in seeds]
        assert headline.per_seed == pytest.approx(expected)
        assert headline.value == pytest.approx(sum(expected) / 3)
        assert headline.ci95[0] < headline.value < headline.ci95[1], task
        assert headline.metric == HEADLINES[task]
        assert headline.faces == task_metrics(seeds[0], TABLE)[task]["count"]
    assert task_intervals(seeds, TABLE, samples=300) == headlines
    assert task_intervals(seeds, TABLE, samples=300, seed=1) != headlines


def test_the_threshold_of_units_reaches_every_score():
    a, b = ([predict(TABLE, error, seed) for seed in range(2)] for error in (0.5, 0.9))
    default = task_metrics(a[0], TABLE)
    lower = task_metrics(a[0], TABLE, unit_threshold=0.4)
    expected = action_unit_metrics(a[0]["action_units"], TABLE.action_units, threshold=0.4)
    assert lower == default | {"action_units": expected.as_dict()} and default["action_units"]["threshold"] == 0.5
    headlines = [task_intervals(seeds, TABLE, unit_threshold=0.4, samples=20)["action_units"] for seeds in (a, b)]
    assert headlines[0].per_seed[0] == pytest.approx(expected.mean_f1) != default["action_units"]["mean_f1"]
    compared = compare_tasks(a, b, TABLE, unit_threshold=0.4, samples=20)["action_units"]
    assert compared.difference == pytest.approx(headlines[0].value - headlines[1].value)


def test_expression_has_the_interval_and_comparison_of_recognition():
    a, b = ([predict(TABLE, error, seed) for seed in range(3)] for error in (0.5, 0.7))
    stacked = [torch.stack([one["expression"] for one in seeds]) for seeds in (a, b)]
    expected = bootstrap_intervals(stacked[0], TABLE.expression, EXPRESSIONS_7, samples=200, seed=3)["macro_f1"]
    assert task_intervals(a, TABLE, samples=200, seed=3)["expression"].ci95 == expected
    expected = compare_paired(*stacked, TABLE.expression, EXPRESSIONS_7, metric="macro_f1", samples=200, seed=3)
    assert compare_tasks(a, b, TABLE, samples=200, seed=3)["expression"] == expected


def test_people_are_drawn_with_all_of_their_faces():
    # Twice as many faces, each of them there twice, promise nothing more when they are known to show the same people.
    table = faces(60)
    twice = table.select(torch.arange(60).repeat(2))
    known = twice.replace(subject=torch.arange(60).repeat(2))
    outputs = predict(table, 0.5)
    doubled = {task: output.repeat(2, *[1] * (output.ndim - 1)) for task, output in outputs.items()}
    alone, of_faces, of_people = (
        task_intervals([values], rows) for values, rows in ((outputs, table), (doubled, twice), (doubled, known))
    )
    for task in HEADLINES:
        widths = [high - low for low, high in (found[task].ci95 for found in (alone, of_faces, of_people))]
        assert widths[1] < 0.9 * widths[0] and widths[2] == pytest.approx(widths[0], rel=0.15)
    other = predict(table, 0.7, seed=1)
    pair = {task: output.repeat(2, *[1] * (output.ndim - 1)) for task, output in other.items()}
    assert compare_tasks([doubled], [pair], known)["expression"].ci95 == pytest.approx(
        compare_tasks([outputs], [other], table)["expression"].ci95, abs=0.05
    )


def test_comparison_finds_the_better_network_and_nothing_between_equals():
    a, b = ([predict(TABLE, error, seed) for seed in range(3)] for error in (0.3, 0.9))
    comparisons = compare_tasks(a, b, TABLE, samples=200)
    assert list(comparisons) == list(HEADLINES)
    for task, one in comparisons.items():
        sign = -1 if task == "landmarks" else 1
        assert sign * one.difference > 0 and sign * one.ci95[0] > 0 and sign * one.ci95[1] > 0, task
        assert one.per_seed == pytest.approx(
            [
                task_metrics(x, TABLE)[task][one.metric] - task_metrics(y, TABLE)[task][one.metric]
                for x, y in zip(a, b, strict=True)
            ]
        )
    for one in compare_tasks(a, a, TABLE, samples=50).values():
        assert (one.difference, one.ci95) == (0.0, [0.0, 0.0])


def test_pairing_makes_a_difference_narrower_than_its_parts():
    a = [predict(TABLE, 0.5)]
    b = [{name: 0.98 * a[0][name] + 0.02 * value for name, value in predict(TABLE, 0.5, 1).items()}]
    headlines, comparisons = task_intervals(a, TABLE, samples=200), compare_tasks(a, b, TABLE, samples=200)
    for task in ("landmarks", "valence_arousal"):
        widths = [one.ci95[1] - one.ci95[0] for one in (comparisons[task], headlines[task])]
        assert widths[0] < 0.3 * widths[1]


def test_bad_input_is_named():
    a = [predict(TABLE, 0.5)]
    with pytest.raises(InputError, match="a has 2, b has 1"):
        compare_tasks(a * 2, a, TABLE)
    with pytest.raises(InputError, match="nothing to compare: a predicts compound and b landmarks"):
        compare_tasks([{"compound": a[0]["compound"]}], [{"landmarks": a[0]["landmarks"]}], TABLE)
    with pytest.raises(InputError, match="not all of them predict compound"):
        task_intervals([*a, {"expression": a[0]["expression"]}], TABLE)
    with pytest.raises(InputError, match="no outputs"):
        task_intervals([], TABLE)


def test_a_score_that_is_undefined_is_left_out():
    table = faces()
    units = torch.where(table.action_units.isnan(), torch.nan, table.action_units * 0.4)  # none is active anywhere
    affect = torch.full_like(table.valence_arousal, torch.nan)
    affect[1] = 0.5  # a single face does not vary
    landmarks = table.landmarks.clone()
    landmarks[:, 36] = torch.nan  # an outer eye corner of every face
    table = table.replace(action_units=units, valence_arousal=affect, landmarks=landmarks)
    outputs = {"expression": torch.rand(120, 7).softmax(1), "action_units": torch.rand(120, 22)}
    outputs |= {"valence_arousal": torch.rand(120, 2), "landmarks": torch.rand(120, 68, 2)}
    found = task_intervals([outputs], table)
    assert set(found) == {"expression"} == set(compare_tasks([outputs], [outputs], table))
    json.dumps({name: score.as_dict() for name, score in found.items()}, allow_nan=False)
    assert task_metrics(outputs, table)["action_units"]["mean_f1"] is None
    undefined = {name: outputs[name] for name in ("action_units", "valence_arousal")}
    assert task_intervals([undefined], table) == {} == compare_tasks([undefined], [undefined], table)
    with pytest.raises(InputError, match="nothing can be scored"):
        task_metrics({"landmarks": outputs["landmarks"]}, table)
