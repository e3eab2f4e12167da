import os

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS_7
from synthmtl.models import DIFFUSION_SIZES, FERSNET_SIZES, DiffusionFERSNet
from synthmtl.models.conditions import CONDITIONS
from synthmtl.models.denoiser import CHANGE_SCALE
from synthmtl.models.inference import load_network

CLASSES = ("neutral", "happiness", "anger")
WANTED = {
    "expression": torch.tensor([0, 2, 1]),
    "action_units": torch.rand(3, 22, generator=torch.Generator().manual_seed(3)),
    "valence_arousal": torch.tensor([[0.0, 0.0], [-0.6, 0.6], [0.8, 0.4]]),
}


def tiny(seed=0, **config):
    torch.manual_seed(seed)
    return DiffusionFERSNet.sized("tiny", **({"classes": CLASSES} | config)).eval()


def trained(**config):
    """A net whose adapters have left their zeros."""
    model = tiny(**config)
    with torch.no_grad():
        for p in model.adapter.parameters():
            p.normal_(std=0.3)
    return model


def faces(count=3, channels=1, size=32, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def denoise(model, encoded, wanted=None, **keep):
    """Prediction for the same noisy faces, whatever the conditions."""
    with torch.no_grad():
        config = model.config
        noisy = 1.5 * faces(3, config.image_channels, config.image_size, seed=9)
        wanted = WANTED[config.condition] if wanted is None else wanted
        return model.denoise(noisy, torch.tensor([10, 500, 990]), encoded, wanted, **keep)


@pytest.mark.parametrize(
    ("condition", "prediction", "channels", "patch_size"),
    [("expression", "v", 1, 2), ("action_units", "flow", 3, 1), ("valence_arousal", "v", 3, 2)],
)
def test_interface(condition, prediction, channels, patch_size):
    model = trained(condition=condition, prediction=prediction, image_channels=channels, patch_size=patch_size)
    images = faces(channels=channels)
    assert model.classes == CLASSES and model.schedule.prediction == prediction
    probabilities = model.recognize(images)
    assert probabilities.shape == (3, 3) and not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    encoded = model.encode(images)
    assert model.classify(encoded).shape == (3, 3)
    assert denoise(model, encoded).shape == images.shape and denoise(model, encoded).dtype == torch.float32
    made = model.synthesize(images, WANTED[condition], generator=torch.Generator().manual_seed(0), steps=2)
    assert made.shape == images.shape and made.dtype == torch.float32 and not made.requires_grad
    assert -1 <= made.min() < made.max() <= 1


@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_48_pixels_in_several_resolutions(levels, patch_size):
    model = trained(image_size=48, unet_channels=(8, 16, 16, 24)[:levels], patch_size=patch_size)
    assert denoise(model, model.encode(faces(size=48))).shape == (3, 1, 48, 48)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_at_the_start_the_source_has_no_influence(patch_size):
    model = tiny(patch_size=patch_size)
    alone = denoise(model, None)
    assert torch.equal(denoise(model, model.encode(faces())), alone) and alone.abs().mean() > 0.01


@pytest.mark.parametrize("patch_size", [1, 2])
def test_a_dropped_source_never_has_any(patch_size):
    model = trained(patch_size=patch_size)
    alone, encoded, others = denoise(model, None), model.encode(faces()), model.encode(faces(seed=1))
    assert not torch.allclose(denoise(model, encoded), denoise(model, others), atol=1e-3)
    keep = torch.tensor([True, False, True])
    some = denoise(model, encoded, keep_source=keep)
    torch.testing.assert_close(some[keep], denoise(model, encoded)[keep], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(some[1], alone[1], atol=1e-6, rtol=1e-5)
    none = torch.zeros(3, dtype=torch.bool)
    assert torch.equal(denoise(model, encoded, keep_source=none), denoise(model, others, keep_source=none))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_null_condition(condition):
    model = trained(condition=condition)
    encoded, wanted = model.encode(faces()), WANTED[condition]
    told = denoise(model, encoded)
    assert not torch.allclose(told, denoise(model, encoded, wanted.flip(0)), atol=1e-4)
    none = torch.zeros(3, dtype=torch.bool)
    null = denoise(model, encoded, keep_condition=none)
    assert not torch.allclose(told, null, atol=1e-4)
    assert torch.equal(null, denoise(model, encoded, wanted.flip(0), keep_condition=none))
    assert torch.equal(null, denoise(model, encoded, model.target.missing(3, null.device)))
    with torch.no_grad():
        noisy, times = 1.5 * faces(seed=9), torch.tensor([10, 500, 990])
        assert torch.equal(null, model.denoise(noisy, times, encoded, None))


def test_every_feature_of_the_source_counts():
    model = trained()
    encoded = model.encode(faces())
    before = denoise(model, encoded)
    for changed in (
        encoded._replace(synthesis=encoded.synthesis + 1),
        *(
            encoded._replace(skips=[skip + (i == k) for k, skip in enumerate(encoded.skips)])
            for i in range(len(encoded.skips))
        ),
    ):
        assert not torch.allclose(denoise(model, changed), before, atol=1e-3)
    # What recognition is told has no other way into the denoiser.
    assert torch.equal(denoise(model, encoded._replace(recognition=encoded.recognition + 1)), before)


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_saved_and_loaded(prediction, tmp_path):
    model = trained(prediction=prediction, sharing_options={"gate_bias": -1.0})
    model.save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "diffusion_pytorch_model.safetensors"]

    def made(net):
        return net.synthesize(faces(), WANTED["expression"], generator=torch.Generator().manual_seed(0), steps=2)

    for loaded in (DiffusionFERSNet.from_pretrained(tmp_path, use_safetensors=True), load_network(tmp_path)):
        assert isinstance(loaded, DiffusionFERSNet) and not loaded.training and loaded.classes == CLASSES
        assert loaded.config.sharing_options == {"gate_bias": -1.0} and loaded.schedule.prediction == prediction
        assert torch.equal(loaded(faces()), model(faces()))
        assert torch.equal(made(loaded), made(model))


def test_recognition_knows_nothing_of_the_denoiser():
    model = tiny()
    before = model.recognize(faces())
    with torch.no_grad():
        for part in (model.unet, model.adapter, model.target):
            for p in part.parameters():
                p.normal_()
    assert torch.equal(model.recognize(faces()), before)


@pytest.mark.parametrize("sharing", ["leaky", "none", "hard"])
def test_parts_of_recognition(sharing):
    model = tiny(sharing=sharing)
    model(faces()).sum().backward()
    assert model.recognition_parameters() == sum(p.numel() for p in model.parameters() if p.grad is not None)


def test_sizes():
    assert set(DIFFUSION_SIZES) == set(FERSNET_SIZES)
    assert 2e6 < sum(p.numel() for p in DiffusionFERSNet.sized("cpu", classes=EXPRESSIONS_7).parameters()) < 3.5e6
    with torch.device("meta"):
        published = DiffusionFERSNet.sized("published", classes=EXPRESSIONS_7, image_channels=3)
    assert published.config.image_size == 128 and sum(p.numel() for p in published.unet.parameters()) > 5e7
    assert published.adapter.chosen == [[0], [0], [1], [2], [3]]
    with pytest.raises(InputError, match="unknown model size 'huge': use one of published, cpu, tiny"):
        DiffusionFERSNet.sized("huge", classes=CLASSES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_size": 40}, "image_size 40 and patch_size 2 do not suit .* a multiple of 16 from 32"),
        ({"patch_size": 3}, "patches of 1 or 2"),
        ({"image_size": 48, "unet_channels": (8,) * 5}, "a multiple of 32 from 32"),
        ({"prediction": "noise"}, "unknown prediction 'noise'"),
        ({"condition": "mood"}, "unknown condition 'mood'"),
    ],
)
def test_configurations_that_do_not_suit(config, message):
    with pytest.raises(InputError, match=message):
        tiny(**config)


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_a_right_denoiser_of_changes_gives_the_wanted_face(prediction, monkeypatch):
    model, source, wanted = tiny(diffused="change", prediction=prediction), 0.8 * faces(), 0.8 * faces(seed=1)
    made = model.diffusible(wanted, source)
    torch.testing.assert_close(made, CHANGE_SCALE * (wanted - source))
    monkeypatch.setattr(
        model, "denoise", lambda noisy, time, *_, **__: model.schedule.predicted(noisy, made, time.expand(len(noisy)))
    )
    grainless = torch.zeros_like(source)
    edited = model.synthesize(source, torch.tensor([0, 1, 2]), generator=torch.Generator(), grain=grainless)
    torch.testing.assert_close(edited, wanted, atol=1e-4, rtol=0)


def test_without_a_source_whole_faces_are_made_and_kept_sources_decide_row_by_row():
    model, source, wanted = tiny(diffused="change"), faces(), faces(seed=1)
    assert model.diffusible(wanted, None) is wanted
    assert tiny().diffusible(wanted, source) is wanted
    rows = model.diffusible(wanted, source, torch.tensor([True, False, True]))
    assert torch.equal(rows[1], wanted[1])
    torch.testing.assert_close(rows[::2], CHANGE_SCALE * (wanted - source)[::2])
    for images in (None, source):
        made = model.synthesize(images, torch.tensor([0, 1, 2]), generator=torch.Generator().manual_seed(0))
        assert made.shape == source.shape and made.min() >= -1 and made.max() <= 1


def test_what_is_diffused_is_kept_by_files_and_checked(tmp_path):
    tiny(diffused="change").save_pretrained(tmp_path)
    assert load_network(tmp_path).config.diffused == "change"
    with pytest.raises(InputError, match="diffused is 'both': use face or change"):
        tiny(diffused="both")
