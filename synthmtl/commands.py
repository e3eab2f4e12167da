"""What each command of ``synthmtl`` takes and does; the work itself is done by the rooms.

Rooms are imported where they are needed, so that help and bad usage answer at once.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from synthmtl.errors import InputError
from synthmtl.options import add_out_options, generator_of, preset_of, recipe_options
from synthmtl.score_command import configure_score, run_score
from synthmtl.study_command import configure_study, run_study_command

log = logging.getLogger("synthmtl")

DATA_HELP = "image folder, zip of one, FER2013's csv, or the folder of a published data set"


@dataclass(frozen=True)
class Command:
    """A command: one sentence for the help, its options, and the call, which may return an exit code."""

    about: str
    configure: Callable[[ArgumentParser, Sequence[str]], None]
    call: Callable[[Namespace], int | None]


def _main_job_options(parser: ArgumentParser, argv: Sequence[str], *, rendered: bool) -> None:
    """All options of the main job, with the defaults of the preset and generator that ``argv`` names."""
    from synthmtl.experiment import MainJobConfig, preset

    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the options below")
    add_out_options(parser)
    parser.add_class_arguments(MainJobConfig, as_group=False)
    defaults = preset(preset_of(argv), rendered=rendered, generator=generator_of(argv))
    parser.set_defaults(dataclasses.asdict(defaults))


def main_job_parser(argv: Sequence[str], *, prog: str) -> ArgumentParser:
    """The parser of a recipe that runs the main job; ``--faces.path`` decides between rendered and the user's faces."""
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    rendered = not any(part.split("=")[0] == "--faces.path" for part in argv)
    _main_job_options(parser, argv, rendered=rendered)
    return parser


def main_job_config(options: Namespace) -> Any:
    """The options of a parsed command line as a ``MainJobConfig``."""
    from synthmtl.experiment import MainJobConfig

    return recipe_options(MainJobConfig, options)


def print_scores(report: dict) -> None:
    """One line a method: macro-F1 with its interval, and accuracy; from the main process only."""
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    for name, scores in report["methods"].items():
        low, high = scores["ci95"]["macro_f1"]
        print(
            f"{name:15s} macro-F1 {scores['macro_f1']:.3f} [{low:.3f}, {high:.3f}]  accuracy {scores['accuracy']:.3f}"
        )


def _configure_quickstart(parser: ArgumentParser, argv: Sequence[str]) -> None:
    _main_job_options(parser, argv, rendered=True)


def _configure_run(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--data", type=str, required=True, help=DATA_HELP)
    _main_job_options(parser, argv, rendered=False)


def _main_job(options: Namespace) -> None:
    from synthmtl.experiment import run_main_job

    config = main_job_config(options)
    if "data" in options:
        config.faces.path = options.data
        if not Path(options.data).exists():
            raise InputError(f"{options.data}: no such file or folder")
    report = run_main_job(config, Path(options.out), resume=options.resume, overwrite=options.overwrite)
    print_scores(report)
    print(f"report: {Path(options.out) / 'report.html'}")


def _settings(options: Namespace) -> dict:
    """What the content of ``--out`` depends on."""
    return {name: value for name, value in options.as_dict().items() if name not in ("out", "resume", "overwrite")}


def _device() -> Any:
    """The ``torch.device`` that networks run on."""
    from synthmtl.training import build_accelerator

    return build_accelerator().device


def _add_sampling_options(parser: ArgumentParser) -> None:
    from synthmtl.models.sampling import SamplingOptions

    parser.add_argument("--spread", type=float, default=1.0, help="variety of styles, in standard deviations")
    parser.add_class_arguments(SamplingOptions, "sampling")


def _generator(options: Namespace) -> tuple[Any, Any]:
    """The network that ``--model`` names and its sampling options, which suit it."""
    from synthmtl.models.generators import FaceGenerator, sampling_arguments
    from synthmtl.models.inference import load_network
    from synthmtl.models.sampling import SamplingOptions

    generator = load_network(options.model, part="generator")
    if not isinstance(generator, FaceGenerator):
        raise InputError(f"{options.model}: holds a recognizer without a synthesis branch; give a run with a generator")
    sampling = SamplingOptions(**options.sampling.as_dict())
    sampling_arguments(generator, sampling)
    return generator, sampling


def _configure_balance(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved generator")
    parser.add_argument("--judge", type=str | None, default=None, help="saved recognizer; default: the run's judge")
    parser.add_argument("--data", type=str, required=True, help=f"faces to balance: {DATA_HELP}")
    parser.add_argument(
        "--strategy", type=str | dict[str, int], default="auto",
        help="auto, minority, not minority, not majority, all, or {class: total}",
    )  # fmt: skip
    parser.add_argument("--quantile", type=float, default=0.2, help="strictness of the judge, in [0, 1)")
    parser.add_argument("--attempts", type=int, default=3, help="tries per wanted face")
    _add_sampling_options(parser)
    parser.add_argument(
        "--fill", type=str, default="best",
        help="best: exact counts, by the best candidate if all were rejected; leave: accepted faces only",
    )  # fmt: skip
    parser.add_argument("--originals", action="store_true", help="write the real training faces too")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    add_out_options(parser)


def _balance(options: Namespace) -> None:
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
    generator, sampling = _generator(options)
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
    device = _device()
    judge, generator = judge.to(device), generator.to(device)
    calibration = calibrate_judge(judge, splits.validation, quantile=options.quantile, device=device)
    out = open_out(options.out, resume=options.resume, overwrite=options.overwrite)
    claim(out, {"command": "balance"} | _settings(options))
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


def _configure_evaluate(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved network")
    parser.add_argument("--data", type=str, required=True, help=DATA_HELP)
    parser.add_argument("--split", type=str, default="test", help="train, validation or test")
    parser.add_argument("--split_seed", type=int, default=0, help="of splits that the data do not bring along")
    parser.add_argument("--out", type=str, required=True, help="JSON file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --out")


def _evaluate(options: Namespace) -> None:
    from synthmtl.data.load import load_splits, read_tables
    from synthmtl.experiment import write_json
    from synthmtl.metrics import bootstrap_intervals, recognition_metrics
    from synthmtl.models.inference import load_network, predict_table

    out = Path(options.out)
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give the name of a JSON file")
    if out.exists() and not options.overwrite:
        raise InputError(f"{out}: exists; --overwrite replaces it")
    if options.split not in ("train", "validation", "test"):
        raise InputError(f"unknown split {options.split!r}: use train, validation or test")
    model = load_network(options.model)
    wanted = {
        "image_size": model.config.image_size, "channels": model.config.image_channels, "classes": model.classes,
    }  # fmt: skip
    # A split that is there needs no other one beside it, nor every class.
    table, notes = read_tables(options.data, **wanted).get(options.split), []
    if table is None:
        splits = load_splits(options.data, split_seed=options.split_seed, **wanted)
        table, notes = getattr(splits, options.split), splits.notes
    elif options.split != "train":
        table = table.select(~table.synthetic)
    table = table.with_classes(model.classes)
    device = _device()
    probabilities = predict_table(model.to(device), table, device=device)
    scores = dataclasses.asdict(recognition_metrics(probabilities, table.expression, table.classes))
    intervals = bootstrap_intervals(probabilities, table.expression, table.classes)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"split": options.split, "notes": notes, "classes": table.classes} | scores | {"ci95": intervals})
    print(f"accuracy {scores['accuracy']:.4f}  macro-F1 {scores['macro_f1']:.4f}  ({scores['count']} faces) → {out}")


def _configure_predict(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved network")
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGE", help="image files of faces")


def _predict(options: Namespace) -> None:
    from synthmtl.models.inference import load_network

    model = load_network(options.model)
    device = _device()
    model = model.to(device)
    for file, image in _readable(options.images, model):
        probabilities = model.recognize(image.to(device))[0].tolist()
        named = dict(zip(model.classes, (round(p, 6) for p in probabilities), strict=True))
        print(json.dumps({"file": file, "expression": max(named, key=named.get), "probabilities": named}), flush=True)


def _readable(files: Sequence[str], model: Any):
    """Each readable file and its face (1, C, H, W) in [-1, 1]; the others are named at the end, in one error."""
    from synthmtl.data.images import read_face

    bad = []
    for file in files:
        try:
            face = read_face(file, model.config.image_size, model.config.image_channels)
        except InputError as error:
            bad.append(str(error))
            continue
        yield file, face[None].float().div(127.5).sub(1)
    if bad:
        raise InputError(f"{len(bad)} of {len(files)} images could not be read: {'; '.join(bad[:3])}")


def _configure_synthesize(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--model", type=str, required=True, help="folder of a finished run, or a saved generator")
    parser.add_argument("--expression", type=str, required=True, help="wanted expression")
    parser.add_argument("--seed", type=int, default=0, help="of the style, or of a diffusion model's noise")
    _add_sampling_options(parser)
    parser.add_argument("images", type=str, nargs="+", metavar="IMAGE", help="image files of faces")
    add_out_options(parser, "folder for the edited faces")


def _synthesize(options: Namespace) -> None:
    import torch
    from PIL import Image

    from synthmtl.experiment import check_out, claim, open_out
    from synthmtl.labels import class_index
    from synthmtl.models.generators import class_targets, sampling_arguments

    check_out(options.out, resume=options.resume, overwrite=options.overwrite)
    model, sampling = _generator(options)
    index = class_index(model.classes, options.expression)
    device = _device()
    model = model.to(device)
    target = class_targets(model, torch.tensor([index])).to(device)
    how = sampling_arguments(model, sampling) | {"spread": options.spread}
    out = None
    for number, (file, image) in enumerate(_readable(options.images, model)):
        if out is None:
            out = open_out(options.out, resume=options.resume, overwrite=options.overwrite)
            claim(out, {"command": "synthesize"} | _settings(options))
        style = torch.Generator().manual_seed(options.seed)
        edited = model.synthesize(image.to(device), target, generator=style, **how)
        name = out / f"{number:05d}-{Path(file).stem}-{model.classes[index]}.png"
        pixels = edited[0].add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()
        Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).save(name)
        print(name)


def _configure_render(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--count", type=int, default=800, help="faces in all, spread evenly over the expressions")
    parser.add_argument("--size", type=int, default=48, help="side in pixels, 32 to 256")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--subjects", type=int, default=100, help="people")
    parser.add_argument("--color", action="store_true", help="RGB instead of gray")
    parser.add_argument("--style", type=str, default="studio", help="studio, or wild: as in photographs from the web")
    add_out_options(parser)


def _render(options: Namespace) -> None:
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
    claim(out, {"command": "render"} | _settings(options))
    if not (out / "train" / "metadata.jsonl").is_file():
        write_image_folder(render_faces(config), out)
    print(f"{options.count} faces → {out}")


def _configure_inspect(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("data", type=str, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _inspect(options: Namespace) -> None:
    from synthmtl.data.inspection import format_inspection, inspect_data

    report = inspect_data(options.data)
    sys.stdout.write((json.dumps(report, indent=2) if options.json else format_inspection(report)).rstrip() + "\n")


COMMANDS = {
    "quickstart": Command("the main job on rendered faces, to a report", _configure_quickstart, _main_job),
    "run": Command("the main job on your faces, to a report", _configure_run, _main_job),
    "balance": Command("write a balanced data set with a trained generator", _configure_balance, _balance),
    "evaluate": Command("score a trained network on a split", _configure_evaluate, _evaluate),
    "predict": Command("recognize expressions, one JSON line an image", _configure_predict, _predict),
    "synthesize": Command("edit faces to another expression", _configure_synthesize, _synthesize),
    "render": Command("write rendered faces with every label", _configure_render, _render),
    "inspect": Command("counts, sizes, missing labels, corrupt files, duplicates, leaks", _configure_inspect, _inspect),
    "score": Command("the quality card of a synthesized set", configure_score, run_score),
    "study": Command("which sharing helps, which harms, and what a gate filters", configure_study, run_study_command),
}
"""Commands by name, in the order of the help."""
