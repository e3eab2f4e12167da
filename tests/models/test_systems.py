"""What the three multi-task systems have in common."""

import os

import pytest
import torch
from torch.nn import functional as F

from synthmtl.data.augmentation import flip_landmarks
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.interference.features import collect_features
from synthmtl.interference.gates import measured_gates
from synthmtl.interference.units import gated_units
from synthmtl.labels import EXPRESSIONS, TASKS
from synthmtl.models import SJMT, EmotionGCN, ResidualMTL, match_capacity
from synthmtl.models.inference import load_network, predict_table, predict_tasks
from synthmtl.sharing import LEAKY_ABLATIONS, SHARING_UNITS

CLASSES = ("neutral", "happiness", "anger")
KINDS = (ResidualMTL, SJMT, EmotionGCN)
SHAPES = {"expression": (3,), "compound": (12,), "action_units": (22,), "landmarks": (68, 2), "valence_arousal": (2,)}
GATED = ("leaky", *LEAKY_ABLATIONS, "bottleneck", "sparse", "replace", "adopt")


def tiny(kind, seed=0, **config):
    torch.manual_seed(seed)
    return kind.sized("tiny", **({"classes": CLASSES} | config)).eval()


def trained(kind, **config):
    """A net that no longer starts at the identity."""
    model = tiny(kind, **config)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for name, b in model.named_buffers():
            if "running" in name:
                b.add_(0.1 * torch.rand_like(b))
    return model


def faces(count=3, channels=1, size=32):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", [None, TASKS], ids=["default", "all"])
def test_outputs_and_predictions(kind, tasks):
    config = {} if tasks is None else {"tasks": tasks, "shared_stages": 2}
    model = tiny(kind, **config)
    assert model.classes == CLASSES and (tasks is None or model.tasks == tasks)
    outputs, predicted = model(faces()), model.predict(faces())
    assert list(predicted) == list(model.tasks)
    for task in model.tasks:
        assert outputs[task].shape == predicted[task].shape == (3, *SHAPES[task])
        assert outputs[task].dtype == torch.float32 and not predicted[task].requires_grad
    assert torch.equal(model.recognize(faces()), predicted["expression"])
    torch.testing.assert_close(predicted["expression"].sum(1), torch.ones(3))


@pytest.mark.parametrize("sharing", SHARING_UNITS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_sharing_unit_and_what_measures_find(kind, sharing, tmp_path):
    model = trained(kind, sharing=sharing, one_unit=sharing == "sparse")
    outputs = model(faces())
    assert ("penalty" in outputs) == (sharing in ("sparse", "replace"))
    assert "penalty" not in outputs or (outputs["penalty"].shape == () and outputs["penalty"] > 0)
    model.save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = load_network(tmp_path)
    assert type(loaded) is kind and loaded.config.sharing == sharing and not loaded.training
    assert same(loaded(faces()), outputs)
    found = gated_units(model)
    assert bool(found) == (sharing in GATED)
    assert {unit.direction for unit in found} <= {"0_to_1", "1_to_0"}
    features = collect_features(model, [faces()])
    stages = len(model.trunk.branches[0])
    exchanges = {"adopt": stages}  # which goes one way
    assert len(features) == exchanges.get(sharing, 2 * stages)
    if found:
        with measured_gates(model, model.classes) as meter, torch.no_grad():
            model(faces())
        assert all(each.faces >= 3 and 0 <= each.mean <= 1 for each in meter.result())


@pytest.mark.parametrize("kind", KINDS)
def test_one_and_three_tasks(kind):
    alone = {"tasks": ["expression"]} | ({"association": False} if kind is ResidualMTL else {})
    model = tiny(kind, **alone, sharing="leaky")
    assert list(model(faces())) == ["expression"] and not gated_units(model)
    assert model.recognition_parameters() == sum(p.numel() for p in model.parameters())
    three = tiny(kind, tasks=["expression", "landmarks", "valence_arousal"], sharing="leaky")
    stages = len(three.trunk.branches[0])
    assert len(gated_units(three)) == 6 * stages
    assert three.predict(faces()).keys() == {"expression", "landmarks", "valence_arousal"}


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_weights_take_float32_faces(kind, tmp_path):
    model = trained(kind, tasks=TASKS, sharing="leaky")
    model.save_pretrained(tmp_path)
    half = kind.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    outputs, exact = half(faces()), model(faces())
    assert outputs.keys() == exact.keys()
    for values in (*outputs.values(), *half.predict(faces()).values(), half.recognize(faces())):
        assert values.dtype == torch.float32 and values.isfinite().all()
    torch.testing.assert_close(half.recognize(faces()), model.recognize(faces()), atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_recognition_parameters_are_those_that_recognition_needs(kind):
    for sharing in SHARING_UNITS:
        model = tiny(kind, sharing=sharing)
        model(faces())["expression"].square().sum().backward()
        assert model.recognition_parameters() == sum(p.numel() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_without_expression(kind):
    others = {"tasks": ["action_units"]} | ({"association": False} if kind is ResidualMTL else {})
    model = tiny(kind, **others)
    assert model.recognition_parameters() == 0
    with pytest.raises(InputError, match=f"{kind.__name__} predicts action_units and no expression"):
        model.recognize(faces())


@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(kind):
    with pytest.raises(InputError, match="unknown task 'age'"):
        tiny(kind, tasks=["expression", "age"])
    with pytest.raises(InputError, match="unknown sharing unit 'loose'"):
        tiny(kind, sharing="loose")
    with pytest.raises(InputError, match="image_size 40 does not suit the network: use a multiple of 16"):
        tiny(kind, image_size=40)
    for dropout in (1.5, 1.0, -0.1):
        with pytest.raises(InputError, match=rf"dropout is {dropout}: it must be in \[0, 1\)"):
            tiny(kind, dropout=dropout)
    with pytest.raises(InputError, match="unknown model size 'huge': use one of published, cpu, tiny"):
        kind.sized("huge", classes=CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind):
    model = kind.sized("cpu", classes=EXPRESSIONS).eval()
    assert model.predict(faces(size=48))["expression"].shape == (3, 8)
    assert sum(p.numel() for p in model.parameters()) < 1e6
    gate = tiny(kind, sharing="leaky").trunk.units[0].units["1_to_0"].gates.of_both
    assert gate.bias[-1] == -2 and tiny(kind).config.sharing_options == {}
    published = kind.SIZES["published"]
    assert published["image_channels"] == 3 and published["image_size"] >= 224


def test_twins_of_equal_capacity():
    wanted = tiny(SJMT, sharing="leaky").recognition_parameters()
    config = SJMT.SIZES["tiny"] | {"classes": CLASSES, "sharing_options": {}}
    assert match_capacity(SJMT, wanted, config).recognition_parameters() == pytest.approx(wanted, rel=0.02)


def table(count=10):
    pixels = torch.randint(0, 256, (count, 1, 32, 32), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    return FaceTable(images=pixels, classes=CLASSES)


def test_predictions_of_a_table():
    model = trained(SJMT, tasks=TASKS).train()
    images = table().images.float() / 127.5 - 1
    plain = predict_tasks(model, table(), batch_size=4, mirror=False)
    assert model.training
    both = predict_tasks(model, table(), batch_size=4)
    model.eval()
    for task, other in model.predict(images.flip(-1)).items():
        torch.testing.assert_close(plain[task], model.predict(images)[task], atol=1e-5, rtol=1e-5)
        other = flip_landmarks(other) if task == "landmarks" else other
        torch.testing.assert_close(both[task], (plain[task] + other) / 2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(predict_table(model, table()), both["expression"], atol=1e-5, rtol=1e-5)
    mirrored = predict_tasks(model, table().replace(images=table().images.flip(-1)))
    torch.testing.assert_close(flip_landmarks(mirrored["landmarks"]), both["landmarks"], atol=1e-5, rtol=1e-5)
    half = predict_tasks(model, table(), precision=torch.bfloat16)
    assert all(values.dtype == torch.float32 for values in half.values())
    with pytest.raises(InputError, match="the table is empty"):
        predict_tasks(model, table(0))


def test_no_such_network(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "UNet"}')
    with pytest.raises(InputError, match="'UNet', not one of FERSNet, .*ResidualMTL, SJMT, EmotionGCN"):
        load_network(tmp_path)


def labels(count=32):
    """Labels that no face can tell: a network can only learn them by heart."""
    generator = torch.Generator().manual_seed(4)
    return {
        "expression": torch.randint(0, 3, (count,), generator=generator),
        "action_units": torch.randint(0, 2, (count, 22), generator=generator).float(),
        "landmarks": 0.2 + 0.6 * torch.rand(count, 68, 2, generator=generator),
        "valence_arousal": 2 * torch.rand(count, 2, generator=generator) - 1,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_learns_32_faces_by_heart(kind):
    images, wanted = faces(32), labels()
    model = tiny(kind, stem_channels=16, stage_channels=(32, 32, 32)).train()
    losses = {
        "expression": F.cross_entropy,
        "action_units": F.binary_cross_entropy_with_logits,
        "landmarks": F.l1_loss,
        "valence_arousal": F.mse_loss,
    }
    steps = 120
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        outputs = model(images)
        terms = {task: losses[task](outputs[task], wanted[task]) for task in model.tasks}
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        schedule.step()
    limits = {"expression": 0.02, "action_units": 0.05, "landmarks": 0.02, "valence_arousal": 0.02}
    for task, loss in terms.items():
        assert loss < limits[task], task
    assert torch.equal(model.eval().recognize(images).argmax(1), wanted["expression"])


@pytest.mark.parametrize("kind", KINDS)
def test_faces_that_stages_would_shrink_to_a_pixel_are_refused(kind):
    with pytest.raises(InputError, match="does not suit the network"):
        kind.sized("tiny", classes=CLASSES, image_size=8)
