import dataclasses
import functools

import pytest

from synthmtl.errors import InputError
from synthmtl.experiment import run_main_job
from synthmtl.experiment.checks import READ_ONLY, RENDERED_ONLY, check_config, check_faces
from synthmtl.experiment.config import FaceOptions, MainJobConfig, ModelOptions, preset
from synthmtl.labels import EXPRESSIONS
from synthmtl.losses import SynthesisWeights
from synthmtl.losses.diffusion import DenoisingOptions
from synthmtl.models import DiffusionFERSNet
from synthmtl.models.sampling import SamplingOptions


@pytest.mark.parametrize("name", ["smoke", "quick", "full"])
@pytest.mark.parametrize("rendered", [True, False])
@pytest.mark.parametrize("generator", ["gan", "diffusion"])
def test_presets_are_valid_and_say_their_name(name, rendered, generator):
    config = preset(name, rendered=rendered, generator=generator)
    check_config(config, world=2)
    assert (config.preset, config.model.generator) == (name, generator)
    assert (config.joint.ema_decay is None) == (generator == "gan")


def test_unknown_preset():
    with pytest.raises(InputError, match="unknown preset 'huge': use smoke, quick or full"):
        preset("huge", rendered=True)


def test_channels():
    assert (FaceOptions().channels, FaceOptions(color=True).channels) == (1, 3)


def test_widths_follow_the_factor():
    narrow, wide = ModelOptions(size="cpu"), ModelOptions(size="cpu", width=2.0)
    for name, value in narrow.widths().items():
        double = tuple(2 * v for v in value) if isinstance(value, tuple) else 2 * value
        assert wide.widths()[name] == double
    assert ModelOptions(size="tiny").widths()["decoder_channels"] is None  # as wide as the encoder
    assert ModelOptions(size="tiny", width=0.01).widths()["stem_channels"] == 4
    with pytest.raises(InputError, match="unknown model size"):
        ModelOptions(size="huge").widths()


def test_built_network_is_as_asked():
    faces = FaceOptions(image_size=32, color=True)
    model = ModelOptions(size="tiny", sharing="none").build(EXPRESSIONS[:3], faces)
    assert (model.config.image_size, model.config.image_channels, model.config.sharing) == (32, 3, "none")
    gated = ModelOptions(size="tiny").build(EXPRESSIONS, faces)
    twin = ModelOptions(size="tiny").build(EXPRESSIONS, faces, matched_hard=True)
    assert gated.config.sharing == "leaky" and twin.config.sharing == "hard"
    assert twin.recognition_parameters() == pytest.approx(gated.recognition_parameters(), rel=0.02)


def test_hard_matched_is_as_large_as_the_leaky_network():
    faces = FaceOptions(image_size=32)
    for options in ({}, {"kernel_size": 3}):
        gated = ModelOptions(size="tiny", sharing_options=options).build(EXPRESSIONS, faces)
        matched = ModelOptions(size="tiny", sharing="hard_matched", sharing_options=options).build(EXPRESSIONS, faces)
        assert matched.config.sharing == "hard"
        assert matched.recognition_parameters() == pytest.approx(gated.recognition_parameters(), rel=0.02)


def test_sizes_set_options_of_the_leaky_unit_only():
    faces = FaceOptions(image_size=32)
    assert ModelOptions(size="tiny", sharing="cgc").build(EXPRESSIONS, faces).config.sharing_options == {}
    leaky = ModelOptions(size="tiny", sharing_options={"kernel_size": 3}).build(EXPRESSIONS, faces)
    assert leaky.config.sharing_options == {"gate_bias": -2.0, "kernel_size": 3}


BAD = {
    "seeds": [],
    "generator_seeds": -1,
    "label_smoothing": 1.0,
    "faces.image_size": 33,
    "model.size": "huge",
    "model.sharing": "nosuch",
    "model.width": 0.0,
    "model.sharing_options": {"kernel_size": 2},
    "model.dropout": 1.0,
    "synthesis.mode": "nosuch",
    "synthesis.edits": 0,
    "synthesis.rendered_share": 1.0,
    "synthesis.rendered_subjects": 0,
    "balance.strategy": "nosuch",
    "balance.quantile": 1.0,
    "balance.attempts": 0,
    "balance.spread": -1.0,
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_no_data_could_make_good(name):
    config = preset("smoke", rendered=True)
    *parts, last = name.split(".")
    setattr(getattr(config, parts[0]) if parts else config, last, BAD[name])
    with pytest.raises(InputError) as caught:
        check_config(config)
    assert last in str(caught.value) or str(BAD[name]) in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_FOR = {
    ("gan", "model.generator"): ("nosuch", "--model.generator is 'nosuch': it must be one of gan, diffusion"),
    ("gan", "model.prediction"): ("flow", "--model.prediction is for --model.generator diffusion, not gan"),
    ("gan", "model.patch_size"): (1, "--model.patch_size is for"),
    ("gan", "model.diffused"): ("face", "--model.diffused is for --model.generator diffusion, not gan"),
    ("gan", "synthesis.denoising"): (DenoisingOptions(balancing=1.0), "--synthesis.denoising is for"),
    ("gan", "balance.sampling"): (SamplingOptions(steps=4), "--balance.sampling is for"),
    ("gan", "balance.sources"): ("none", "only --model.generator diffusion can"),
    ("diffusion", "balance.sources"): ("nosuch", "it must be one of any, neutral_first, none"),
    ("diffusion", "synthesis.weights"): (SynthesisWeights(cycle=0.0), "--synthesis.weights is for --model.generator"),
    ("diffusion", "synthesis.guide_noise"): (0.1, "--synthesis.guide_noise is for --model.generator gan"),
    ("diffusion", "synthesis.mode"): ("unpaired", "use mixed"),
    ("diffusion", "model.prediction"): ("noise", "unknown prediction 'noise': use one of v, flow"),
    ("diffusion", "model.patch_size"): (3, "patch_size 3"),
    ("diffusion", "model.unet_channels"): ([], "--model.unet_channels is []"),
    ("diffusion", "model.tasks"): (["expression", "synthesis", "landmarks"], "further ones need gan"),
    ("diffusion", "balance.sampling"): (SamplingOptions(solver="flow"), "no solver 'flow' for v prediction"),
    ("diffusion", "balance.sampling.strength"): (0.0, "strength lies in (0, 1], not 0.0"),
}


@pytest.mark.parametrize(("generator", "name"), BAD_FOR)
def test_options_that_do_not_suit_the_generator(generator, name):
    value, said = BAD_FOR[generator, name]
    config = preset("smoke", rendered=True, generator=generator)
    *parts, option = name.split(".")
    setattr(functools.reduce(getattr, parts, config), option, value)
    with pytest.raises(InputError) as caught:
        check_config(config)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_new_faces_have_no_source_to_put_noise_on():
    config = preset("smoke", rendered=True, generator="diffusion")
    config.balance.sampling.strength = 0.5
    check_config(config)
    config.balance.sources = "none"
    with pytest.raises(InputError, match="and --balance.sources is none"):
        check_config(config)


def test_new_faces_have_no_source_to_choose_by_attributes():
    config = preset("smoke", rendered=True, generator="diffusion")
    config.balance.sources, config.balance.match = "none", ["age"]
    with pytest.raises(InputError, match="--balance.match is about the faces that are edited"):
        check_config(config)


def test_denoiser_follows_size_and_options():
    options = ModelOptions(size="cpu", generator="diffusion", width=0.75, prediction="flow")
    model = options.build(EXPRESSIONS, FaceOptions(image_size=48))
    assert isinstance(model, DiffusionFERSNet)
    assert (model.config.unet_channels, model.config.patch_size) == ((32, 48, 64), 2)
    assert (model.config.prediction, model.config.sharing_options) == ("flow", {"gate_bias": -2.0})
    faces = FaceOptions(image_size=32)
    options = ModelOptions(size="tiny", generator="diffusion", unet_channels=[8, 12], patch_size=1)
    model, twin = (options.build(EXPRESSIONS, faces, matched_hard=hard) for hard in (False, True))
    assert (model.config.unet_channels, model.config.patch_size) == ((8, 12), 1)
    assert twin.config.sharing == "hard" and twin.config.unet_channels == (8, 12)
    assert twin.recognition_parameters() == pytest.approx(model.recognition_parameters(), rel=0.02)


@pytest.mark.parametrize(
    ("generator", "synthesis", "said"),
    [
        ("gan", {"edits": 1}, "--synthesis.edits is 1: it must be at least 2"),
        ("gan", {"edits": 2}, None),
        ("diffusion", {"edits": 1}, None),
        ("gan", {"mode": "unpaired", "edits": 1}, None),
    ],
)
def test_edits_of_which_none_would_be_compared(generator, synthesis, said):
    config = preset("smoke", rendered=True, generator=generator)
    config.synthesis = dataclasses.replace(config.synthesis, **synthesis)
    if said is None:
        return check_config(config)
    with pytest.raises(InputError, match=said):
        check_config(config)


def test_repeated_seeds_and_uneven_processes():
    config = preset("smoke", rendered=True)
    with pytest.raises(InputError, match="recognition.batch_size is 16: it must be a multiple of the 3 processes"):
        check_config(config, world=3)
    config.seeds = [1, 1]
    with pytest.raises(InputError, match="once only"):
        check_config(config)
    check_config(MainJobConfig())


def test_scaled_gradients_are_not_aggregated():
    config = preset("smoke", rendered=True)
    config.joint.aggregator, config.precision = "dwa", "fp16"
    with pytest.raises(InputError, match="aggregator dwa does not work in precision fp16: choose bf16 or no"):
        check_config(config)
    config.precision = "bf16"
    check_config(config)


PARTS = ("recognition", "judge", "joint", "finetune")
UNREAD = {"precision": "bf16", "aggregator": "pcgrad", "patience": 1, "evaluate_every": 2}


@pytest.mark.parametrize("option", UNREAD)
@pytest.mark.parametrize("part", PARTS)
def test_parts_refuse_what_their_training_does_not_read(part, option, tmp_path):
    config = preset("smoke", rendered=True)
    setattr(config, part, dataclasses.replace(getattr(config, part), **{option: UNREAD[option]}))
    joint = part == "joint"
    if option != "precision" and joint == (option == "aggregator"):
        return check_config(config)
    with pytest.raises(InputError, match=f"^--{part}.{option} is .*leave it out") as caught:
        run_main_job(config, tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


CRITICS = {
    (0, 0): "widths from 1 up",
    (8, -1): "widths from 1 up",
    (8, 8, 8, 8, 8): "fewer widths, for 32 pixels",
    (8, 8, 8, 8): None,
    (): None,
}


@pytest.mark.parametrize("widths", CRITICS)
def test_critics_that_cannot_be_built_or_see_no_face(widths):
    config = preset("smoke", rendered=True)
    config.synthesis = dataclasses.replace(config.synthesis, critic_channels=widths)
    config.synthesis.weights = dataclasses.replace(config.synthesis.weights, adversarial=0.5)
    if CRITICS[widths] is None:
        return check_config(config)
    with pytest.raises(InputError, match=f"^--synthesis.critic_channels is .*: it must be {CRITICS[widths]}"):
        check_config(config)


def test_options_of_faces_are_for_rendered_ones_for_read_ones_or_for_both():
    both = {"path", "image_size", "color"}
    assert {field.name for field in dataclasses.fields(FaceOptions)} == both | {*RENDERED_ONLY} | {*READ_ONLY}
    for path, refused in ((None, READ_ONLY), ("faces", RENDERED_ONLY)):
        for name in (*RENDERED_ONLY, *READ_ONLY):
            faces = dataclasses.replace(FaceOptions(path=path), **{name: "another"})
            check_faces(faces, faces)
            if name in refused:
                with pytest.raises(InputError, match=f"--faces.{name} is for .*: leave it out"):
                    check_faces(faces, FaceOptions())
            else:
                check_faces(faces, FaceOptions())
