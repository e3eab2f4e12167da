"""What ``synthmtl balance`` takes and does."""

import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.options import add_out_options
from synthmtl.commands.shared import DATA_HELP, add_sampling_options, default_device, load_generator, settings
from synthmtl.errors import InputError


def configure_balance(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of balancing."""
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved generator")
    parser.add_argument("--judge", type=str | None, default=None, help="saved recognizer; default: the run's judge")
    parser.add_argument("--data", type=str, required=True, help=f"faces to balance: {DATA_HELP}")
    parser.add_argument(
        "--strategy", type=str | dict[str, int], default="auto",
        help="auto, minority, not minority, not majority, all, or {class: total}",
    )  # fmt: skip
    parser.add_argument("--quantile", type=float, default=0.2, help="strictness of the judge, in [0, 1)")
    parser.add_argument("--attempts", type=int, default=3, help="tries per wanted face")
    add_sampling_options(parser)
    parser.add_argument(
        "--fill", type=str, default="best",
        help="best: exact counts, by the best candidate if all were rejected; leave: accepted faces only",
    )  # fmt: skip
    parser.add_argument("--originals", action="store_true", help="write the real training faces too")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    add_out_options(parser)


def run_balance(options: Namespace) -> None:
    """Balance the data of a parsed command line, and print what was kept."""
    from synthmtl.balance import calibrate_judge, make_plan, synthesize_balancing_set, write_balancing_set
    from synthmtl.balance.synthesize import FILLS
    from synthmtl.data.load import load_splits
    from synthmtl.experiment import check_out, claim, open_out
    from synthmtl.models.inference import load_network

    check_out(options.out, resume=options.resume, overwrite=options.overwrite)
    if options.attempts < 1:
        raise InputError(f"--attempts is {options.attempts}: at least one")
    if options.fill not in FILLS:
        raise InputError(f"--fill is {options.fill!r}: use one of {', '.join(FILLS)}")
    generator, sampling = load_generator(options)
    judge_path = Path(options.judge or Path(options.model) / "judge")
    if not judge_path.is_dir():
        raise InputError(f"{judge_path}: no judge there; give --judge, a recognizer that did not train with the model")
    judge = load_network(judge_path)
    splits = load_splits(
        options.data, image_size=generator.config.image_size, channels=generator.config.image_channels,
        split_seed=0, classes=generator.classes,
    )  # fmt: skip
    plan = make_plan(splits.train, options.strategy, seed=options.seed, candidates=(options.attempts + 1) // 2)
    if not len(plan.target):
        raise InputError(f"{options.data}: strategy {options.strategy} wants no further face: nothing to balance")
    device = default_device()
    judge, generator = judge.to(device), generator.to(device)
    calibration = calibrate_judge(judge, splits.validation, quantile=options.quantile, device=device)
    out = open_out(options.out, resume=options.resume, overwrite=options.overwrite)
    claim(out, {"command": "balance"} | settings(options))
    result = synthesize_balancing_set(
        generator,
        judge,
        splits.train,
        plan,
        calibration=calibration,
        max_attempts=options.attempts,
        fill=options.fill,
        spread=options.spread,
        sampling=sampling,
        seed=options.seed,
        device=device,
        directory=out / ".chunks",
    )
    write_balancing_set(result, out, generator=generator, table=splits.train, originals=options.originals)
    print(json.dumps(result.summary()))
