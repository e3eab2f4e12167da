import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.models import PatchDiscriminator

KINDS = [(c, s) for c in ("label_map", "projection") for s in (False, True)]


@pytest.mark.parametrize(("conditioning", "spectral"), KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_scores_patches_and_heeds_the_label(conditioning, spectral, channels):
    torch.manual_seed(0)
    critic = PatchDiscriminator(
        image_channels=channels, classes=5, channels=(8, 16, 16), conditioning=conditioning, spectral=spectral
    ).eval()
    faces = torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scores = critic(faces, torch.tensor([0, 4]))
    assert scores.shape == (2, 1, 4, 4) and scores.dtype == torch.float32
    assert torch.equal(critic(faces, torch.tensor([0, 4])), scores)
    other = critic(faces, torch.tensor([0, 1]))
    assert torch.allclose(other[0], scores[0], atol=1e-6) and not torch.allclose(other[1], scores[1], atol=1e-4)


def test_published_widths():
    critic = PatchDiscriminator(image_channels=3, classes=6)
    widths = [layer.out_channels for layer in critic.features if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [64, 128, 256, 512]
    assert critic(torch.zeros(1, 3, 96, 96), torch.tensor([2])).shape == (1, 1, 6, 6)


def test_unknown_conditioning():
    with pytest.raises(ValueError, match="unknown conditioning 'concat': use label_map or projection"):
        PatchDiscriminator(image_channels=1, classes=2, conditioning="concat")


def test_too_small_faces():
    with pytest.raises(InputError, match="at least 32 pixels a side, not 16"):
        PatchDiscriminator(image_channels=1, classes=2)(torch.zeros(2, 1, 16, 16), torch.tensor([0, 1]))
