"""What ``synthmtl balance`` takes and does."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from synthmtl.commands.in_the_run import load_as_in_the_run
from synthmtl.commands.options import add_out_options
from synthmtl.commands.shared import (
    DATA_HELP,
    add_bad_image_option,
    add_sampling_options,
    load_generator,
    settings,
)
from synthmtl.commands.talk import add_json_option, tell
from synthmtl.errors import InputError

log = logging.getLogger("synthmtl")

QUANTILE = 0.2


def configure_balance(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """All options of balancing."""
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved generator")
    parser.add_argument("--judge", type=str | None, default=None, help="saved recognizer; default: the run's judge")
    parser.add_argument("--data", type=str, required=True, help=f"faces to balance: {DATA_HELP}")
    add_bad_image_option(parser)
    parser.add_argument(
        "--on-leak", type=Literal["drop", "warn", "error"], default="drop",
        help="drop: nothing is made of training faces that validation or test show, too; warn: they are counted; "
        "error: they stop it",
    )  # fmt: skip
    parser.add_argument(
        "--strategy", type=float | str | dict[str, int], default="auto",
        help="auto, minority, not minority, not majority, all, cover (every class half as many again as the most "
        "frequent one has), {class: total}, which may name classes without a face, or for two classes the wanted ratio "
        "of the rarer to the other, in (0, 1]",
    )  # fmt: skip
    parser.add_argument("--quantile", type=float, default=QUANTILE, help="strictness of the judge, in [0, 1)")
    parser.add_argument(
        "--mistaken-at-most", type=float | None, default=None,
        help="raise thresholds until at most this share of real faces of other classes would pass as a class",
    )  # fmt: skip
    parser.add_argument("--attempts", type=int, default=3, help="tries per wanted face, at most")
    parser.add_argument("--no-filter", action="store_true", help="take the first try of every face, for studies")
    parser.add_argument(
        "--sources", type=str, default="any",
        help="any: faces of any other expression are edited; neutral_first: neutral ones where there are some; none: "
        "a diffusion model makes new faces, of nobody",
    )  # fmt: skip
    parser.add_argument(
        "--max-uses", type=int | None, default=None, help="faces that may be made of one source; default: no limit"
    )
    parser.add_argument(
        "--match", type=list[str], default=[],
        help="attributes (columns of numbers or words in the metadata, e.g. [age, gender]) whose mix each class keeps",
    )  # fmt: skip
    add_sampling_options(parser)
    parser.add_argument(
        "--fill", type=str, default="best",
        help="best: exact counts, by the best candidate if all were rejected; leave: accepted faces only",
    )  # fmt: skip
    parser.add_argument(
        "--format", type=str, default="imagefolder",
        help="imagefolder, parquet (needs the extra [hub]) or webdataset, all read by Hugging Face's datasets",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=int | None, default=None,
        help="faces that are made, and kept on the disk, at once; default: 64 on a CPU, 256 elsewhere",
    )  # fmt: skip
    parser.add_argument("--originals", action="store_true", help="write the training faces too")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    add_out_options(parser)
    add_json_option(parser)


def run_balance(options: Namespace) -> None:
    """Balance the data of a parsed command line, and print what was kept.

    Under a launcher every process makes its share of the faces, and the first one writes.
    """
    from synthmtl.balance import (
        calibrate_judge,
        kept_calibration,
        make_plan,
        synthesize_balancing_set,
        write_balancing_set,
    )
    from synthmtl.balance.formats import FaceFiles
    from synthmtl.balance.synthesize import check_parts, check_plan
    from synthmtl.experiment import check_out, claim, describe_data, open_out
    from synthmtl.models.inference import load_network
    from synthmtl.training import build_accelerator, check_same_data

    _check(options)
    accelerator = build_accelerator()
    main, device = accelerator.is_main_process, accelerator.device
    if main:
        check_out(options.out, resume=options.resume, overwrite=options.overwrite, options=settings(options))
    generator, sampling = load_generator(options)
    judge = None
    if not options.no_filter:
        path = Path(options.judge or Path(options.model) / "judge")
        if not path.is_dir():
            raise InputError(f"{path}: no judge there; give --judge, a recognizer that did not train with the model")
        judge = load_network(path)
    # Edits are made of training faces, and judged by validation faces that taught neither generator nor judge.
    splits = load_as_in_the_run(
        options, ["train", "validation"], on_leak=options.on_leak, image_size=generator.config.image_size,
        channels=generator.config.image_channels, classes=generator.classes, every_class=False,
        on_bad=options.on_bad_image,
    )  # fmt: skip
    check_same_data(accelerator, splits.tables())
    table = splits.train
    # Whatever is wrong with the options is said before the folder is claimed, or emptied.
    check_parts(generator, judge, table)
    plan = make_plan(
        table, options.strategy, seed=options.seed, candidates=(options.attempts + 1) // 2,
        sources=options.sources, max_uses=options.max_uses, match=options.match,
    )  # fmt: skip
    _tell_of_absent(plan)
    if not len(plan.target):
        raise InputError(f"{options.data}: strategy {options.strategy} wants no further face: nothing to balance")
    check_plan(plan, table, generator, sampling)
    targets = _targets(generator, table, Path(options.model) / "labeler", device)
    calibration = None
    if judge is not None:
        how = {"quantile": options.quantile, "mistaken_at_most": options.mistaken_at_most}
        wanted = [name for name, count in plan.requested.items() if count]
        calibration = calibrate_judge(judge, splits.validation, **how, wanted=wanted, device=device)
        _tell_of_borrowed(plan, calibration)
    data = describe_data(splits.tables())
    del splits  # the faces to evaluate on need not wait in memory
    out = Path(options.out)
    if main:
        open_out(out, resume=options.resume, overwrite=options.overwrite)
        claim(out, {"command": "balance"} | settings(options), data)
    accelerator.wait_for_everyone()
    if judge is not None and calibration is not None:
        calibration = kept_calibration(out / ".chunks", calibration, judge, rank=accelerator.process_index)
    files = FaceFiles(out, table) if main and options.format == "imagefolder" else None
    result = synthesize_balancing_set(
        generator,
        judge,
        table,
        plan,
        targets=targets,
        calibration=calibration,
        filter=judge is not None,
        max_attempts=options.attempts,
        fill=options.fill,
        spread=options.spread,
        sampling=sampling,
        batch_size=(64 if device.type == "cpu" else 256) if options.batch_size is None else options.batch_size,
        device=device,
        directory=out / ".chunks",
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        on_faces=files.add if files else None,
    )
    if main:
        write_balancing_set(
            result, out, generator=generator, table=table, originals=options.originals, format=options.format,
            files=files,
        )  # fmt: skip
        summary = result.summary()
        kept, wanted, rejected = (sum(summary[name].values()) for name in ("kept", "requested", "rejected"))
        said = f"{kept} of {wanted} wanted faces, {rejected} candidates rejected → {out}"
        tell(options, {"out": str(out)} | summary, said)


def _tell_of_absent(plan: Any) -> None:
    """Say which classes of the generator stay without a face, as a strategy by name looks at those that have some."""
    absent = [name for name, count in plan.counts.items() if not count]
    if absent and isinstance(plan.strategy, str):
        log.warning(
            "strategy %s adds no face of %s, which no training face shows: to have some, name totals, as in "
            '--strategy "{%s: %d}"',
            plan.strategy, ", ".join(absent), absent[0], max(plan.counts.values()),
        )  # fmt: skip


def _tell_of_borrowed(plan: Any, calibration: Any) -> None:
    """Say of which wanted classes the judge saw too few real faces to have a threshold of their own."""
    if borrowed := [name for name in calibration.borrowed if plan.requested.get(name)]:
        log.warning(
            "too few real validation faces of %s: the judge's threshold is borrowed from the other classes",
            ", ".join(borrowed),
        )


def _targets(generator: Any, table: Any, labeler: Path, device: Any) -> Any:
    """What the generator is told; a run's labeler supplies the labels that the faces lack, as it did in the run."""
    from synthmtl.balance.targets import ClassTargets
    from synthmtl.models.inference import load_network, supply_labels

    kind = generator.config.condition
    if kind == "expression" or not labeler.is_dir():
        return ClassTargets(generator, table)
    missing = int(getattr(table, kind).isnan().all(1).sum())
    told = supply_labels(table, load_network(labeler), kind, device=device) if missing else table
    return ClassTargets(generator, told, supplied=missing)


def _check(options: Namespace) -> None:
    from synthmtl.balance.formats import FORMATS
    from synthmtl.balance.plan import SOURCES
    from synthmtl.balance.result import FILLS
    from synthmtl.data.readers.hugging_face import need_datasets

    if options.attempts < 1:
        raise InputError(f"--attempts is {options.attempts}: at least one")
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"--batch-size is {options.batch_size}: at least one")
    for name, known in (("fill", FILLS), ("format", FORMATS), ("sources", SOURCES)):
        if options[name] not in known:
            raise InputError(f"--{name} is {options[name]!r}: use one of {', '.join(known)}")
    if options.no_filter:
        given = {"judge": None, "quantile": QUANTILE, "mistaken_at_most": None}
        for name in (name for name, default in given.items() if options[name] != default):
            raise InputError(f"--no-filter judges no face: leave --{name.replace('_', '-')} out")
    if options.format == "parquet":
        need_datasets("--format parquet")
