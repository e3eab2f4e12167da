"""What ``synthmtl render`` and ``synthmtl inspect`` take and do: faces without a network."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.options import add_out_options
from synthmtl.commands.shared import DATA_HELP, settings
from synthmtl.commands.talk import add_json_option, tell
from synthmtl.errors import InputError


def configure_render(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of rendering."""
    parser.add_argument("--count", type=int, default=800, help="faces in all, spread evenly over the expressions")
    parser.add_argument("--size", type=int, default=48, help="side in pixels, 32 to 256")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--subjects", type=int, default=100, help="people")
    parser.add_argument("--color", action="store_true", help="RGB instead of gray")
    parser.add_argument("--style", type=str, default="studio", help="studio, or wild: as in photographs from the web")
    add_json_option(parser)
    add_out_options(parser)


def run_render(options: Namespace) -> None:
    """Write rendered faces."""
    from synthmtl.data.writer import write_image_folder
    from synthmtl.experiment import claim, open_out
    from synthmtl.faces import RenderConfig, render_faces
    from synthmtl.labels import EXPRESSIONS

    if options.count < 1:
        raise InputError(f"--count is {options.count}: at least one face")
    each, rest = divmod(options.count, len(EXPRESSIONS))
    config = RenderConfig(
        counts={name: each + (i < rest) for i, name in enumerate(EXPRESSIONS)},
        image_size=options.size,
        channels=3 if options.color else 1,
        subjects=options.subjects,
        seed=options.seed,
        style=options.style,
    )
    out = open_out(options.out, resume=options.resume, overwrite=options.overwrite)
    claim(out, {"command": "render"} | settings(options))
    if not (out / "train" / "metadata.jsonl").is_file():
        write_image_folder(render_faces(config), out)
    tell(options, {"out": str(out), "faces": options.count}, f"{options.count} faces → {out}")


def configure_inspect(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the inspection."""
    from synthmtl.data.readers.formats import FORMATS

    parser.add_argument("data", type=str, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--format", type=str, help=f"layout on disk: {', '.join(FORMATS)}; detected by default")
    parser.add_argument("--every", type=int, default=1, help="look only at each EVERY-th frame of a video")
    parser.add_argument("--peaks", type=int, default=1, help="frames of a sequence of CK+ that carry its expression")
    add_json_option(parser)


def run_inspect(options: Namespace) -> None:
    """Print what a data set holds."""
    from synthmtl.data.inspection import format_inspection, inspect_data

    report = inspect_data(options.data, format=options.format, every=options.every, peaks=options.peaks)
    found = {title: len(report[key]) for key, title in _FINDINGS.items() if report[key]}
    said = ", ".join(f"{title} {count}" for title, count in found.items()) or "nothing that stands in the way"
    tell(options, report, format_inspection(report).rstrip(), "", f"{options.data}: {report['faces']} faces; {said}")


_FINDINGS = {
    "bad_files": "files that cannot be read:",
    "problems": "labels that cannot be right:",
    "ignored": "images left aside:",
    "warnings": "warnings:",
}
