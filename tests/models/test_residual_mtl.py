import pytest
import torch
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.models import ResidualMTL
from synthmtl.models.residual_mtl import ExpressionToLandmarks, LandmarksToExpression

CLASSES = ("neutral", "happiness", "anger")


def tiny(**config):
    torch.manual_seed(0)
    return ResidualMTL.sized("tiny", **({"classes": CLASSES} | config)).eval()


def faces(count=3):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_starts_without_any_exchange():
    model, apart = tiny(), tiny(sharing="none")
    apart.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("trunk.units")})
    before = apart(faces())
    for name, output in model(faces()).items():
        assert torch.equal(output, before[name])
    for sharing in ("residual", "none"):
        model = tiny(sharing=sharing, association=False)
        for unit in model.trunk.units if sharing == "residual" else ():
            for layers in unit.per_task:
                torch.nn.init.ones_(layers[3].weight)
        model(faces())["expression"].sum().backward()
        taken = [p.grad for p in model.trunk.branches[1].parameters()]
        assert all(grad is None for grad in taken) == (sharing == "none")


def test_association_goes_both_ways():
    model = tiny()
    outputs = model(faces())
    assert outputs["associated_expression"].shape == (3, 3) and outputs["associated_landmarks"].shape == (3, 68, 2)
    assert set(model.predict(faces())) == {"expression", "landmarks"}

    def branches(output):
        """Which heads and branches a gradient reaches from an output."""
        model.zero_grad(set_to_none=True)
        model(faces())[output].square().sum().backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None}
        return {
            n.split(".")[1] if n.startswith("heads") else n[:16] for n in reached if n.startswith(("heads", "trunk.b"))
        }

    torch.nn.init.normal_(model.expression_to_landmarks.moves.weight)
    assert "landmarks" in branches("associated_expression") and "expression" not in branches("associated_expression")
    assert "expression" in branches("associated_landmarks") and "landmarks" not in branches("associated_landmarks")
    plain = tiny(association=False)
    assert set(plain(faces())) == {"expression", "landmarks"}
    assert plain.recognition_parameters() == model.recognition_parameters()


def test_shape_is_read_without_place_and_size():
    torch.manual_seed(0)
    read = LandmarksToExpression(3)
    landmarks = torch.rand(4, 68, 2)
    torch.testing.assert_close(read(landmarks + torch.tensor([0.3, -0.1])), read(landmarks), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read(0.6 * landmarks), read(landmarks), atol=2e-3, rtol=1e-2)
    assert not torch.allclose(read(landmarks.flip(1)), read(landmarks), atol=1e-2)
    point = torch.full((1, 68, 2), 0.5, requires_grad=True)
    read(point).sum().backward()
    assert point.grad.isfinite().all()


def test_expressions_move_landmarks():
    torch.manual_seed(0)
    place = ExpressionToLandmarks(4, 2, 3)
    features = torch.rand(2, 4, 2, 2)
    happy, angry = torch.tensor([[0.0, 50, 0]]).expand(2, 3), torch.tensor([[0.0, 0, 50]]).expand(2, 3)
    assert torch.equal(place(features, happy), place(features, angry))  # nothing learned yet
    torch.nn.init.normal_(place.moves.weight)
    moves = place.moves.weight.T.view(3, 68, 2)
    torch.testing.assert_close(place(features, happy) - place(features, angry), (moves[1] - moves[2]).expand(2, 68, 2))


@pytest.mark.parametrize("tasks", [["expression"], ["landmarks", "action_units"]])
def test_association_needs_both(tasks):
    with pytest.raises(InputError, match="association ties expression and landmarks, but the tasks are"):
        tiny(tasks=tasks)


def test_published_size():
    with torch.device("meta"):
        model = ResidualMTL.sized("published", classes=CLASSES)
    assert [len(model.trunk.shared), len(model.trunk.branches), len(model.trunk.branches[0])] == [2, 2, 2]
    assert model.heads["landmarks"].linear.in_features == 512 * 7 * 7


def test_associated_outputs_learn_by_heart():
    model = tiny(stem_channels=16, stage_channels=(32, 32, 32)).train()
    generator = torch.Generator().manual_seed(4)
    images, expression = faces(16), torch.randint(0, 3, (16,), generator=generator)
    landmarks = 0.2 + 0.6 * torch.rand(16, 68, 2, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        outputs = model(images)
        loss = F.cross_entropy(outputs["associated_expression"], expression)
        loss = loss + 10 * F.l1_loss(outputs["associated_landmarks"], landmarks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(outputs["associated_expression"].argmax(1), expression)
    assert (outputs["associated_landmarks"] - landmarks).abs().mean() < 0.03
