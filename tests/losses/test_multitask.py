import math

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.losses import AssociationLoss, ExpressionLoss, HeterogeneousLoss, LandmarkLoss, MultiTaskObjective
from synthmtl.training import Player, TrainingConfig, build_accelerator, fit


def test_adds_association_and_penalty_to_the_tasks(mixed):
    whole, batch = mixed.objective(), mixed.faces()
    whole.warmth = 0.25
    losses = whole(batch)
    outputs = whole.model(batch.image)
    alone = whole.loss(outputs, batch)
    terms = whole.association(outputs, batch, 0.25)
    penalty = outputs["penalty"]
    torch.testing.assert_close(losses["sharing"], penalty.detach())
    torch.testing.assert_close(
        losses["task/landmarks"], alone["task/landmarks"] + 0.1 * terms["task/landmarks"] + 0.3 * penalty / 5
    )
    torch.testing.assert_close(losses["task/compound"], alone["task/compound"] + 0.3 * penalty / 5)
    expected = alone["loss"] + terms["task/expression"] + 0.1 * terms["task/landmarks"] + 0.3 * penalty
    torch.testing.assert_close(losses["loss"], expected)
    assert {"associated_expression", "consistent_landmarks", "labels/expression"} <= losses.keys()


def test_without_association_and_penalty_it_is_the_heterogeneous_loss(mixed):
    model, batch = mixed.Network(), mixed.faces()
    loss = HeterogeneousLoss(mixed.task_losses(), mixed.WEIGHTS)
    losses, alone = MultiTaskObjective(model, loss, sharing_weight=0.0)(batch), loss(model(batch.image), batch)
    assert losses.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_association_needs_both_of_its_tasks(mixed):
    association = AssociationLoss(ExpressionLoss(), LandmarkLoss())
    with pytest.raises(InputError, match="the tasks are expression: add"):
        MultiTaskObjective(mixed.Network(), HeterogeneousLoss({"expression": ExpressionLoss()}), association)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weight_of_sharing_out_of_range(mixed, weight):
    loss = HeterogeneousLoss(mixed.task_losses(), mixed.WEIGHTS)
    with pytest.raises(InputError, match=f"the weight of sharing must be a finite number from 0 up, not {weight}"):
        MultiTaskObjective(mixed.Network(), loss, sharing_weight=weight)


@pytest.mark.parametrize(("aggregator", "normalization"), [(None, "global"), ("pcgrad", "per_task")])
def test_trains_on_mixed_labels(mixed, aggregator, normalization):
    whole, batch = mixed.objective(normalization), mixed.faces()
    before = whole(batch)["loss"].item()
    fit(
        players=[Player("net", whole)],
        stream=lambda step: batch,
        config=TrainingConfig(
            steps=30, batch_size=16, learning_rate=2e-2, aggregator=aggregator, precision="no", ema_decay=None
        ),
        accelerator=build_accelerator(),
        progress=False,
    )
    with torch.no_grad():
        assert whole(batch)["loss"] < 0.6 * before
