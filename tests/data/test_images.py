import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.data.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    UNREAD_SUFFIXES,
    decode_face,
    opened_face,
    pillow_image,
    read_face,
    strict_size_warnings,
)
from synthmtl.errors import InputError


@pytest.fixture
def gray(faces):
    return Image.fromarray(faces(1, 20)[0, 0].numpy())


def stored(image, tmp_path, name="face.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("channels", [1, 3])
def test_a_face_made_an_image_is_read_as_itself(faces, channels):
    face = faces(1, 20, channels=channels)[0]
    image = pillow_image(face)
    assert (image.mode, image.size) == ("L" if channels == 1 else "RGB", (20, 20))
    assert torch.equal(opened_face(image, 20, channels), face)


def test_right_size_keeps_every_pixel(tmp_path, faces):
    image = faces(1, 20, 3)[0]
    path = stored(Image.fromarray(image.permute(1, 2, 0).numpy()), tmp_path)
    assert torch.equal(read_face(path, 20, 3), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_modes_without_loss_give_the_same_face(tmp_path, gray, mode, channels):
    face = read_face(stored(gray.convert(mode), tmp_path), 20, channels)
    expected = torch.from_numpy(np.array(gray)).expand(channels, -1, -1)
    assert face.shape == (channels, 20, 20) and face.dtype == torch.uint8
    assert torch.equal(face, expected)


@pytest.mark.parametrize("name", ["face.jpg", "face.tif"])
def test_cmyk_is_not_inverted(tmp_path, gray, name):
    path = stored(gray.convert("RGB").convert("CMYK"), tmp_path, name)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    difference = read_face(path, 20, 1).int() - torch.from_numpy(np.array(gray)).int()
    assert difference.abs().float().mean() < 6


@pytest.mark.parametrize("name", ["face.png", "face.tif"])
def test_sixteen_bits_are_scaled_over_their_full_range(tmp_path, gray, name):
    wide = np.asarray(gray).astype(np.uint16) * 257
    path = stored(Image.fromarray(wide), tmp_path, name)
    assert torch.equal(read_face(path, 20, 1)[0], torch.from_numpy(np.array(gray)))


def tiff(values, bits, photometric, orientation):
    """A TIFF of one uncompressed strip, by hand: gray ``values`` (H, W) of 8, 12 or 16 bits, W even."""
    data = values.astype("<u2" if bits > 8 else np.uint8).tobytes()
    if bits == 12:  # two numbers in three bytes, the upper bits first
        first, second = values.astype(int).reshape(-1, 2).T
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
        data = packed.astype(np.uint8).tobytes()
    tags = {
        256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 274: orientation,
        277: 1, 278: values.shape[0], 279: len(data),
    }  # fmt: skip
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items()
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("bits", "photometric"), [(8, 1), (8, 0), (12, 1), (16, 1), (16, 0)])
def test_gray_tiffs_of_any_depth_and_direction_show_the_same_face(gray, bits, photometric, orientation):
    white = 2**bits - 1
    pixels = np.asarray(gray)
    values = np.round(pixels / 255 * white).astype(np.int64)
    data = tiff(values if photometric else white - values, bits, photometric, orientation)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == ("L" if bits == 8 else "I;16")
    wanted = pixels if orientation == 1 else np.rot90(pixels, -1)
    face = decode_face(data, "face.tif", 20, 1).pixels[0]
    assert abs(face.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_gray_value_becomes_mid_gray_at_8_and_at_16_bits(tmp_path, gray, channels):
    pixels = np.array(gray)
    pixels[:5, :5] = 200
    narrow = stored(Image.fromarray(pixels), tmp_path, "narrow.png", transparency=200)
    wide = stored(Image.fromarray(pixels.astype(np.uint16) * 257), tmp_path, "wide.png", transparency=200 * 257)
    face = read_face(wide, 20, channels)
    assert torch.equal(face, read_face(narrow, 20, channels))
    assert (face[:, :5, :5] == 128).all() and (face[0, 5:] == torch.from_numpy(pixels[5:])).float().mean() > 0.9


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = np.zeros((8, 8), bool)
    bits[:, 4:] = True
    face = read_face(stored(Image.fromarray(bits), tmp_path), 8, 1)
    assert face[0, :, :4].max() == 0 and face[0, :, 4:].min() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_mid_gray(tmp_path, mode):
    image = Image.new(mode, (8, 8), (255, 255, 255, 0) if mode == "RGBA" else (255, 0))
    assert (read_face(stored(image, tmp_path), 8, 1) == 128).all()


def test_palette_with_a_transparent_color(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 200, 200])
    image.putpixel((0, 0), 1)
    face = read_face(stored(image, tmp_path, transparency=0), 8, 3)
    assert face[:, 0, 0].tolist() == [200, 200, 200] and face[:, 4, 4].tolist() == [128, 128, 128]


def test_exif_orientation_is_honored(tmp_path, faces):
    image = Image.fromarray(faces(1, 20)[0, 0].numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = stored(image, tmp_path, exif=exif)
    assert torch.equal(read_face(path, 20, 1)[0], torch.from_numpy(np.rot90(np.asarray(image), -1).copy()))


def test_central_square_is_cut(tmp_path):
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 200
    assert (read_face(stored(Image.fromarray(pixels), tmp_path), 10, 1) == 200).all()


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((96, 96), np.uint8)
    stripes[:, ::2] = 255
    face = read_face(stored(Image.fromarray(stripes), tmp_path), 12, 1).float()
    assert (face - 127.5).abs().max() < 6


def animated(tmp_path, gray, name):
    gray.save(tmp_path / name, save_all=True, append_images=[gray.rotate(90)], duration=100)
    return tmp_path / name


def huge(tmp_path):
    """A valid PNG header for a picture of 100,000 x 100,000 pixels, with hardly any data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "huge.png").write_bytes(data)
    return tmp_path / "huge.png"


@pytest.mark.parametrize("name", ["face.gif", "face.png", "face.webp", "face.tif"])
def test_several_frames_are_refused(tmp_path, gray, name):
    with pytest.raises(InputError, match=f"{name}: the image has 2 frames"):
        read_face(animated(tmp_path, gray, name), 16, 1)


def test_a_single_frame_gif_is_read(tmp_path, gray):
    assert torch.equal(read_face(stored(gray, tmp_path, "face.gif"), 20, 1)[0], torch.from_numpy(np.array(gray)))


def test_huge_image_is_refused_before_it_is_decoded(tmp_path):
    with pytest.raises(InputError, match="huge.png: .*limit of 40 million pixels"):
        read_face(huge(tmp_path), 16, 1)


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 10_000])
def test_limit_below_pillows_own_gives_no_warning(recwarn, side):
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    with pytest.raises(InputError, match="limit of 40 million pixels"), strict_size_warnings():
        decode_face(buffer.getvalue(), "wide.png", 16, 1)
    assert not recwarn.list


def test_zero_bytes(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty.png: .*\(0 bytes\)"):
        read_face(tmp_path / "empty.png", 16, 1)


@pytest.mark.parametrize("name", ["face.png", "face.jpg", "face.bmp", "face.tif"])
def test_truncated(tmp_path, faces, name):
    path = stored(Image.fromarray(faces(1, 64)[0, 0].numpy()), tmp_path, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"{name}: .*corrupt"):
        read_face(path, 16, 1)


def test_text_with_an_image_name(tmp_path):
    (tmp_path / "face.png").write_text("this is no picture")
    with pytest.raises(InputError, match="face.png: not an image"):
        read_face(tmp_path / "face.png", 16, 1)


def test_floating_point_pixels_are_refused(tmp_path):
    path = stored(Image.fromarray(np.random.default_rng(0).random((8, 8)).astype(np.float32)), tmp_path, "face.tif")
    with pytest.raises(InputError, match="floating-point"):
        read_face(path, 8, 1)


def test_missing_file_and_bad_arguments(tmp_path, gray):
    with pytest.raises(InputError, match="no such image file"):
        read_face(tmp_path / "none.png", 16, 1)
    with pytest.raises(InputError, match="channels"):
        read_face(stored(gray, tmp_path), 16, 2)
    with pytest.raises(InputError, match="image_size"):
        read_face(stored(gray, tmp_path), 0, 1)


@pytest.mark.parametrize("size", [(20, 20), (30, 24)])
def test_a_box_inside_the_picture_is_cut_out(faces, size):
    pixels = faces(1, 30)[0, 0, : size[1], : size[0]].numpy()
    face = decode_face(png(pixels), "a.png", 12, 1, (3, 5, 15, 17))
    assert (face.pixels[0] == pixels[5:17, 3:15]).all() and (face.width, face.height) == size


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("box", [(-4, -2, 16, 18), (12, 9, 28, 25), (-5, -5, 25, 25), (-3.5, 2.25, 10.5, 16.25)])
def test_a_box_beyond_the_picture_is_as_one_in_a_picture_with_a_wider_border(faces, channels, box):
    pixels = faces(1, 20, channels)[0].permute(1, 2, 0).squeeze(-1).numpy()
    wide = np.pad(pixels, [(40, 40), (40, 40), (0, 0)][: pixels.ndim], mode="edge")
    shifted = tuple(side + 40 for side in box)
    beyond, inside = (
        decode_face(png(image), "a.png", 12, channels, each).pixels.astype(int)
        for image, each in ((pixels, box), (wide, shifted))
    )
    assert abs(beyond - inside).max() <= 1  # positions are rounded on another scale


@pytest.mark.parametrize(
    "box", [(20, 0, 30, 10), (-9, 0, 0, 9), (5, 5, 5, 9), (9, 0, 5, 4), (float("nan"), 0, 9, 9), (-1e9, -1e9, 1e9, 1e9)]
)
def test_a_box_that_does_not_suit(faces, box):
    with pytest.raises(InputError, match="a.png: the face's box .* does not suit 20x20 pixels"):
        decode_face(png(faces(1, 20)[0, 0].numpy()), "a.png", 12, 1, box)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.skipif(".avif" not in IMAGE_SUFFIXES, reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_can(tmp_path, gray):
    difference = read_face(stored(gray, tmp_path, "face.avif"), 20, 1).int() - torch.from_numpy(np.array(gray)).int()
    assert difference.abs().float().mean() < 6
    with pytest.raises(InputError, match="face.avif: the image has 2 frames"):
        read_face(animated(tmp_path, gray, "face.avif"), 16, 1)


def test_each_suffix_is_read_or_not():
    assert not set(IMAGE_SUFFIXES) & set(UNREAD_SUFFIXES)
    assert {".avif", ".heic", ".jxl"} <= {*IMAGE_SUFFIXES, *UNREAD_SUFFIXES}
    known = Image.registered_extensions()
    assert all(suffix in known for suffix in IMAGE_SUFFIXES)
