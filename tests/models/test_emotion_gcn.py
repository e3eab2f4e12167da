import json

import pytest
import torch
import torchvision
from torch import nn

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS_7
from synthmtl.models import EmotionGCN
from synthmtl.models.backbones import TorchvisionTrunk
from synthmtl.models.cross_process import CrossProcessBatchNorm2d
from synthmtl.models.inference import load_network

CLASSES = ("neutral", "happiness", "anger")
PATH = [[0.5, 0, 0, 0.5, 0], [0, 0.5, 0, 0.25, 0.25], [0, 0, 1, 0, 0], [0.25, 0.25, 0, 0.5, 0], [0, 0.5, 0, 0, 0.5]]


def tiny(**config):
    torch.manual_seed(0)
    return EmotionGCN.sized("tiny", **({"classes": CLASSES} | config)).eval()


def faces(count=3, channels=1, size=32):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def word_file(path, dim=5):
    names = ["neutral", "joy", "anger", "valence", "arousal"]
    lines = [f"{name} " + " ".join(f"{(i * dim + j) % 7 / 7:.3f}" for j in range(dim)) for i, name in enumerate(names)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("node_vectors", ["learned", "one_hot", "random"])
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_output_is_features_times_the_graphs_classifiers(node_vectors, pooling):
    model = tiny(node_vectors=node_vectors, pooling=pooling, adjacency=PATH, sharing="leaky")
    (of_expression, of_affect), _ = model.trunk(faces())
    x, y = ((m.amax((2, 3)) if pooling == "max" else m.mean((2, 3))) for m in (of_expression, of_affect))
    weights = model.graph()
    assert weights.shape == (5, 16)
    outputs = model(faces())
    torch.testing.assert_close(outputs["expression"], x @ weights[:3].T)
    torch.testing.assert_close(outputs["valence_arousal"], y @ weights[3:].T)


def test_node_vectors():
    assert torch.equal(tiny(node_vectors="one_hot").graph.nodes, torch.eye(5))
    first, again = (tiny(node_vectors="random", node_seed=3).graph.nodes for _ in range(2))
    assert torch.equal(first, again) and not isinstance(first, nn.Parameter) and first.shape == (5, 300)
    assert not torch.equal(first, tiny(node_vectors="random", node_seed=4).graph.nodes)
    learned = tiny(node_dim=20)
    assert isinstance(learned.graph.nodes, nn.Parameter) and learned.graph.nodes.shape == (5, 20)
    with pytest.raises(
        InputError, match="node_vectors is 'word2vec': neither a file of word vectors nor one of learned"
    ):
        tiny(node_vectors="word2vec")


def test_word_vectors_come_along_with_the_weights(tmp_path):
    path = tmp_path / "glove.txt"
    model = tiny(node_vectors=word_file(path), adjacency=PATH)
    assert model.graph.nodes.shape == (5, 5) and model.graph.nodes[0].tolist() == pytest.approx(
        [0, 1 / 7, 2 / 7, 3 / 7, 4 / 7], abs=1e-3
    )
    model.save_pretrained(tmp_path / "model")
    path.unlink()
    loaded = load_network(tmp_path / "model")
    assert loaded.config.origin == {"word_vectors": "glove.txt"} and loaded.config.node_vectors == "stored"
    assert torch.equal(loaded(faces())["expression"], model(faces())["expression"])
    loaded.save_pretrained(tmp_path / "again")
    assert load_network(tmp_path / "again").config.origin == {"word_vectors": "glove.txt"}
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    path.write_text("neutral 1 2\n")
    with pytest.raises(InputError, match="has no vector for 'happiness'"):
        tiny(node_vectors=str(path))


def test_adjacency_is_part_of_the_configuration(tmp_path):
    model = tiny(adjacency=PATH)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["adjacency"] == PATH
    loaded = load_network(tmp_path)
    assert loaded.graph.adjacency.tolist() == PATH and "graph.adjacency" not in loaded.state_dict()
    assert torch.equal(tiny().graph.adjacency, torch.eye(5))
    for wrong in ("full", PATH[:4], [row[:4] for row in PATH]):
        with pytest.raises(InputError, match="adjacency: give identity, or 5 rows of 5 numbers"):
            tiny(adjacency=wrong)


def test_the_graph_lets_the_tasks_share_classifiers():
    def reached(**config):
        model = tiny(**config, node_vectors="learned", sharing="none")
        model(faces())["expression"].square().sum().backward()
        return model.graph.nodes.grad.abs().sum(1) > 0

    assert reached(adjacency=PATH).tolist() == [True, True, True, True, True]
    assert reached(adjacency="identity").tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_linear_control(pooling):
    model = tiny(head="linear", pooling=pooling)
    x = model.trunk(faces())[0][0]
    x = x.amax((2, 3)) if pooling == "max" else x.mean((2, 3))
    torch.testing.assert_close(model(faces())["valence_arousal"], model.linear["valence_arousal"](x))
    assert not hasattr(model, "graph")
    graph = tiny(pooling=pooling)
    assert graph.trunk.state_dict().keys() == model.trunk.state_dict().keys()


@pytest.mark.parametrize("head", ["gcn", "linear"])
def test_classifiers_of_half_precision_weights_compute_in_float32(head):
    half, exact = tiny(head=head, adjacency=PATH).bfloat16(), tiny(head=head, adjacency=PATH)
    exact.load_state_dict(half.state_dict())
    x = half.trunk(faces().bfloat16())[0][0].amax((2, 3)).float()
    if head == "linear":
        expected = exact.linear["expression"](x)
    else:
        assert half.graph().dtype == torch.float32 and torch.equal(half.graph(), exact.graph())
        expected = x @ exact.graph()[:3].T
    assert torch.equal(half(faces())["expression"], expected)


def test_half_precision_backbones_take_float32_faces(tmp_path):
    torch.manual_seed(0)
    model = EmotionGCN(CLASSES, backbone="resnet18", image_size=32, hidden_channels=16).eval()
    model.save_pretrained(tmp_path)
    half = EmotionGCN.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.recognize(faces()).dtype == torch.float32
    torch.testing.assert_close(half.recognize(faces()), model.recognize(faces()), atol=0.1, rtol=0)


@pytest.mark.parametrize(("option", "known"), [("head", "gcn or linear"), ("pooling", "max or average")])
def test_unknown_options(option, known):
    with pytest.raises(InputError, match=f"{option} is 'none': use {known}"):
        tiny(**{option: "none"})


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18", 512), ("densenet121", 1024), ("mobilenet_v3_small", 576), ("shufflenet_v2_x0_5", 1024)],
)
def test_torchvision_backbones(name, channels, tmp_path):
    torch.manual_seed(0)
    model = EmotionGCN(
        CLASSES, backbone=name, image_size=64, hidden_channels=16, tasks=("expression", "landmarks")
    ).eval()
    assert (model.trunk.channels, model.trunk.map_size) == (channels, 2)
    outputs = model(faces(2, size=64))
    assert outputs["expression"].shape == (2, 3) and outputs["landmarks"].shape == (2, 68, 2)
    kinds = {type(m) for m in model.trunk.modules() if isinstance(m, nn.BatchNorm2d)}
    assert kinds == {CrossProcessBatchNorm2d}
    model.save_pretrained(tmp_path)
    for loaded in (
        load_network(tmp_path),
        EmotionGCN.from_pretrained(tmp_path),  # builds the network without memory for its weights, and then fills it
        EmotionGCN.from_pretrained(tmp_path, low_cpu_mem_usage=False),
    ):
        assert not loaded.training and (loaded.trunk.channels, loaded.trunk.map_size) == (channels, 2)
        assert torch.equal(loaded(faces(2, size=64))["expression"], outputs["expression"])
    assert model.recognition_parameters() == sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in model.heads.parameters()
    )


def test_a_backbone_computes_what_torchvision_does():
    torch.manual_seed(0)
    trunk = TorchvisionTrunk("resnet18", tasks=2, image_size=64, pretrained=False).eval()
    whole = torchvision.models.resnet18(weights=None).eval()
    whole.load_state_dict(trunk.features.state_dict(), strict=False)
    whole.fc = nn.Identity()
    gray = faces(2, size=64)
    first, second = trunk(gray)[0]
    assert first is second
    pixels = (gray.repeat(1, 3, 1, 1) + 1) / 2
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (pixels - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(first.mean((2, 3)), whole(normalized), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(trunk(gray.repeat(1, 3, 1, 1))[0][0], first)


def test_a_backbone_is_as_it_was_drawn_after_its_map_was_measured():
    torch.manual_seed(0)
    trunk = TorchvisionTrunk("resnet18", tasks=1, image_size=64, pretrained=False)
    torch.manual_seed(0)
    whole = torchvision.models.resnet18(weights=None).state_dict()
    assert trunk.training and all(m.training for m in trunk.modules())
    assert all(torch.equal(value, whole[name]) for name, value in trunk.features.state_dict().items())


def test_pretrained_weights_are_taken_once(monkeypatch, tmp_path):
    torch.manual_seed(5)
    weights = torchvision.models.resnet18(weights=None).state_dict()
    asked = []
    monkeypatch.setattr(
        torchvision.models.ResNet18_Weights, "get_state_dict", lambda self, *_, **__: asked.append(self) or weights
    )
    model = EmotionGCN(CLASSES, backbone="resnet18", pretrained=True, image_size=32).eval()
    assert torch.equal(model.trunk.features.conv1.weight, weights["conv1.weight"]) and len(asked) == 1
    model.save_pretrained(tmp_path)
    loaded = load_network(tmp_path)
    assert len(asked) == 1 and loaded.config.origin == {"weights": "ResNet18_Weights.IMAGENET1K_V1"}
    assert torch.equal(loaded(faces())["expression"], model(faces())["expression"])


def test_weights_that_cannot_be_had(monkeypatch):
    def offline(self, *_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", offline)
    message = r"backbone resnet18: cannot download https://.*resnet18-.*\.pth \(no network\); put the file into"
    with pytest.raises(InputError, match=message):
        EmotionGCN(CLASSES, backbone="resnet18", pretrained=True, image_size=32)
    with pytest.raises(InputError, match="there are no weights for the narrow backbone"):
        tiny(pretrained=True)


def test_backbones_that_do_not_suit():
    with pytest.raises(InputError, match="unknown backbone 'resnet1': use narrow, or a classifier of torchvision"):
        tiny(backbone="resnet1")
    for name in ("vit_b_16", "swin_t"):
        message = f"backbone '{name}' has no feature map to read"
        with torch.device("meta"), pytest.raises(InputError, match=message):
            EmotionGCN(CLASSES, backbone=name, image_size=224)
    with pytest.raises(
        InputError, match="backbone 'resnet18' is one trunk for all tasks: sharing must be hard, not leaky"
    ):
        tiny(backbone="resnet18", sharing="leaky")


def test_faces_too_small_for_a_backbone():
    with pytest.raises(InputError, match="image_size 48 is too small for backbone alexnet"):
        tiny(backbone="alexnet", image_size=48)


def test_published_size():
    published = EmotionGCN.SIZES["published"]
    assert (published["backbone"], published["pretrained"]) == ("densenet121", True)
    config = published | {"pretrained": False, "image_size": 64}
    model = EmotionGCN(EXPRESSIONS_7, **config)
    graph = sum(p.numel() for p in model.graph.parameters())
    assert graph == 9 * 300 + 300 * 512 + 512 * 1024  # learned nodes, two graph convolutions without biases
    assert model.config.head == "gcn" and model.config.pooling == "max"
