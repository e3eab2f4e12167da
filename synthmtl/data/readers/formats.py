"""The layouts of data sets on disk: how each is recognized, and what reads it."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from synthmtl.data.readers.affectnet import is_affectnet, read_affectnet
from synthmtl.data.readers.affwild2 import is_affwild2, read_affwild2
from synthmtl.data.readers.bp4d import is_bp4d, read_bp4d
from synthmtl.data.readers.ckplus import is_ckplus, read_ckplus
from synthmtl.data.readers.disfa import is_disfa, read_disfa
from synthmtl.data.readers.emotionet import is_emotionet, read_emotionet
from synthmtl.data.readers.fer2013 import is_fer2013, read_fer2013, wrapped_csv
from synthmtl.data.readers.hugging_face import is_hugging_face, read_hugging_face
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.readers.landmarks_300w import is_300w, read_300w
from synthmtl.data.readers.london import is_london, read_london
from synthmtl.data.readers.rafdb import is_rafdb, read_rafdb
from synthmtl.data.readers.webdataset import is_webdataset, read_webdataset
from synthmtl.data.readers.wflw import is_wflw, read_wflw
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

logger = logging.getLogger("synthmtl")


class Format(NamedTuple):
    """A layout: ``detect(path)`` looks at names and headers only, ``read(path, *, image_size, channels, classes=None,
    on_bad="error")`` gives a table by split."""

    detect: Callable[[Path], bool]
    read: Callable[..., dict[str, FaceTable]]


FORMATS = {
    "huggingface": Format(is_hugging_face, read_hugging_face),
    "affectnet": Format(is_affectnet, read_affectnet),
    "rafdb": Format(is_rafdb, read_rafdb),
    "ckplus": Format(is_ckplus, read_ckplus),
    "affwild2": Format(is_affwild2, read_affwild2),
    "disfa": Format(is_disfa, read_disfa),
    "bp4d": Format(is_bp4d, read_bp4d),
    "wflw": Format(is_wflw, read_wflw),
    "300w": Format(is_300w, read_300w),
    "emotionet": Format(is_emotionet, read_emotionet),
    "london": Format(is_london, read_london),
    "webdataset": Format(is_webdataset, read_webdataset),
    "fer2013": Format(lambda path: path.is_file() and path.suffix.lower() == ".csv" and is_fer2013(path), read_fer2013),
    "image_folder": Format(lambda path: path.is_dir() or path.suffix.lower() != ".csv", read_image_folder),
}
"""Layouts by name, in the order in which they are tried; what is none of the others is taken for an image folder."""

FRAME_OPTIONS = {"every": ("affwild2", "disfa", "bp4d"), "peaks": ("ckplus",)}
"""Options about the frames of videos, 1 by default, and the layouts whose readers have them: only each
``every``-th frame is read, and ``peaks`` frames at the end of a sequence carry its expression."""


def known_format(path: str | Path, format: str | None = None) -> str:
    """The name of a data set's layout: as given, or detected.

    Raises:
        InputError: if there is no such path, the format is unknown, or none is detected.
    """
    if not Path(path).exists() and not is_hugging_face(path):
        raise InputError(f"{path}: no such folder or file: check the path")
    if format is None:
        return detect_format(path)
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}: use one of {', '.join(FORMATS)}")
    return format


def frame_options(path: str | Path, format: str, **given: int) -> dict[str, int]:
    """Of options about frames those that the reader of a layout has.

    Args:
        path: the data set, for the message.
        format: its layout.
        given: any of :data:`FRAME_OPTIONS`.

    Raises:
        InputError: if one that the reader has not is other than 1.
    """
    for name, value in given.items():
        if value != 1 and format not in FRAME_OPTIONS[name]:
            known = ", ".join(FRAME_OPTIONS[name])
            raise InputError(f"{path}: {name} is {value}, and {format} has no such option, only {known}: leave it out")
    return {name: value for name, value in given.items() if format in FRAME_OPTIONS[name]}


def detect_format(path: str | Path) -> str:
    """The name of the layout that a data set has on disk.

    Raises:
        InputError: if the path is a csv that is none of those known, or a folder or zip that only wraps FER2013's csv.
    """
    path = Path(path)
    for name, layout in FORMATS.items():
        if layout.detect(path):
            if name == "image_folder" and (inside := wrapped_csv(path)):
                what = f"give {path / inside} itself" if path.is_dir() else f"unpack {inside} and give that file"
                raise InputError(f"{path}: no faces found, but FER2013's csv: {what}")
            if name not in ("image_folder", "fer2013"):
                logger.info("%s: read as %s", path, name)
            return name
    raise InputError(
        f"{path}:1: not FER2013's csv (its header is emotion,pixels,Usage): give that file or the folder of images"
    )
