"""What a generator is told when a face of a class is wanted."""

from pathlib import Path

import pytest
import torch

from synthmtl.balance.plan import make_plan
from synthmtl.balance.synthesize import edit_faces, synthesize_balancing_set
from synthmtl.balance.targets import ClassTargets
from synthmtl.balance.write import write_balancing_set
from synthmtl.data import FaceTable
from synthmtl.data.load import read_tables
from synthmtl.labels import ACTION_UNITS, CIRCUMPLEX
from synthmtl.models import FERSNet
from synthmtl.models.generators import class_targets

CLASSES = ("neutral", "happiness", "fear")
NAN = float("nan")


def generator(condition):
    torch.manual_seed(0)
    net = FERSNet.sized("tiny", classes=CLASSES, condition=condition)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return net.eval()


def faces(labels=None, kind="action_units", *, synthetic=None):
    """Twelve faces: eight neutral, three happy, one afraid."""
    images = torch.randint(256, (12, 1, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    expression = torch.tensor([0] * 8 + [1] * 3 + [2])
    columns = {} if labels is None else {kind: labels}
    return FaceTable(images, CLASSES, expression=expression, subject=torch.arange(12), synthetic=synthetic, **columns)


def units(*rows):
    return torch.stack([torch.full((22,), float(row)) for row in rows])


def test_a_class_is_itself():
    targets = ClassTargets(generator("expression"), faces(units(*range(12)) / 12))
    wanted = torch.tensor([2, 0, 1])
    assert torch.equal(targets.draw(wanted, [1, 2, 3]), wanted) and targets.columns(wanted, [1, 2, 3]) == {}
    assert not targets.examples


def test_mixtures_of_the_class_by_seed():
    targets = ClassTargets(generator("action_units"), faces(units(*[0.0] * 8, 0.2, 0.3, 0.9, 0.7)))
    wanted, seeds = torch.tensor([1] * 200 + [0, 2]), list(range(202))
    drawn = targets.draw(wanted, seeds)
    happy = drawn[:200]
    assert ((happy >= 0.2) & (happy <= 0.9)).all() and (happy == happy[:, :1]).all()
    # Between each pair of the class's faces there is somebody; the faces themselves come out, too.
    assert len(happy[:, 0].unique()) > 100 and (happy[:, 0] > 0.5).any() and (happy[:, 0] < 0.25).any()
    assert (drawn[200] == 0).all() and torch.allclose(drawn[201], torch.tensor(0.7))
    order = torch.randperm(202, generator=torch.Generator().manual_seed(0))
    again = targets.draw(wanted[order], [seeds[i] for i in order.tolist()])
    assert torch.equal(again, drawn[order])  # whatever it stands beside


def test_what_one_face_lacks_the_other_says():
    labels = torch.full((12, 22), NAN)
    labels[8, 0], labels[9, 1], labels[10] = 0.5, 0.25, NAN
    targets = ClassTargets(generator("action_units"), faces(labels))
    assert len(targets.examples[1]) == 2
    drawn = targets.draw(torch.ones(40, dtype=torch.int64), list(range(40)))
    assert set(drawn[:, 0][~drawn[:, 0].isnan()].tolist()) == {0.5}
    assert set(drawn[:, 1][~drawn[:, 1].isnan()].tolist()) == {0.25}
    both = ~drawn[:, :2].isnan().any(1)
    assert both.any() and not both.all() and drawn[:, 2:].isnan().all()


@pytest.mark.parametrize("kind", ["action_units", "valence_arousal"])
def test_without_labels_the_expression_stands_for_itself(kind):
    net, wanted = generator(kind), torch.tensor([1, 2])
    drawn = ClassTargets(net, faces()).draw(wanted, [0, 1])
    assert torch.equal(drawn, class_targets(net, wanted))
    if kind == "valence_arousal":
        torch.testing.assert_close(drawn, torch.tensor([CIRCUMPLEX["happiness"], CIRCUMPLEX["fear"]]))


def test_synthesized_faces_teach_no_targets():
    synthetic = torch.tensor([False] * 8 + [True, False, False, False])
    targets = ClassTargets(generator("action_units"), faces(units(*[0.0] * 8, 0.2, 0.3, 0.9, 0.7), synthetic=synthetic))
    assert targets.examples[1][:, 0].tolist() == pytest.approx([0.3, 0.9])


def balanced(net, table, directory=None):
    return synthesize_balancing_set(
        net, None, table, make_plan(table, {"happiness": 6, "fear": 4}, seed=3), filter=False, directory=directory
    )


def test_a_set_made_by_action_units_says_what_was_asked(tmp_path, caplog):
    net, table = generator("action_units"), faces(units(*[0.0] * 8, 0.2, 0.3, 0.9, 0.7))
    result = balanced(net, table)
    seeds = [record["seed"] for record in result.records]
    told = ClassTargets(net, table).draw(result.table.expression, seeds)
    rows = torch.tensor([record["source_row"] for record in result.records])
    made, _ = edit_faces(net, table.images[rows], told, seeds)
    assert torch.equal(made, result.table.images)
    torch.testing.assert_close(
        torch.stack([result.table.attributes[f"target_{name}"] for name in ACTION_UNITS], 1), told
    )
    assert result.table.action_units.isnan().all()  # asked for, not seen
    write_balancing_set(result, tmp_path, generator=net, table=table)
    card = (tmp_path / "README.md").read_text()
    assert "The generator is told action units" in card and "`target_*`" in card and "(source, target, " in card
    with caplog.at_level("WARNING", "synthmtl"):
        read = read_tables(str(tmp_path), image_size=32, channels=1)["train"]
    assert read.action_units.isnan().all() and not [r for r in caplog.records if r.levelname == "WARNING"]
    by_name = {Path(name).relative_to(tmp_path).as_posix(): i for i, name in enumerate(read.files)}
    order = [by_name[name] for name in result.table.files]
    torch.testing.assert_close(read.attributes["target_AU12"][order], told[:, ACTION_UNITS.index("AU12")])


def test_other_labels_are_another_set():
    net = generator("action_units")
    one, other = (balanced(net, faces(units(*[0.0] * 8, 0.2, 0.3, 0.9, last))) for last in (0.7, 0.6))
    assert one.identity["targets"]["labels"] != other.identity["targets"]["labels"]
    assert one.identity["targets"] | {"labels": ""} == {"kind": "action_units", "labels": "", "supplied": 0}
    assert not torch.equal(one.table.images, other.table.images)
    assert "targets" not in balanced(generator("expression"), faces()).identity
