import os

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS, EXPRESSIONS_7
from synthmtl.models import FERSNET_SIZES, FERSNet
from synthmtl.models.decoder import EditDecoder
from synthmtl.models.fersnet import sized_config
from synthmtl.sharing import SHARING_UNITS, LeakySharing
from synthmtl.sharing.gates import PairwiseSharing

HAVE_KERNELS = [name for name, unit in SHARING_UNITS.items() if issubclass(unit, LeakySharing)]

CLASSES = ("neutral", "happiness", "anger")


def tiny(seed=0, **config):
    torch.manual_seed(seed)
    return FERSNet.sized("tiny", **({"classes": CLASSES} | config)).eval()


def trained(**config):
    """A net that no longer starts at the identity."""
    model = tiny(**config)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for b in model.buffers():
            if b.is_floating_point():
                b.add_(0.1 * torch.rand_like(b))
    return model


def faces(count=3, channels=1, size=32):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


WANTED = torch.tensor([0, 2, 1])


def synthesize(model, *, seed=0, wanted=WANTED, **options):
    images = faces(len(wanted), model.config.image_channels, model.config.image_size)
    return model.synthesize(images, wanted, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize(
    ("sharing", "output", "channels"),
    [("leaky", output, channels) for output in ("flow", "direct") for channels in (1, 3)]
    + [(name, "flow", 1) for name in SHARING_UNITS],
)
def test_interface(sharing, output, channels):
    model = trained(sharing=sharing, output=output, image_channels=channels)
    images = faces(channels=channels)
    probabilities = model.recognize(images)
    assert probabilities.shape == (3, 3) and not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))
    edited = synthesize(model)
    assert edited.shape == images.shape and edited.dtype == torch.float32 and not edited.requires_grad
    assert edited.min() >= -1 and edited.max() <= 1
    assert model.classes == CLASSES
    encoded = model.encode(images)
    edit = model.decode(encoded, images, WANTED, torch.zeros(3, 16))
    if output == "flow":
        assert edit.flow.shape == (3, 2, 32, 32) and edit.residual.shape == images.shape
        assert edit.flow.abs().max() <= model.decoder.max_flow
    else:
        assert edit.flow is None and edit.residual is None


@pytest.mark.parametrize("sharing", SHARING_UNITS)
def test_saved_and_loaded(sharing, tmp_path):
    options = {"kernel_size": 3} if sharing in HAVE_KERNELS else {}
    model = trained(sharing=sharing, sharing_options=options, one_unit=sharing == "sparse")
    model.save_pretrained(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = FERSNet.from_pretrained(tmp_path, use_safetensors=True)
    assert not loaded.training
    assert loaded.classes == CLASSES and loaded.config.sharing == sharing
    wanted = sized_config("tiny", sharing=sharing, sharing_options=options)["sharing_options"]
    assert loaded.config.sharing_options == wanted
    assert loaded.config.image_size == 32
    assert torch.equal(loaded(faces()), model(faces()))
    assert torch.equal(synthesize(loaded), synthesize(model))


@pytest.mark.parametrize("output", ["flow", "direct"])
@pytest.mark.parametrize("condition", ["expression", "action_units", "valence_arousal"])
def test_half_precision_weights_take_float32_faces(output, condition, tmp_path):
    tasks = ("expression", "synthesis", "landmarks", "action_units")
    model = tiny(output=output, condition=condition, tasks=tasks)
    model.save_pretrained(tmp_path)
    half = FERSNet.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    wanted = (
        WANTED if condition == "expression" else torch.rand(3, {"action_units": 22, "valence_arousal": 2}[condition])
    )
    edited = synthesize(half, wanted=wanted)
    predicted = half.predict(faces())
    for values in (edited, half.recognize(faces()), *predicted.values(), *half.style.posterior(faces())):
        assert values.dtype == torch.float32 and values.isfinite().all()
    torch.testing.assert_close(edited, synthesize(model, wanted=wanted), atol=0.05, rtol=0)
    torch.testing.assert_close(half.recognize(faces()), model.recognize(faces()), atol=0.05, rtol=0)
    if output == "flow":  # an edit that changes nothing loses nothing of the face, whatever the weights' precision
        torch.testing.assert_close(edited, faces(), atol=1e-5, rtol=0)


def test_published_size():
    model = FERSNet.sized("published", classes=EXPRESSIONS_7, image_channels=3).eval()
    images = faces(1, 3, 96)
    encoded = model.encode(images)
    assert encoded.recognition.shape == encoded.synthesis.shape == (1, 512, 6, 6)
    assert [tuple(s.shape[1:]) for s in encoded.skips] == [(256, 12, 12), (128, 24, 24), (64, 48, 48)]
    assert model.classify(encoded).shape == (1, 7)
    edit = model.decode(encoded, images, torch.tensor([4]), torch.zeros(1, 16))
    assert edit.image.shape == (1, 3, 96, 96) and edit.flow is None

    def count(part):
        return sum(p.numel() for p in part.parameters())

    def block(i, o):
        # two 3×3 convolutions, two affine norms, and a shortcut where widths differ
        return 9 * i * o + 9 * o * o + 4 * o + (i * o if i != o else 0)

    stages = block(64, 128) + block(128, 256) + block(256, 512)
    encoder = model.encoder
    assert count(encoder.stem) == 9 * 3 * 64 + 2 * 64
    assert [count(branch) for branch in encoder.branches] == [stages, stages]
    assert count(encoder.units) == sum(2 * 6 * c**2 for c in (128, 256, 512))
    assert count(encoder.joint) == block(1024, 1024)
    assert count(model.head) == 512**2 + 2 * 512 + 512 * 7 + 7
    assert model.recognition_parameters() == count(encoder) + count(model.head)


def test_widths_of_the_sizes():
    assert FERSNET_SIZES["published"]["image_size"] == 96
    model = FERSNet.sized("cpu", classes=EXPRESSIONS)
    assert (model.config.image_size, model.config.output, len(model.classes)) == (48, "flow", 8)
    assert model.decode(model.encode(faces(1, 1, 48)), faces(1, 1, 48), torch.tensor([7]), torch.zeros(1, 16))
    with pytest.raises(InputError, match="unknown model size 'huge': use one of published, cpu, tiny"):
        FERSNet.sized("huge", classes=CLASSES)


@pytest.mark.parametrize("size", [40, 16])
def test_sizes_that_do_not_suit(size):
    with pytest.raises(InputError, match=f"image_size {size} does not suit the network: use a multiple of 16 from 32"):
        tiny(image_size=size)


@pytest.mark.parametrize("output", ["flow", "direct"])
def test_parts_of_recognition(output):
    counts = {name: tiny(sharing=name, output=output).recognition_parameters() for name in SHARING_UNITS}
    assert counts["leaky"] == tiny().recognition_parameters()  # whatever the decoder
    assert counts["leaky"] > counts["hard"]
    # Without sharing, what synthesis alone uses is left out: exactly the parameters that logits depend on remain.
    for name in SHARING_UNITS:
        model = tiny(sharing=name, output=output)
        model(faces()).sum().backward()
        assert counts[name] == sum(p.numel() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("sharing", SHARING_UNITS)
@pytest.mark.parametrize("joint", ["common", "apart"])
@pytest.mark.parametrize("further", [(), ("landmarks",), ("landmarks", "action_units")])
@pytest.mark.parametrize("options", [{}, {"stages": [0]}, {"stages": [1, 2], "receivers": [1]}])
def test_parts_of_recognition_are_those_that_reach_it(sharing, joint, further, options):
    if SHARING_UNITS[sharing].single_trunk or sharing == "none":
        options = {}
    elif not issubclass(SHARING_UNITS[sharing], PairwiseSharing):
        options = {name: value for name, value in options.items() if name == "stages"}
    tasks = ("expression", "synthesis", *further)
    model = tiny(sharing=sharing, sharing_options=options, joint=joint, tasks=tasks)
    model(faces()).sum().backward()
    assert model.recognition_parameters() == sum(p.numel() for p in model.parameters() if p.grad is not None)


def test_a_flow_decoder_starts_at_the_source():
    # Bilinear fetches at the pixels' own places round in float32; nothing else may differ.
    torch.testing.assert_close(synthesize(tiny()), faces(), atol=1e-5, rtol=0)


def test_synthesis_is_deterministic_by_seed_and_varies_with_it():
    model = trained()
    assert torch.equal(synthesize(model, seed=3), synthesize(model, seed=3))
    assert not torch.equal(synthesize(model, seed=3), synthesize(model, seed=4))
    state = torch.get_rng_state()
    synthesize(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_style_and_spread():
    model, clean = trained(), torch.zeros_like(faces(len(WANTED)))
    assert torch.equal(
        synthesize(model, seed=3, spread=0.0, grain=clean), synthesize(model, seed=4, spread=0.0, grain=clean)
    )
    mean, _ = model.style.prior(WANTED)
    assert torch.equal(synthesize(model, style=mean, grain=clean), synthesize(model, spread=0.0, grain=clean))


def test_target_enters_the_decoder_only():
    model = trained()
    images = faces()
    with torch.no_grad():
        encoded = model.encode(images)
        style = torch.zeros(3, 16)
        edits = [model.decode(encoded, images, torch.full((3,), k), style).image for k in range(3)]
    assert not torch.allclose(edits[0], edits[1]) and not torch.allclose(edits[1], edits[2])
    # No part of the encoder or the head is as wide as the label code or reads anything but pixels.
    seen = []
    handle = model.encoder.register_forward_hook(lambda _, inputs, out: seen.append((inputs, out)))
    for k in range(2):
        synthesize(model, wanted=torch.full((3,), k))
    handle.remove()
    (inputs_a, out_a), (inputs_b, out_b) = seen
    assert len(inputs_a) == len(inputs_b) == 1 and torch.equal(inputs_a[0], inputs_b[0])
    for a, b in zip([*out_a[:2], *out_a.skips], [*out_b[:2], *out_b.skips], strict=True):
        assert torch.equal(a, b)


def test_the_gates_are_configured():
    def bias(**config):
        return tiny(**config).encoder.units[0].units["1_to_0"].gates.of_both.bias

    assert bias()[-1] == -2
    published = FERSNET_SIZES["published"]
    assert published["sharing_options"] == {} and published["output"] == "direct" and published["stem_kind"] == "pool"
    assert bias(sharing_options={"gate_bias": None}) is None
    assert bias(sharing_options={"kernel_size": 3})[-1] == -2  # the size's options stay where there are no others
    with pytest.raises(InputError, match="unit 'hard' has no option 'gate_bias', it has none"):
        tiny(sharing="hard", sharing_options={"gate_bias": -2.0})


def test_penalties_of_all_stages():
    model = tiny(sharing="replace", sharing_options={"weight": 0.5})
    total = sum(unit.penalty() for unit in model.encoder.units) if model.encode(faces()).penalty is not None else 0
    torch.testing.assert_close(model.encode(faces()).penalty, total)
    assert tiny().encode(faces()).penalty is None
    shared = tiny(sharing="replace", sharing_options={"weight": 0.5}, one_unit=True)
    penalty = shared.encode(faces()).penalty
    assert penalty > 2 * shared.encoder.units[0].penalty()  # three stages went through it, the last is remembered


def test_decoder_of_its_own_width():
    plain, wide = tiny(), tiny(decoder_channels=(12, 10, 6), painted_channels=5)
    assert [block.convolution.out_channels for block in plain.decoder.blocks] == [16, 8, 8]
    assert [block.convolution.out_channels for block in wide.decoder.blocks] == [12, 10, 6]
    assert wide.decoder.paint[0].out_channels == 5
    assert wide.recognition_parameters() == plain.recognition_parameters()
    with torch.no_grad():
        assert synthesize(wide).shape == synthesize(plain).shape


def test_unknown_decoder_output():
    with pytest.raises(ValueError, match="unknown decoder output 'gan'"):
        EditDecoder(in_channels=4, skip_channels=(4,), image_channels=1, code_dim=2, style_dim=2, output="gan")


@pytest.mark.parametrize("condition", ["expression", "valence_arousal"])
def test_wanted_targets_follow_the_faces_to_their_device(condition):
    with torch.device("meta"):  # stands for any device but that of the targets
        net = tiny(condition=condition)
        images = torch.zeros(3, 1, 32, 32)
    wanted = WANTED if condition == "expression" else torch.zeros(3, 2)
    assert net.synthesize(images, wanted).device.type == "meta"
    assert net.decode(net.encode(images), images, wanted, torch.zeros(3, 16)).image.device.type == "meta"


def test_an_edit_to_nothing_is_refused():
    net = FERSNet.sized("tiny", classes=("neutral", "happiness"))
    with pytest.raises(InputError, match="-1 names none"):
        net.synthesize(torch.zeros(2, 1, 32, 32), torch.tensor([0, -1]))


def test_classes_that_there_are_not():
    for wanted in ([0, 1, 3], [0, -3, 1]):
        with pytest.raises(InputError, match="expressions are numbered from 0 to 2 here"):
            tiny().synthesize(faces(), torch.tensor(wanted))
    with pytest.raises(InputError, match="expressions are names or whole numbers"):
        tiny().synthesize(faces(), torch.rand(3))


def test_as_many_targets_as_sources():
    for wanted in (WANTED[:1], WANTED.repeat(2)):
        with pytest.raises(InputError, match=f"3 images for {len(wanted)} expressions: give one for each"):
            tiny().synthesize(faces(), wanted)
    with pytest.raises(InputError, match="3 images for 2 expressions"):
        tiny(condition="valence_arousal").synthesize(faces(), torch.zeros(2, 2))
