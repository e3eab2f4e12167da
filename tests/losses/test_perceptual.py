import pytest
import torch
from lpips import LPIPS

from synthmtl.errors import InputError
from synthmtl.losses import perceptual
from synthmtl.losses.perceptual import LpipsDistance, perceptual_distance
from synthmtl.losses.reconstruction import FeatureDistance


@pytest.fixture(scope="module")
def distance():
    torch.manual_seed(0)
    return LpipsDistance(LPIPS(net="alex", pnet_rand=True, verbose=False))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 48, 96])
def test_lpips_distance(distance, channels, size):
    faces = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    other = faces.flip(0)
    assert torch.equal(distance(faces, faces), torch.zeros(3))
    apart = distance(faces, other)
    assert apart.shape == (3,) and apart[0] > 0 and apart[1] == 0
    faces.requires_grad_(True)
    distance(faces, other).sum().backward()
    assert faces.grad.count_nonzero() > 0
    assert not any(p.requires_grad for p in distance.parameters())


def test_named_distances(monkeypatch, tmp_path):
    def features(images):
        return [images, images, images]

    monkeypatch.setattr(perceptual, "lpips_weights", lambda: tmp_path / "missing.pth")
    for name in ("guide", "auto"):
        module, kind = perceptual_distance(name, features)
        assert isinstance(module, FeatureDistance) and kind == "guide"
    assert perceptual_distance("auto", None) == (None, "none")
    with pytest.raises(InputError, match="vgg.*auto, guide, lpips"):
        perceptual_distance("vgg", features)


def test_auto_takes_lpips_where_its_weights_are(monkeypatch, tmp_path):
    (tmp_path / "alexnet.pth").touch()
    monkeypatch.setattr(perceptual, "lpips_weights", lambda: tmp_path / "alexnet.pth")
    monkeypatch.setattr("lpips.LPIPS", lambda **options: LPIPS(**options, pnet_rand=True))
    module, kind = perceptual_distance("auto", None)
    assert isinstance(module, LpipsDistance) and kind == "lpips"


def test_lpips_without_its_weights_says_so(monkeypatch):
    def offline(**options):
        raise OSError("no route to host")

    monkeypatch.setattr("lpips.LPIPS", offline)
    with pytest.raises(InputError, match="AlexNet's weights.*no route to host"):
        perceptual_distance("lpips", None)
