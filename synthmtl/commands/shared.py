"""What several commands share: the way in for data, networks and devices."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from synthmtl.errors import InputError

_TALK = ("out", "resume", "overwrite", "quiet", "json")

DATA_HELP = "image folder, zip of one, FER2013's csv, the folder of a published data set, or hf:NAME (Hugging Face)"


def add_bad_image_option(parser: ArgumentParser) -> None:
    """``--on-bad-image``."""
    parser.add_argument(
        "--on-bad-image", type=Literal["error", "skip"], default="error",
        help="error: stop at files that cannot be read and list them; skip: leave them out",
    )  # fmt: skip


def settings(options: Namespace) -> dict:
    """What the content of ``--out`` depends on."""
    return {name: value for name, value in options.as_dict().items() if name not in _TALK}


def default_device() -> Any:
    """The ``torch.device`` that networks run on."""
    from synthmtl.training import build_accelerator

    return build_accelerator().device


def add_sampling_options(parser: ArgumentParser) -> None:
    """How faces are drawn: ``--spread`` and ``--sampling.*``."""
    from synthmtl.models.sampling import SamplingOptions

    parser.add_argument("--spread", type=float, default=1.0, help="variety of styles, in standard deviations")
    parser.add_class_arguments(SamplingOptions, "sampling")


def load_generator(options: Namespace) -> tuple[Any, Any]:
    """The network that ``--model`` names and its sampling options, which suit it."""
    from synthmtl.models.generators import FaceGenerator, sampling_arguments
    from synthmtl.models.inference import load_network
    from synthmtl.models.sampling import SamplingOptions

    generator = load_network(options.model, part="generator")
    if not isinstance(generator, FaceGenerator):
        raise InputError(f"{options.model}: holds a recognizer without a synthesis branch; give a run with a generator")
    sampling = SamplingOptions(**options.sampling.as_dict())
    sampling_arguments(generator, sampling)
    if not 0 <= options.spread < math.inf:
        raise InputError(f"--spread is {options.spread}: give a finite number from 0 up")
    return generator, sampling


def readable_faces(files: Sequence[str], model: Any) -> Iterator[tuple[int, str, Any]]:
    """Place among all, name, and face (1, C, H, W) in [-1, 1] of each readable file.

    Raises:
        InputError: at the end, naming the others.
    """
    from synthmtl.data.images import read_face
    from synthmtl.data.pixels import to_unit
    from synthmtl.data.sources import first_of

    bad = []
    for number, file in enumerate(files):
        try:
            if Path(file).is_dir():
                raise InputError(f"{file}: a folder: give the image files in it")
            face = read_face(file, model.config.image_size, model.config.image_channels)
        except InputError as error:
            bad.append(str(error))
            continue
        yield number, file, to_unit(face[None])
    if bad:
        raise InputError(f"{len(bad)} of {len(files)} images could not be read: {first_of(bad)}")
