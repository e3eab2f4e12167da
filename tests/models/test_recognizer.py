import os

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.models import Recognizer

CLASSES = ("neutral", "happiness", "anger")


def faces(count=3, channels=1, size=48):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_interface(channels, norm):
    torch.manual_seed(0)
    model = Recognizer(CLASSES, image_channels=channels, norm=norm).eval()
    probabilities = model.recognize(faces(channels=channels))
    assert probabilities.shape == (3, 3) and model.classes == CLASSES
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    maps = model.features(faces(channels=channels))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 24, 24), (32, 12, 12), (64, 6, 6), (96, 3, 3), (96, 3, 3)]
    assert model.recognition_parameters() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_size": 33}, "image_size 33 does not suit the network: use an even number from 16"),
        ({"image_size": 14}, "image_size 14 does not suit the network: use an even number from 16"),
        ({"image_size": 15, "stem_kind": "pool"}, "image_size 15 does not suit the network: use from 16"),
        ({"stage_channels": ()}, r"stage_channels and joint_channels are 16, \[\] and 96: use widths of at least 1"),
        ({"stage_channels": (32, -1, 96)}, r"are 16, \[32, -1, 96\] and 96: use widths of at least 1"),
        ({"stem_channels": 0}, r"are 0, \[32, 64, 96\] and 96: use widths of at least 1"),
        ({"joint_channels": 0}, r"are 16, \[32, 64, 96\] and 0: use widths of at least 1"),
        ({"dropout": 1.5}, r"dropout is 1.5: it must be in \[0, 1\)"),
    ],
)
def test_configurations_that_do_not_suit(config, message):
    with pytest.raises(InputError, match=message):
        Recognizer(CLASSES, **config)


@pytest.mark.parametrize(("size", "stem_kind"), [(16, "unshuffle"), (16, "pool"), (33, "pool")])
def test_sizes_that_the_network_takes(size, stem_kind):
    model = Recognizer(CLASSES, image_size=size, stem_kind=stem_kind).eval()
    assert model(faces(size=size)).shape == (3, 3)


def test_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = Recognizer(CLASSES, stem_channels=4, stage_channels=(4, 8), joint_channels=8, dropout=0.2)
    model(faces(8))  # moves the running statistics
    model.eval().save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = Recognizer.from_pretrained(tmp_path, use_safetensors=True)
    assert not loaded.training and loaded.classes == CLASSES
    assert torch.equal(loaded(faces()), model(faces()))
    half = Recognizer.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.recognize(faces()).dtype == torch.float32
    torch.testing.assert_close(half.recognize(faces()), model.recognize(faces()), atol=0.02, rtol=0)
