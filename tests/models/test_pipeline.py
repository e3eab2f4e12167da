import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.data import read_face
from synthmtl.data.pixels import to_unit
from synthmtl.errors import InputError
from synthmtl.models import DiffusionFERSNet, ExpressionSynthesisPipeline

CLASSES = ("neutral", "happiness", "anger")


def pipeline(**config):
    torch.manual_seed(0)
    made = ExpressionSynthesisPipeline(DiffusionFERSNet.sized("tiny", **({"classes": CLASSES} | config)))
    made.set_progress_bar_config(disable=True)
    return made


def faces(count=3, channels=1):
    return torch.rand(count, channels, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def run(pipe, image, expression, seed=0, **options):
    options = {"generator": torch.Generator().manual_seed(seed), "num_inference_steps": 2} | options
    return pipe(image, expression, **options).images


def test_calls_synthesize():
    pipe = pipeline()
    wanted = torch.tensor([1, 2, 0])
    made = run(pipe, faces(), ["happiness", "angry", 0])
    again = pipe.model.synthesize(faces(), wanted, generator=torch.Generator().manual_seed(0), steps=2)
    assert made.dtype == torch.float32 and torch.equal(made, again)
    assert torch.equal(run(pipe, faces(), wanted), made)
    (plain,) = pipe(
        faces(), wanted, generator=torch.Generator().manual_seed(0), num_inference_steps=2, return_dict=False
    )
    assert torch.equal(plain, made)


def test_one_of_either_and_many_of_the_other():
    pipe = pipeline()
    one, many = faces(1), faces()
    assert torch.equal(run(pipe, one[0], CLASSES), run(pipe, one.expand(3, -1, -1, -1), CLASSES))
    assert torch.equal(run(pipe, many, "anger"), run(pipe, many, ["anger"] * 3))
    assert run(pipe, None, ["anger"] * 2).shape == (2, 1, 32, 32)
    with pytest.raises(InputError, match="3 images for 2 expressions"):
        run(pipe, many, CLASSES[:2])


@pytest.mark.parametrize(("prediction", "scheduler"), [("v", "ddim"), ("flow", "flow")])
def test_saved_and_loaded(prediction, scheduler, tmp_path):
    pipe = pipeline(prediction=prediction, image_channels=3)
    pipe = ExpressionSynthesisPipeline(pipe.model, pipe.model.schedule.solver(scheduler))
    pipe.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "scheduler", "model_index.json"}
    assert [path.suffix for path in tmp_path.rglob("*diffusion_pytorch_model*")] == [".safetensors"]
    loaded = ExpressionSynthesisPipeline.from_pretrained(tmp_path).to("cpu")
    assert type(loaded.scheduler) is type(pipe.scheduler)
    made = run(pipe, faces(channels=3), "anger")
    assert torch.equal(run(loaded, faces(channels=3), "anger"), made)
    assert torch.equal(run(loaded, faces(channels=3), "anger", scheduler=scheduler), made)
    assert not torch.equal(run(loaded, faces(channels=3), "anger", scheduler="dpm"), made)


@pytest.mark.parametrize("channels", [1, 3])
def test_pillow_in_and_out(channels):
    pipe = pipeline(image_channels=channels)
    photo = Image.effect_noise((50, 40), 60).convert("RGB")
    made = run(pipe, photo, "anger", output_type="pil")
    assert [image.size for image in made] == [(32, 32)] and made[0].mode == ("L" if channels == 1 else "RGB")
    assert len(run(pipe, [photo, photo], "anger", output_type="pil")) == 2


@pytest.mark.parametrize("turned", [None, 6, 7])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "name"),
    [("I;16", "a.png"), ("I;16", "a.tif"), ("L", "a.tif"), ("RGBA", "a.png"), ("LA", "a.png"), ("P", "a.png"),
     ("1", "a.png"), ("CMYK", "a.jpg"), ("RGB", "a.jpg"), ("RGB", "a.png")],
)  # fmt: skip
def test_a_pillow_image_is_read_as_its_file(mode, name, channels, turned, tmp_path):
    random = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (40, 50), dtype=np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (40, 50, 4), dtype=np.uint8), "RGBA").convert(mode)
    exif = Image.Exif()
    if turned is not None:
        exif[0x0112] = turned
    # Pillow 13 skews turned TIFFs that it maps from disk, and those are the ones without compression.
    image.save(tmp_path / name, exif=exif, **({"compression": "tiff_lzw"} if name == "a.tif" else {}))
    with Image.open(tmp_path / name) as opened:
        opened.load()
        before = opened.tobytes(), opened.size, opened.mode
        face = pipeline(image_channels=channels)._faces(opened)
        assert (opened.tobytes(), opened.size, opened.mode) == before
        assert torch.equal(pipeline(image_channels=channels)._faces(opened), face)
    assert torch.equal(face[0], to_unit(read_face(tmp_path / name, 32, channels)))


def test_action_units_by_name():
    pipe = pipeline(condition="action_units")
    both = run(pipe, None, [{"AU12": 1.0}, "anger"])
    assert both.shape == (2, 1, 32, 32)


def test_training_statistics_are_left_alone():
    torch.manual_seed(0)
    model = DiffusionFERSNet.sized("tiny", classes=CLASSES).train()
    before = model.encoder.joint.first[1].running_mean.clone()
    run(ExpressionSynthesisPipeline(model), faces(), "anger")
    assert torch.equal(model.encoder.joint.first[1].running_mean, before)


def test_refused():
    pipe = pipeline()
    with pytest.raises(InputError, match="unknown output_type 'np': use pt or pil"):
        run(pipe, None, "anger", output_type="np")
    with pytest.raises(InputError, match=r"images must be 1 x 32 x 32 pixels, not \(3, 32, 32\)"):
        run(pipe, faces(channels=3), "anger")
    with pytest.raises(InputError, match="no expression 'fear' here"):
        run(pipe, None, "fear")
    for image in ([], (), faces(0)):
        with pytest.raises(InputError, match="image is empty: give at least one, or None for new faces"):
            run(pipe, image, "anger")
    for wanted in ([], (), "", torch.zeros(0, dtype=torch.int64)):
        with pytest.raises(InputError, match="expression is empty: give at least one"):
            run(pipe, faces(), wanted)
    pixels = np.zeros((32, 32), dtype=np.uint8)
    for image, kind in (
        (pixels, "ndarray"),
        ([pixels], "list of ndarray"),
        (list(faces()), "list of Tensor"),
        ([Image.fromarray(pixels), "face.png"], "list of str"),
        ("face.png", "str"),
    ):
        with pytest.raises(InputError, match=f"image is {kind}: give a tensor, a Pillow image or a list of Pillow"):
            run(pipe, image, "anger")
    with pytest.raises(InputError, match=r"numbers in \[-1, 1\], not torch.uint8"):
        run(pipe, torch.zeros(1, 1, 32, 32, dtype=torch.uint8), "anger")
    with pytest.raises(InputError, match="image: floating-point pixels have no known range"):
        run(pipe, Image.fromarray(np.zeros((32, 32), dtype=np.float32)), "anger")


@pytest.mark.parametrize("condition", ["expression", "action_units"])
def test_half_precision_weights(condition):
    pipe = pipeline(condition=condition).to(torch.bfloat16)
    for image in (faces(1), None):
        made = run(pipe, image, "happiness")
        assert made.shape == (1, 1, 32, 32) and made.dtype == torch.float32 and made.isfinite().all()
