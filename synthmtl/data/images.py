"""One image file of any common kind → one square uint8 face.

Read properly: gray, RGB, palette, CMYK and other color spaces, 1-bit, 12- and 16-bit gray (full range scaled to 8
bits), TIFFs in which white is 0, and alpha (laid over mid-gray). Refused with a message: several frames, no bytes,
broken or cut-off files, floating-point pixels, and more than :data:`MAX_PIXELS` pixels.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import ExifTags, Image, ImageOps, features
from torch import Tensor

from synthmtl.errors import InputError

MAX_PIXELS = 40_000_000
"""Images with more pixels are refused before they are decoded (decompression bombs)."""

MAX_BYTES = 256 * 2**20
"""Image files with more bytes are refused before they are read."""

_AVIF = "avif" in features.modules and features.check("avif")  # Pillow before 11.3 does not know of it

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm",
    *((".avif",) if _AVIF else ()),
)  # fmt: skip
"""Names that end so (any case) are taken for images; AVIF only where the installed Pillow reads it."""

UNREAD_SUFFIXES = (".heic", ".heif", ".jp2", ".jxl", *(() if _AVIF else (".avif",)))
"""Names that end so are images, too, of formats that are not read; other files of a data folder are none."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a face in pixels from the upper left corner of the upright picture."""

_BACKGROUND = (128, 128, 128, 255)
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")


@dataclass(frozen=True)
class DecodedFace:
    """A face and what its file was like.

    Attributes:
        pixels: (C, S, S) uint8.
        width, height: of the upright image before the crop, in pixels.
        mode: Pillow's name of the stored pixel format (``L``, ``RGB``, ``I;16``, ...).
        synthetic: whether a text chunk of the file says that a generator made it, as in this suite's own PNG files.
    """

    pixels: np.ndarray
    width: int
    height: int
    mode: str
    synthetic: bool = False


def read_face(path: str | Path, image_size: int, channels: int) -> Tensor:
    """The face in an image file.

    The image is turned upright by its EXIF orientation, cut to its central square if it is not square, and resized
    with an antialiased bicubic filter; an image that has the wanted size already keeps its pixels to the bit.

    Args:
        path: image file.
        image_size: S, side of the result in pixels.
        channels: C, 1 for gray (ITU-R 601 luma) or 3 for RGB.

    Returns:
        (C, S, S) uint8.

    Raises:
        InputError: if the file is missing, empty, broken, too large, has several frames or cannot be shown in 8 bits.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image file: check the path")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: {too_many_bytes(path.stat().st_size)}")
    with strict_size_warnings():
        return torch.from_numpy(decode_face(path.read_bytes(), str(path), image_size, channels).pixels)


def too_many_bytes(size: int) -> str:
    """What is wrong with an image file of ``size`` > :data:`MAX_BYTES` bytes, and the cure."""
    return f"the file has {size / 2**20:.0f} MiB, above the limit of {MAX_BYTES // 2**20}: crop or shrink it first"


@contextlib.contextmanager
def strict_size_warnings() -> Iterator[None]:
    """Within it Pillow's decompression-bomb warning is an exception, which :func:`decode_face` words as its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_face(data: bytes, name: str, image_size: int, channels: int, box: Box | None = None) -> DecodedFace:
    """As :func:`read_face`, from the bytes of a file; ``name`` stands in messages.

    Args:
        box: the part to keep instead of the central square. It may reach beyond the picture, whose border pixels are
            repeated there.

    Raises:
        InputError: as :func:`read_face`, or if the box has no area or does not meet the picture.
    """
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (gray) or 3 (RGB), not {channels}")
    if image_size < 1:
        raise InputError(f"image_size must be at least 1 pixel, not {image_size}")
    if not data:
        raise InputError(f"{name}: the image file is empty (0 bytes): restore or delete it")
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            _check(image, name)
            image.load()
            synthetic = image.info.get("synthetic") == "true"
            # Broken EXIF data say nothing about the pixels, so they must not cost the image.
            with contextlib.suppress(Exception):
                ImageOps.exif_transpose(image, in_place=True)
            width, height = image.size
            face, box = _eight_bit(image, name), box or central_square(width, height)
            if not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
                face, box = _extended(face, box, image_size, name)
            return DecodedFace(square_pixels(face, image_size, channels, box), width, height, mode, synthetic)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{name}: {_too_many_pixels()}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{name}: not an image, or a corrupt one: replace or delete it") from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: corrupt or truncated image ({reason}): replace or delete it") from None


def opened_face(image: Image.Image, image_size: int, channels: int) -> Tensor:
    """As :func:`read_face`, of an image that Pillow has opened; it is left as it is.

    Raises:
        InputError: if the image cannot be shown in 8 bits.
    """
    face = _eight_bit(image, "image").copy()
    with contextlib.suppress(Exception):  # broken EXIF data, as above
        # Scaled pixels carry none; turning comes second, since a turned copy no longer says how a TIFF's are stored.
        face.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
        face = ImageOps.exif_transpose(face)
    return torch.from_numpy(square_pixels(face, image_size, channels))


def pillow_image(face: Tensor) -> Image.Image:
    """A face (C, H, W) uint8 as an image of one channel or three."""
    pixels = rearrange(face.cpu(), "c h w -> h w c").numpy()
    return Image.fromarray(pixels[..., 0] if len(face) == 1 else pixels)


def _too_many_pixels(size: tuple[int, int] | None = None) -> str:
    have = f"{size[0]}x{size[1]} pixels are" if size else "the image is"
    return f"{have} above the limit of {MAX_PIXELS // 10**6} million pixels: crop or shrink it first"


def _check(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{name}: {_too_many_pixels(image.size)}")
    # A phone's MPO is one photograph with a preview behind it; its first frame is the photograph.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        frames = image.n_frames  # type: ignore[attr-defined]  # classes of the formats that can be animated have it
        raise InputError(f"{name}: the image has {frames} frames (animated or several pages): keep one frame")


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """The image as ``L`` or ``RGB``: 16 bits scaled, alpha laid over mid-gray, other color spaces converted."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _eight_bit_gray(image, name)
    if image.mode == "F":
        raise InputError(f"{name}: floating-point pixels have no known range: save it as an 8- or 16-bit image")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image).convert("RGB")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _eight_bit_gray(image: Image.Image, name: str) -> Image.Image:
    """A gray image of more than 8 bits as ``L``, its full range scaled, transparent pixels mid-gray."""
    # Pillow gives a TIFF's numbers as they are stored: 12 bits up to 4095, and, unlike 8 bits, white as 0 if it is so.
    tags = getattr(image, "tag_v2", {})
    white = 2 ** min(16, tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > white:
        raise InputError(f"{name}: 32-bit pixels beyond 0..65535: save it as an 8- or 16-bit image")
    transparent = values == image.info.get("transparency", -1)
    if tags.get(_PHOTOMETRIC) == 0:
        values = white - values
    values = (values * 255 + white // 2) // white
    values[transparent] = _BACKGROUND[0]
    return Image.fromarray(values.astype(np.uint8))


def _extended(image: Image.Image, box: Box, image_size: int, name: str) -> tuple[Image.Image, Box]:
    """The part of an image around ``box``, border pixels repeated where the box leaves it, and the box in it."""
    left, top, right, bottom = box
    meets = left < right and top < bottom and right > 0 and bottom > 0 and left < image.width and top < image.height
    if not meets or max(right - left, bottom - top) ** 2 > MAX_PIXELS:
        shown = ", ".join(f"{side:g}" for side in box)
        raise InputError(
            f"{name}: the face's box ({shown}) does not suit {image.width}x{image.height} pixels: correct it"
        )
    reach = 2 * max(1.0, max(right - left, bottom - top) / image_size)  # of the bicubic filter beyond the box
    x, y, right_end, bottom_end = (
        math.floor(left - reach), math.floor(top - reach), math.ceil(right + reach), math.ceil(bottom + reach),
    )  # fmt: skip
    part = (max(0, x), max(0, y), min(image.width, right_end), min(image.height, bottom_end))
    pads = [(part[1] - y, bottom_end - part[3]), (part[0] - x, right_end - part[2]), (0, 0)]
    pixels = np.asarray(image.crop(part))
    return Image.fromarray(np.pad(pixels, pads[: pixels.ndim], mode="edge")), (left - x, top - y, right - x, bottom - y)


def square_pixels(image: Image.Image, image_size: int, channels: int, box: Box | None = None) -> np.ndarray:
    """A part (None = the central square) of an ``L`` or ``RGB`` image, resized (antialiased bicubic).

    Returns:
        (C, image_size, image_size) uint8; pixels to the bit where the part is the whole image and has that size.
    """
    image = image.convert("L" if channels == 1 else "RGB")
    box = box or central_square(image.width, image.height)
    if image.size != (image_size, image_size) or box != (0, 0, image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box)
    pixels = np.array(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(rearrange(pixels, "h w c -> c h w"))


def central_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest square in the middle of an image: left, top, right, bottom in pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
