"""What ``synthmtl evaluate``, ``predict`` and ``synthesize`` take and do: a trained network at work."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.in_the_run import as_in_the_run, load_as_in_the_run, note_changes
from synthmtl.commands.options import add_out_options
from synthmtl.commands.shared import (
    DATA_HELP,
    add_bad_image_option,
    add_sampling_options,
    default_device,
    load_generator,
    readable_faces,
    settings,
)
from synthmtl.commands.talk import add_json_option, counted, tell
from synthmtl.errors import InputError

log = logging.getLogger("synthmtl")

_STEM = 50
"""Letters of a source's name in that of its edit: file systems take 255 bytes, some letters four."""

_SOURCE = "source_hash"
"""The text chunk of an edit that says of which pixels it was made, as the network sees them."""


def configure_evaluate(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the evaluation."""
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved network")
    parser.add_argument("--data", type=str, required=True, help=DATA_HELP)
    add_bad_image_option(parser)
    parser.add_argument("--split", type=str, default="test", help="train, validation or test")
    parser.add_argument(
        "--split_seed", type=int | None, default=None,
        help="of splits that the data do not bring along; default: that of the run, so that what it held out is scored",
    )  # fmt: skip
    parser.add_argument("--out", type=str, required=True, help="JSON file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --out")
    add_json_option(parser)


def run_evaluate(options: Namespace) -> None:
    """Score a network on one split, into a JSON file."""
    from synthmtl.data.load import read_tables
    from synthmtl.experiment import check_file, write_json
    from synthmtl.metrics import bootstrap_intervals, recognition_metrics
    from synthmtl.models.inference import load_network, predict_table

    out = check_file(options.out, overwrite=options.overwrite)
    if options.split not in ("train", "validation", "test"):
        raise InputError(f"unknown split {options.split!r}: use train, validation or test")
    model = load_network(options.model)
    wanted = {
        "image_size": model.config.image_size, "channels": model.config.image_channels, "classes": model.classes,
        "on_bad": options.on_bad_image,
    }  # fmt: skip
    reading = {name: value for name, value in as_in_the_run(options).items() if name != "split_seed"}
    # A split that is there needs no other one beside it, and none every class of the network. But what the run held
    # out, for lack of other splits, was held out of the training faces.
    tables = read_tables(options.data, **wanted, **reading)
    whole = options.split != "train" or {"validation", "test"} <= tables.keys()
    table, notes = tables.get(options.split) if whole else None, []
    del tables  # the faces of other splits need not wait in memory
    if table is None:
        splits = load_as_in_the_run(
            options, [options.split], split_seed=options.split_seed, every_class=False, **wanted
        )  # fmt: skip
        table, notes = getattr(splits, options.split), splits.notes
    elif options.split != "train":
        table = table.select(~table.synthetic)
        if options.split == "test":  # a run's validation may lack what its test shows, too
            notes = note_changes(options, "test", table.with_classes(model.classes))
    table = table.with_classes(model.classes)
    device = default_device()
    probabilities = predict_table(model.to(device), table, device=device)
    scores = dataclasses.asdict(recognition_metrics(probabilities, table.expression, table.classes))
    intervals = bootstrap_intervals(probabilities, table.expression, table.classes, subject=table.subject)
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {"split": options.split, "notes": notes, "classes": table.classes} | scores | {"ci95": intervals}
    write_json(out, found)
    said = f"accuracy {scores['accuracy']:.4f}  macro-F1 {scores['macro_f1']:.4f}  ({scores['count']} faces) → {out}"
    tell(options, {"out": str(out)} | found, said)


def configure_predict(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the prediction."""
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved network")
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGE", help="image files of faces")


def run_predict(options: Namespace) -> None:
    """Print one JSON line an image."""
    from synthmtl.models.inference import load_network, mirror_averaged

    model = load_network(options.model)
    device = default_device()
    model = model.to(device)
    for _, file, image in readable_faces(options.images, model):
        # As networks are scored.
        probabilities = mirror_averaged(model.recognize, image.to(device))[0].tolist()
        named = dict(zip(model.classes, (round(p, 6) for p in probabilities), strict=True))
        best = max(named, key=named.__getitem__)
        print(json.dumps({"file": file, "expression": best, "probabilities": named}), flush=True)
    log.info("%s recognized by %s", counted(len(options.images), "image"), options.model)


def configure_synthesize(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of editing and of making new faces."""
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved generator")
    parser.add_argument("--expression", type=str | None, default=None, help="wanted expression")
    parser.add_argument(
        "--action_units",
        type=dict[str, float] | str | None,
        default=None,
        help='wanted intensities by name, e.g. "{AU6: 0.6, AU12: 1}"; the others are 0. For a generator trained with '
        "--model.condition action_units, which takes an expression, too",
    )
    parser.add_argument(
        "--valence_arousal", type=tuple[float, float] | None, default=None,
        help='wanted valence and arousal, each in [-1, 1], e.g. "[0.8, 0.3]". For a generator trained with '
        "--model.condition valence_arousal, which takes an expression, too",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0,
        help="of the style, or of a diffusion model's noise; new faces have this seed and those that follow it",
    )  # fmt: skip
    parser.add_argument(
        "--new", type=int | None, default=None, metavar="N",
        help="make N new faces, of nobody, instead of editing images; for a diffusion generator",
    )  # fmt: skip
    add_sampling_options(parser)
    parser.add_argument("images", type=str, nargs="*", metavar="IMAGE", help="image files of faces to edit")
    add_out_options(parser, "folder for the faces")
    add_json_option(parser)


def run_synthesize(options: Namespace) -> None:
    """Edit images or make new faces, and print the names of the files."""
    import torch

    from synthmtl.balance.chunks import tensor_hash, weights_hash
    from synthmtl.data.pixels import to_pixels
    from synthmtl.experiment import check_out, claim, open_out
    from synthmtl.models.generators import sampling_arguments

    check_out(options.out, resume=options.resume, overwrite=options.overwrite, options=settings(options))
    model, sampling = load_generator(options)
    _check_faces(model, options)
    target, said = _wanted(model, options)
    device = default_device()
    model, target = model.to(device), target.to(device)
    how = sampling_arguments(model, sampling) | {"spread": options.spread}
    out, written = None, []
    new = ((number, "new", None) for number in range(options.new or 0))
    try:
        for number, file, image in readable_faces(options.images, model) if options.new is None else new:
            if out is None:
                out = open_out(options.out, resume=options.resume, overwrite=options.overwrite)
                claim(out, {"command": "synthesize", "generator": weights_hash(model)} | settings(options))
            name = out / f"{number:05d}-{Path(file).stem[:_STEM]}-{said}.png"
            source = None if image is None else tensor_hash(image)
            if not _is_made(name, file, source):
                style = torch.Generator().manual_seed(options.seed + (number if image is None else 0))
                made = model.synthesize(None if image is None else image.to(device), target, generator=style, **how)
                _save(to_pixels(made[0]).cpu(), name, source)
            written.append(str(name))
            if not options.json:
                print(name, flush=True)
    finally:  # an image that cannot be read is told of at the end, and those beside it have been edited
        if options.json and written:
            print(json.dumps({"out": str(out), "files": written}))
    log.info("%s of %s → %s", counted(len(written), "face"), said, out)


def _save(face: Any, file: Path, source: str | None) -> None:
    """Write a face (C, H, W) uint8 as PNG, which says that it was made, and of which source; None = it has none."""
    from PIL.PngImagePlugin import PngInfo

    from synthmtl.data.images import pillow_image
    from synthmtl.files import replacing

    text = PngInfo()
    text.add_text("synthetic", "true")  # as balance marks its faces: in a folder of data it is taken for no photograph
    if source is not None:
        text.add_text(_SOURCE, source)
    with replacing(file) as partial:
        pillow_image(face).save(partial, "PNG", pnginfo=text)


def _is_made(face: Path, file: str, source: str | None) -> bool:
    """Whether a face is there already, made of the source ``file`` with this hash; None = it has no source.

    A file that does not say what it was made of, as it is damaged or of an earlier version, is made again.

    Raises:
        InputError: if it was made of another picture than is in ``file`` now.
    """
    from PIL import Image

    if source is None or not face.exists():
        return face.exists()
    try:
        with Image.open(face) as image:
            made_of = image.info.get(_SOURCE)
    except OSError:
        made_of = None
    if made_of not in (None, source):
        raise InputError(f"{file}: has changed since {face} was made of it; restore it, or start anew with --overwrite")
    return made_of is not None


def _check_faces(model: Any, options: Namespace) -> None:
    """Stop unless there are either images to edit or new faces to make, by a generator that can."""
    from synthmtl.models.generators import makes_new_faces

    if options.new is None and not options.images:
        raise InputError("nothing to edit: name images of faces, or ask for new faces by --new N")
    if options.new is not None and options.images:
        raise InputError("--new makes faces without a source: leave the images out, or --new")
    if options.new is not None and options.new < 1:
        raise InputError(f"--new is {options.new}: at least one face")
    if not 0 <= options.seed < 2**63 - (options.new or 0):
        raise InputError(f"--seed is {options.seed}: a whole number from 0 to 2^63 - 1, that of the last face included")
    if options.new is not None and options.sampling.strength is not None:
        raise InputError("--sampling.strength says how much noise is put on a source, --new has none: leave it out")
    if options.new is not None and not makes_new_faces(model):
        raise InputError(f"--new: the generator in {options.model} edits faces; a diffusion generator makes new ones")


def _wanted(model: Any, options: Namespace) -> tuple[Any, str]:
    """The target (1, ...) that exactly one of the options names, and a word for it that suits a file's name."""
    from synthmtl.labels import canonical_compound, canonical_expression, class_index
    from synthmtl.models.conditions import CONDITIONS, read_target

    if isinstance(options.action_units, str):  # what YAML takes {AU12:1} for
        raise InputError(
            f'--action_units is {options.action_units!r}: write names and numbers as in "{{AU6: 0.6, AU12: 1}}", '
            "with a space after each colon"
        )
    condition = model.config.condition
    given = {name: options[name] for name in CONDITIONS if options[name] is not None}
    if len(given) != 1:
        raise InputError("give one of --expression, --action_units and --valence_arousal")
    ((kind, wanted),) = given.items()
    if kind == "expression":
        if condition == "expression":
            class_index(model.classes, wanted)
        target, said = read_target(condition, model.classes, wanted), canonical_expression(wanted)
        said = said or canonical_compound(wanted)
        assert said is not None  # a target was read from it
        return target, said
    if kind != condition:
        raise InputError(f"--{kind}: the generator in {options.model} is told {condition.replace('_', ' ')}")
    numbers = wanted.values() if kind == "action_units" else wanted
    low = 0 if kind == "action_units" else -1
    if not all(low <= number <= 1 for number in numbers):
        raise InputError(f"--{kind}: give numbers from {low} to 1")
    if kind == "action_units":
        target = read_target(kind, model.classes, wanted)
        return target, "-".join(name for name, number in wanted.items() if number) or "relaxed"
    return read_target(kind, model.classes, [float(number) for number in wanted]), "{:+.2f}{:+.2f}".format(*wanted)
