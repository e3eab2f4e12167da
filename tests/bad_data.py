"""Bad input, one wrong thing each: images, links, archives and labels."""

import shutil
import struct
import zipfile
import zlib

import numpy as np
from faulty_world import BALANCE, EVALUATE, FER, PREDICT, RUN, case
from PIL import Image


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


# Links to nothing, names and archives that lead out of the data folder.


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
