"""What goes wrong outside: bad input, killed processes, full disks, other people's files."""

import dataclasses
import errno
import importlib.util
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from synthmtl.cli import main
from synthmtl.data.readers import image_folder
from synthmtl.models.inference import save_network

# One wrong thing each: what spoils a good folder, the command, and what it must say.


@dataclasses.dataclass
class World:
    """A good data set and a good run, to be spoiled."""

    root: Path

    @property
    def faces(self):
        return self.root / "faces"

    @property
    def run(self):
        return self.root / "run"

    @property
    def bad(self):
        """A file of the data set that a test may replace."""
        return self.faces / "fear" / "2.png"

    def config(self, part="model", **changes):
        file = self.run / part / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    def weights(self, change, part="model"):
        file = self.run / part / WEIGHTS
        weights = load_file(file)
        change(weights)
        save_file(weights, file)

    def jsonl(self, *rows):
        (self.faces / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def csv(self, text, name="metadata.csv", encoding="utf-8"):
        (self.faces / name).write_text(text, encoding=encoding)

    def fer2013(self, *rows):
        pixels = " ".join(["7"] * 48 * 48)
        lines = ["emotion,pixels,Usage", f"0,{pixels},Training", *rows]
        (self.root / "fer.csv").write_text("\n".join(lines).replace("PIXELS", pixels) + "\n")


WEIGHTS = "diffusion_pytorch_model.safetensors"
RUN = ["run", "--preset", "smoke", "--data", "{faces}", "--out", "{out}"]
FER = ["evaluate", "--model", "{run}", "--data", "{root}/fer.csv", "--out", "{out}.json"]
QUICKSTART = ["quickstart", "--preset", "smoke", "--out", "{out}"]
CONFIGURED = [*QUICKSTART, "--config", "{root}/options.yaml"]
PREDICT = ["predict", "--model", "{run}", "{face}"]
EVALUATE = ["evaluate", "--model", "{run}", "--data", "{faces}", "--out", "{out}.json"]
BALANCE = ["balance", "--model", "{run}", "--data", "{faces}", "--out", "{out}"]
SYNTHESIZE = ["synthesize", "--model", "{run}", "--expression", "fear", "--out", "{out}", "{face}"]
SCORE = ["score", "--real", "{faces}", "--synthetic", "{faces}", "--out", "{out}.json"]
STUDY = ["study", "--preset", "smoke", "--out", "{out}"]
RENDER = ["render", "--count", "8", "--size", "32", "--out", "{out}"]
INSPECT = ["inspect", "{faces}"]

CASES = []


def case(command, message, *more, name=None):
    """Put what a function spoils on the list: the call, and the end of what is said about it."""

    def register(spoil):
        CASES.append(pytest.param(spoil, [*command, *more], message, id=name or spoil.__name__.removeprefix("spoil_")))
        return spoil

    return register


def png_header(width, height):
    """A valid PNG that claims to be large and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# Images.


@case(EVALUATE, r"fear/2\.png: corrupt or truncated image .*: replace or delete it$")
def spoil_truncated(world):
    world.bad.write_bytes(world.bad.read_bytes()[:300])


@case(EVALUATE, r"fear/2\.jpg: corrupt or truncated image")
def spoil_truncated_jpeg(world):
    Image.effect_noise((64, 64), 60).save(world.faces / "fear" / "2.jpg")
    data = (world.faces / "fear" / "2.jpg").read_bytes()
    (world.faces / "fear" / "2.jpg").write_bytes(data[: len(data) // 2])


@case(EVALUATE, r"fear/2\.png: not an image, or a corrupt one")
def spoil_text_for_an_image(world):
    world.bad.write_text("<html>404</html>")


@case(EVALUATE, r"fear/2\.png: .*above the limit of 40 million pixels: crop or shrink it first$")
def spoil_decompression_bomb(world):
    world.bad.write_bytes(png_header(60_000, 60_000))


@case(PREDICT, r"1 of 1 images could not be read: .*above the limit of 40 million pixels")
def spoil_bomb_to_predict(world):
    (world.root / "face.png").write_bytes(png_header(60_000, 60_000))


@case(EVALUATE, r"fear/2\.webp: the image has 2 frames .*: keep one frame$")
def spoil_animated_webp(world):
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    frames[0].save(world.faces / "fear" / "2.webp", save_all=True, append_images=frames[1:])


@case(EVALUATE, r"fear/2\.tif: the image has 3 frames .*several pages")
def spoil_pages(world):
    frames = [Image.new("L", (32, 32), gray) for gray in (0, 99, 200)]
    frames[0].save(world.faces / "fear" / "2.tif", save_all=True, append_images=frames[1:])


@case(EVALUATE, r"fear/2\.tif: floating-point pixels have no known range: save it as an 8- or 16-bit image$")
def spoil_floats(world):
    Image.fromarray(np.random.default_rng(0).random((32, 32), np.float32)).save(world.faces / "fear" / "2.tif")


@case(EVALUATE, r"fear/2\.tif: 32-bit pixels beyond 0\.\.65535")
def spoil_32_bits(world):
    Image.fromarray(np.full((32, 32), 70_000, np.int32)).save(world.faces / "fear" / "2.tif")


@case(EVALUATE, r"12 of 54 images cannot be read: .*fear/0\.png: the image file is empty.*; and 2 more$")
def spoil_many(world):
    for name in ("fear", "happiness"):
        for i in range(6):
            (world.faces / name / f"{i}.png").write_bytes(b"")


@case(EVALUATE, r"2 of 54 images cannot be read: .*fear/2\.png: .*; .*fear/3\.png: .* \(0 bytes\)", "--split", "train")
def spoil_two_to_evaluate(world):
    world.bad.write_bytes(b"")
    (world.faces / "fear" / "3.png").write_bytes(b"")


@case(BALANCE, r"fear/2\.png: the image file is empty \(0 bytes\): restore or delete it$")
def spoil_empty_to_balance(world):
    world.bad.write_bytes(b"")


@case(RUN, r"none of the 54 images can be read", "--faces.on_bad_image", "skip")
def spoil_all(world):
    for file in world.faces.rglob("*.png"):
        file.write_bytes(b"")


@case(RUN, r"--faces\.on_bad_image: expected one of 'error', 'skip', got ignore$", "--faces.on_bad_image", "ignore")
@case(
    BALANCE,
    r"--on_bad_image: expected one of 'error', 'skip', got ignore$",
    "--on-bad-image",
    "ignore",
    name="other_wish",
)
def spoil_wish_for_bad_images(world):
    pass


# Links, names and archives that lead out of the data folder.


@case(EVALUATE, r"fear/2\.png: lies outside of the data folder, by a link or its name: copy the file")
def spoil_link_out(world):
    (world.root / "face.png").rename(world.root / "private.png")
    world.bad.unlink()
    world.bad.symlink_to(world.root / "private.png")


@case(EVALUATE, r"fear/holiday/0\.png: lies outside of the data folder")
def spoil_folder_link_out(world):
    (world.root / "private").mkdir()
    (world.root / "face.png").rename(world.root / "private" / "0.png")
    (world.faces / "fear" / "holiday").symlink_to(world.root / "private", target_is_directory=True)


@case(EVALUATE, r"fear/2\.png: cannot be read .*No such file")
def spoil_dangling_link(world):
    world.bad.unlink()
    world.bad.symlink_to(world.faces / "nowhere.png")


@case(EVALUATE, r"metadata\.jsonl:1: \.\./face\.png leaves the data folder: name files below it$")
def spoil_name_above(world):
    world.jsonl({"file_name": "../face.png", "expression": "fear"})


@case(EVALUATE, r"metadata\.csv:2: /.*face\.png leaves the data folder")
def spoil_absolute_name(world):
    world.csv(f"file_name,expression\n{world.root}/face.png,fear\n")


@case(EVALUATE, r"faces: no faces found")
def spoil_zip_above(world):
    with zipfile.ZipFile(world.root / "faces.zip", "w") as archive:
        archive.write(world.root / "face.png", "../face.png")
    shutil.rmtree(world.faces)
    world.root.joinpath("faces.zip").rename(world.faces)


@case(EVALUATE, r"neither a folder nor a zip archive of images")
def spoil_no_zip(world):
    shutil.rmtree(world.faces)
    world.faces.write_bytes(b"PK\x03\x04 and no more")


@case(EVALUATE, r"cannot be read .*CRC")
def spoil_damaged_zip(world):
    file = world.root / "faces.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for face in sorted(world.faces.rglob("*.png")):
            archive.write(face, face.relative_to(world.faces))
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF
    shutil.rmtree(world.faces)
    world.faces.write_bytes(data)


# Labels.


@case(EVALUATE, r"metadata\.jsonl:2: unknown expression 'grumpiness': use one of neutral, happiness")
def spoil_unknown_label(world):
    world.jsonl({"file_name": "fear/0.png"}, {"file_name": "fear/1.png", "expression": "grumpiness"})


@case(EVALUATE, r"metadata\.jsonl:1: unknown expression \[1, 2\]")
def spoil_label_of_another_kind(world):
    world.jsonl({"file_name": "fear/0.png", "expression": [1, 2]})


@case(EVALUATE, r"metadata\.jsonl:1: labelled 'happiness', but fear/0\.png lies in 'fear': correct one$")
def spoil_contradiction(world):
    world.jsonl({"file_name": "fear/0.png", "expression": "happiness"})


@case(EVALUATE, r"metadata\.csv:3: fear/0\.png has a row already \(.*metadata\.csv:2\): keep one of them$")
def spoil_row_twice(world):
    world.csv("file_name,expression\nfear/0.png,fear\nfear/0.png,fear\n")


@case(EVALUATE, r"metadata\.csv:3: the row does not have 2 cells as the header: mend it$")
def spoil_short_row(world):
    world.csv("file_name,expression\nfear/0.png,fear\nfear/1.png\n")


@case(EVALUATE, r"metadata\.csv:1: no column file_name")
def spoil_no_file_names(world):
    world.csv("image,expression\nfear/0.png,fear\n")


@case(EVALUATE, r"metadata\.csv: not UTF-8 text: save it as UTF-8$")
def spoil_encoding(world):
    world.csv("file_name,expression\nfear/0.png,gl\u00fccklich\n", encoding="latin-1")


@case(EVALUATE, r"metadata\.csv:2: broken csv \(field larger than field limit")
def spoil_enormous_cell(world):
    world.csv(f"file_name,expression\nfear/0.png,{'x' * 200_000}\n")


@case(EVALUATE, r"metadata\.jsonl:1: broken JSON .*: mend this line$")
def spoil_half_a_line(world):
    world.csv('{"file_name": "fear/0.png", "expre', "metadata.jsonl")


@case(EVALUATE, r"metadata\.jsonl:1: broken JSON .*: mend this line$")
def spoil_deep_line(world):
    world.csv("[" * 100_000, "metadata.jsonl")


@case(EVALUATE, r"metadata\.jsonl:1: not a JSON object")
def spoil_list_for_a_row(world):
    world.jsonl(["fear/0.png", "fear"])


@case(EVALUATE, r"metadata\.jsonl:1: no file_name")
def spoil_number_for_a_name(world):
    world.jsonl({"file_name": 3, "expression": "fear"})


@case(EVALUATE, r"metadata\.jsonl:1: valence is 1000*: scale it to \[-1, 1\]$")
def spoil_enormous_number(world):
    world.jsonl({"file_name": "fear/0.png", "valence": 10**400, "arousal": 0.5})


@case(EVALUATE, r"metadata\.jsonl:1: landmarks must be 68 pairs")
def spoil_landmarks(world):
    world.jsonl({"file_name": "fear/0.png", "landmarks": [[0.5, 0.5]] * 5})


@case(EVALUATE, r"metadata\.jsonl:1: weight is -1: use a finite number from 0 up$")
def spoil_weight(world):
    world.jsonl({"file_name": "fear/0.png", "weight": -1})


@case(EVALUATE, r"metadata\.jsonl:1: no image .*fear/99\.png: delete the row or add the image$")
def spoil_row_without_image(world):
    world.jsonl({"file_name": "fear/99.png"})


@case(EVALUATE, r"metadata\.jsonl:1: unknown split 'exam': use train, validation or test$")
def spoil_split(world):
    world.jsonl({"file_name": "fear/0.png", "split": "exam"})


@case(FER, r"fer\.csv:3: emotion is '9': use a code from 0 to 6$")
def spoil_code(world):
    world.fer2013("9,PIXELS,Training")


@case(FER, r"fer\.csv:3: 3 pixels instead of 2304 \(48x48\): mend or delete the row$")
def spoil_few_pixels(world):
    world.fer2013("0,1 2 3,Training")


@case(FER, r"fer\.csv:3: a pixel is no whole number from 0 to 255")
def spoil_no_pixel(world):
    world.fer2013("0,1 two 3,Training")


@case(FER, r"fer\.csv:3: Usage is 'Exam'")
def spoil_usage(world):
    world.fer2013("0,PIXELS,Exam")


@case(FER, r"fer\.csv:1: not .*FER2013.*: give that file")
def spoil_other_csv(world):
    (world.root / "fer.csv").write_text("a,b\n1,2\n")


@case(FER, r"fer\.csv: not UTF-8 text")
def spoil_binary_csv(world):
    world.fer2013()
    with (world.root / "fer.csv").open("ab") as file:
        file.write(b"0,\xff\xfe,Training\n")


@case(RUN, r"unknown format 'nosuch': use one of .*image_folder", "--faces.format", "nosuch")
@case(RUN, r"list_patition_label\.txt", "--faces.format", "rafdb", name="other_format")
def spoil_format(world):
    pass


# Data and networks that do not go together.


@case(BALANCE, r"faces.*: class 'fear' has no images: add images", name="other_classes")
def spoil_classes(world):
    shutil.rmtree(world.faces / "fear")


@case(EVALUATE, r"no faces found", name="no_class_of_the_network")
def spoil_all_classes(world):
    for name in ("neutral", "happiness", "fear"):
        (world.faces / name).rename(world.faces / {"neutral": "anger", "happiness": "disgust", "fear": "sadness"}[name])


@case(PREDICT, r"run/model: the weights lack .*; they are not those of this configuration$")
def spoil_missing_weight(world):
    world.weights(lambda weights: weights.pop(sorted(weights)[0]))


@case(PREDICT, r"run/model: the weights have the unknown extra\.weight; they are not those")
def spoil_unknown_weight(world):
    world.weights(lambda weights: weights.update({"extra.weight": np.zeros(3, np.float32)}))


@case(PREDICT, r"run/model: cannot load the weights .*size mismatch")
def spoil_shape(world):
    world.weights(lambda weights: weights.update({sorted(weights)[0]: np.zeros((2, 2), np.float32)}))


@case(PREDICT, r"run/model: the weights .* not finite")
def spoil_numbers(world):
    world.weights(lambda weights: weights[sorted(weights)[0]].fill(np.nan))


@case(SYNTHESIZE, r"run/generator: cannot load the weights")
def spoil_truncated_weights(world):
    file = world.run / "generator" / WEIGHTS
    file.write_bytes(file.read_bytes()[:5000])


class Payload:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@case(PREDICT, r"run/model: cannot load the weights .*safetensors")
def spoil_pickle(world):
    (world.run / "model" / WEIGHTS).unlink()
    (world.run / "model" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload(world.root / "trace")))


@case(PREDICT, r"config\.json: not a model's configuration \(broken JSON\)$")
def spoil_half_a_configuration(world):
    file = world.run / "model" / "config.json"
    file.write_bytes(file.read_bytes()[:40])


@case(PREDICT, r"config\.json: describes \[1\], not one of FERSNet,")
def spoil_list_for_a_configuration(world):
    (world.run / "model" / "config.json").write_text("[1]")


@case(PREDICT, r"config\.json: not a model's configuration")
def spoil_encoding_of_the_configuration(world):
    (world.run / "model" / "config.json").write_bytes(b'{"_class_name": "\xff"}')


@case(PREDICT, r"config\.json: describes 'Stranger', not one of")
def spoil_kind(world):
    world.config(_class_name="Stranger")


@case(PREDICT, r"config\.json: classes are .*'grumpiness'.*: use some of neutral,")
def spoil_classes_of_the_network(world):
    world.config(classes=["neutral", "happiness", "grumpiness"])


@case(PREDICT, r"run/model: cannot load the weights")
def spoil_kind_of_a_setting(world):
    world.config(stage_channels="wide")


@case(PREDICT, r"missing: no model here \(config\.json is missing\)", "--model", "{root}/missing", name="no_network")
@case(BALANCE, r"no judge there", "--judge", "{root}/missing", name="no_judge")
@case(SYNTHESIZE, r"unknown expression 'grumpiness'", "--expression", "grumpiness", name="unknown_wish")
@case(SYNTHESIZE, r"--spread is -1\.0: give a finite number from 0 up$", "--spread", "-1", name="spread")
@case(BALANCE, r"quantile must lie in \[0, 1\), not 1\.5$", "--quantile", "1.5", name="quantile")
@case(
    BALANCE, r"unknown strategy '{happiness: many}': use one of auto,", "--strategy", "{happiness: many}", name="counts"
)
@case(
    BALANCE,
    r"strategy names the class 'grumpiness', which the data lack",
    "--strategy",
    "{grumpiness: 9}",
    name="unknown_count",
)
@case(BALANCE, r"steps, .* are for a diffusion generator", "--sampling.steps", "0", name="sampling_steps")
@case(SCORE, r"missing: no such folder or file", "--real", "{root}/missing", name="score_nothing")
@case(
    SCORE, r"unknown features 'nosuch': use one of efficientnet-lite0,", "--features", "nosuch", name="score_features"
)
@case(INSPECT[:1], r"missing: no such folder or file", "{root}/missing", name="inspect_nothing")
@case(
    QUICKSTART,
    r"image_size 0 does not suit the network: use a multiple of 16",
    "--faces.image_size",
    "0",
    name="no_pixels",
)
@case(QUICKSTART, r"steps must be at least 1, not -5", "--joint.steps", "-5", name="negative_steps")
@case(
    QUICKSTART,
    r"training learning_rate must be a finite number from 0 up, not -1\.0$",
    "--recognition.learning_rate",
    "-1",
    name="negative_rate",
)
@case(QUICKSTART, r"unknown aggregator 'nosuch'", "--joint.aggregator", "nosuch", name="aggregator")
@case(QUICKSTART, r"unknown sharing unit 'nosuch'", "--model.sharing", "nosuch", name="sharing")
@case(QUICKSTART, r"unknown model size 'huge': use one of published, cpu, tiny$", "--model.size", "huge", name="size")
@case(QUICKSTART, r"training batch_size must be at least 1, not 0$", "--recognition.batch_size", "0", name="no_batch")
@case(
    QUICKSTART,
    r"'neutral': -1.*: it must have no negative number$",
    "--faces.train_counts",
    "{neutral: -1, fear: 5}",
    name="negative_count",
)
@case(STUDY, r"unknown sharing unit 'nosuch'", "--grid.sharing", "[nosuch]", name="study_sharing")
@case(STUDY, r"--grid\.seeds is empty: give at least one$", "--grid.seeds", "[]", name="study_seeds")
@case(RENDER, r"image_size is 0: it must be from 32 to 256$", "--size", "0", name="render_size")
def spoil_nothing(world):
    pass


# Configurations.


@case(CONFIGURED, r"in the configuration file, line 1")
def spoil_yaml(world):
    (world.root / "options.yaml").write_text("faces: {image_size: 32\n")


@case(CONFIGURED, r"unknown option recognition\.stepps")
def spoil_key(world):
    (world.root / "options.yaml").write_text("recognition:\n  stepps: 3\n")


@case(CONFIGURED, r"the configuration file has no options: write lines of NAME: VALUE$")
def spoil_list_for_options(world):
    (world.root / "options.yaml").write_text("- 1\n- 2\n")


@case(CONFIGURED, r"options\.yaml: not UTF-8 text: give a YAML file$")
def spoil_encoding_of_options(world):
    (world.root / "options.yaml").write_bytes(b"faces:\n  path: \xff\xfe\n")


@case(CONFIGURED, r"could not determine a constructor .* in the configuration file, line 1")
def spoil_code_in_options(world):
    (world.root / "options.yaml").write_text(f"faces: !!python/object/apply:os.mkdir ['{world.root}/trace']\n")


@case(CONFIGURED, r"--config: Path is not a file: '.*options\.yaml'")
def spoil_folder_for_options(world):
    (world.root / "options.yaml").mkdir()


# Where results go.


@case(RENDER, r"out: is a file; give a folder$", name="out_is_a_file")
@case(EVALUATE, r"out\.json: exists; --overwrite replaces it$", name="scores_exist")
@case(RUN, r"out: is a file; give a folder$", name="run_out_is_a_file")
def spoil_out(world):
    (world.root / "out").write_text("mine")
    (world.root / "out.json").write_text("mine")


@case(RENDER, r"face\.png/below: cannot be made, .*face\.png is a file; give another --out$", "--out", "{face}/below")
@case(EVALUATE, r"face\.png: cannot be made", "--out", "{face}/scores.json", name="scores_below_a_file")
def spoil_below_a_file(world):
    pass


@case(RENDER, r"options\.json: damaged; give another --out, or --overwrite$", "--resume")
def spoil_options_of_a_run(world):
    (world.root / "out").mkdir()
    (world.root / "out" / "options.json").write_text('{"command": "ren')


@case(RENDER, r"out: belongs to a run with another count \(9 there, 8 now\)", "--resume")
def spoil_other_options(world):
    assert main(["render", "--count", "9", "--size", "32", "--out", str(world.root / "out")]) == 0


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """The files of a world: noise faces of three expressions, and untrained networks for them."""
    file = Path(__file__).parent / "balance" / "balancing_job.py"
    spec = importlib.util.spec_from_file_location("balancing_job", file)
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    world = World(tmp_path_factory.mktemp("pristine"))
    networks = {"generator": job.make_generator(), "judge": job.make_judge(), "model": job.make_judge(seed=2)}
    for part, network in networks.items():
        save_network(network, world.run / part)
    random = np.random.default_rng(0)
    for name, count in (("neutral", 30), ("happiness", 14), ("fear", 10)):
        (world.faces / name).mkdir(parents=True)
        for i in range(count):
            noise = random.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(noise).save(world.faces / name / f"{i}.png")
    shutil.copy(world.faces / "fear" / "0.png", world.root / "face.png")
    return world.root


@pytest.fixture
def world(pristine, tmp_path):
    return World(shutil.copytree(pristine, tmp_path / "world"))


def call(world, arguments):
    """Run a command in a world; ``{faces}``, ``{run}``, ``{face}``, ``{root}`` and ``{out}`` are places in it."""
    places = {name: world.root / name for name in ("faces", "run", "out")}
    places |= {"root": world.root, "face": world.root / "face.png"}
    filled = [re.sub(r"\{(faces|run|out|root|face)\}", lambda match: str(places[match[1]]), a) for a in arguments]
    return main(filled)


def snapshot(root):
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize(("spoil", "arguments", "message"), CASES)
def test_bad_input(world, capfd, spoil, arguments, message):
    spoil(world)
    before = snapshot(world.root)
    capfd.readouterr()
    assert call(world, arguments) == 2
    said = capfd.readouterr().err.splitlines()
    assert re.search(message, said[-1]) and said[-1].startswith("synthmtl: ")
    assert not any("Traceback" in line for line in said)
    assert snapshot(world.root) == before


def test_the_list_is_long():
    assert len(CASES) >= 90 and len({parameters.id for parameters in CASES}) == len(CASES)


# What is left out on request.


def test_bad_images_are_left_out_on_request(world, capfd):
    world.bad.write_bytes(b"")
    (world.faces / "neutral" / "3.png").write_text("no image")
    assert call(world, [*EVALUATE, "--on-bad-image", "skip"]) == 0
    said = capfd.readouterr().err
    assert "left out 2 of 54 images, which cannot be read:" in said
    assert "left out: " in said and "fear/2.png" in said and "neutral/3.png" in said
    assert json.loads((world.root / "out.json").read_text())["count"] > 0


def test_a_file_that_vanishes_while_it_is_read(world, capfd, monkeypatch):
    list_faces = image_folder.list_faces

    def list_and_lose(source):
        listing = list_faces(source)
        world.bad.unlink(missing_ok=True)
        return listing

    monkeypatch.setattr(image_folder, "list_faces", list_and_lose)
    assert call(world, EVALUATE) == 2
    assert re.search(r"fear/2\.png: cannot be read .*No such file.*\n$", capfd.readouterr().err)
    assert call(world, [*EVALUATE, "--on-bad-image", "skip"]) == 0


def test_pickles_are_not_loaded(world):
    spoil_pickle(world)
    assert call(world, PREDICT) == 2
    assert not (world.root / "trace").exists()


# Disks that are full or read-only.


@pytest.fixture(scope="module")
def balanced(pristine, tmp_path_factory):
    """What ``synthmtl balance`` makes of a world, undisturbed."""
    world = World(shutil.copytree(pristine, tmp_path_factory.mktemp("balanced") / "world"))
    assert call(world, [*BALANCE, "--originals"]) == 0
    return contents(world.root / "out")


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def without_places(files):
    """Files of a balancing set but the one that says where its parts were."""
    return {name: data for name, data in files.items() if name != "options.json"}


@pytest.mark.parametrize("size", [2000, 20_000])
def test_balancing_on_a_full_disk_goes_on_when_there_is_room(world, balanced, files_of_at_most, capfd, size):
    with files_of_at_most(size):
        assert call(world, [*BALANCE, "--originals"]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"synthmtl: .*/out/.*: File too large: free some space and call again; --resume goes .*", said)
    left = contents(world.root / "out")
    assert all(balanced[name] == data for name, data in without_places(left).items())
    assert call(world, [*BALANCE, "--originals", "--resume"]) == 0
    assert without_places(contents(world.root / "out")) == without_places(balanced)


def test_evaluation_on_a_full_disk_keeps_the_old_scores(world, capfd, monkeypatch):
    assert call(world, EVALUATE) == 0
    before = (world.root / "out.json").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert call(world, [*EVALUATE, "--overwrite", "--split", "train"]) == 2
    assert "out.json: No space left on device: free some space and call again" in capfd.readouterr().err
    assert (world.root / "out.json").read_bytes() == before
    assert not list(world.root.glob(".*"))


@pytest.mark.parametrize(("command", "place"), [(RENDER, "out"), (EVALUATE, "world"), (BALANCE, "out")])
def test_read_only_folders_are_refused_before_the_work(world, capfd, monkeypatch, command, place):
    # Rights do not bind the superuser, under whom tests may run; the system's answer is put in its mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = snapshot(world.root)
    assert call(world, command) == 2
    said = capfd.readouterr().err
    assert re.fullmatch(rf"synthmtl: .*{place}: may not be written, .*world is read-only; give another --out\n", said)
    assert snapshot(world.root) == before


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_turns_out_to_be_read_only(world, capfd, monkeypatch, number):
    def refuse(path, *arguments, **options):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    assert call(world, RENDER) == 2
    assert re.search(r"^synthmtl: .*out: cannot be made \(.*\); give another --out\n$", capfd.readouterr().err)


def test_errors_that_no_user_can_cure_keep_their_traceback(world, monkeypatch):
    def break_down(path, *arguments, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Image, "open", break_down)
    monkeypatch.setattr(os, "fsync", break_down)
    with pytest.raises(OSError, match="Input/output error"):
        call(world, RENDER)


# Kills.


@pytest.fixture(scope="module")
def killed(pristine, tmp_path_factory):
    """What ``killed_jobs.py`` saw."""
    script = Path(__file__).with_name("killed_jobs.py")
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "WORLD_SIZE"))}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path_factory.mktemp("killed")), str(pristine)],
        env=clean | one_thread, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_killed_trainings_end_with_the_same_weights(killed):
    seen = killed["training"]
    assert seen["kills"] >= 20 and seen["inside"] >= 5 and seen["mid_epoch"] >= 3, seen


def test_killed_balancing_ends_with_the_same_files(killed):
    seen = killed["balancing"]
    assert seen["kills"] >= 20 and seen["inside"] >= 5 and seen["pictures"] > 100, seen


def test_processes_with_other_data_are_told(killed):
    assert killed["ranks"]["same"] == ["the same", "the same"]
    for said in killed["ranks"]["other"]:
        assert re.match(r"process 1 of 2 has read other validation faces than process 0: give all processes", said)
