"""What ``synthmtl score`` takes and does."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.shared import DATA_HELP
from synthmtl.commands.talk import add_json_option, tell
from synthmtl.errors import InputError


def configure_score(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of the quality card."""
    parser.add_argument("--real", type=str, required=True, help=f"real faces: {DATA_HELP}")
    parser.add_argument(
        "--synthetic", type=str, required=True,
        help="synthesized faces: what synthmtl balance wrote in any format, or an image folder or zip",
    )  # fmt: skip
    parser.add_argument(
        "--features", type=str, default="efficientnet-lite0",
        help="efficientnet-lite0, inception, or the folder of a saved network: what distances are measured in",
    )  # fmt: skip
    parser.add_argument(
        "--judge", type=str | None, default=None,
        help="saved recognizer of another seed and architecture than the one that filtered, for the labels",
    )  # fmt: skip
    parser.add_argument(
        "--train-steps", type=int, default=0,
        help="train on synthesized, real and both for so many steps each, and score on real faces; 0 = leave out",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--pairs", type=str | None, default=None, help="PNG file for a picture of the closest pairs")
    parser.add_argument("--out", type=str, required=True, help="JSON file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --out and --pairs")
    add_json_option(parser)


def run_score(options: Namespace) -> None:
    """Write the quality card of a parsed command line, and print it as a table."""
    from synthmtl.balance.quality import draw_pairs, format_card, quality_card
    from synthmtl.balance.scored import read_scored_sets
    from synthmtl.experiment import write_json
    from synthmtl.models.inference import load_network
    from synthmtl.training import build_accelerator

    out, picture = Path(options.out), Path(options.pairs) if options.pairs else None
    _check_files(out, picture, overwrite=options.overwrite)
    if options.train_steps < 0:
        raise InputError(f"--train-steps is {options.train_steps}: 0 or more")
    judge = load_network(options.judge) if options.judge else None
    sets = read_scored_sets(options.real, options.synthetic)
    accelerator = build_accelerator()
    card = quality_card(
        sets.real,
        sets.synthetic,
        extractor=options.features,
        judge=judge,
        test=sets.test,
        source_row=sets.source_row,
        filtered_by=sets.filtered_by,
        train_steps=options.train_steps,
        seed=options.seed,
        notes=sets.notes,
        accelerator=accelerator,
        device=accelerator.device,
    )
    if accelerator.is_main_process:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, card)
        if picture is not None:
            picture.parent.mkdir(parents=True, exist_ok=True)
            draw_pairs(card, sets.real, sets.synthetic, picture)
        summary = {"out": str(out)} | {key: card[key] for key in ("overall", "per_expression", "notes")}
        tell(options, summary, format_card(card), f"card: {out}")


def _check_files(out: Path, picture: Path | None, *, overwrite: bool) -> None:
    from synthmtl.experiment import check_file

    for file, kind in ((out, "JSON"), (picture, "PNG")):
        if file is not None:
            check_file(file, overwrite=overwrite, kind=kind)
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"--pairs is {picture}: give the name of a PNG file")
    if picture == out:
        raise InputError(f"{out}: is both --out and --pairs; give two files")
