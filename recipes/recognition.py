r"""How well does a recognizer trained from scratch do? One network, one training split, one look at the others.

The number to hold balancing and sharing against: what the same faces give without either. The whole training split is
used, none of it is held out, and the weights are the averaged ones of the last step, so that validation decides nothing
and its scores are those of held-out faces.

    accelerate launch recipes/recognition.py --out runs/recognition --config recipes/configs/recognition_fer2013.yaml \
        --faces.path FER2013

On a machine without GPU, several processes need
``accelerate launch --multi_gpu --num_processes 2 recipes/recognition.py ...``. ``--resume`` continues an interrupted
run; ``--preset smoke`` proves the installation. Scores and times: recipes/RESULTS.md.
"""

import dataclasses
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.options import recipe_options, recipe_parser
from synthmtl.data import FaceTable
from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.data.leaks import guard, leaks
from synthmtl.data.load import read_tables, without_edits
from synthmtl.data.sampling import ClassBalancedSampler, EpochSampler
from synthmtl.data.splits import check_classes
from synthmtl.data.streams import RecognitionStream
from synthmtl.errors import InputError
from synthmtl.experiment import check_out, claim, describe_data, open_out, write_json
from synthmtl.experiment.checks import check_faces
from synthmtl.experiment.config import FaceOptions
from synthmtl.experiment.stages import load_data
from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.metrics import bootstrap_intervals, recognition_metrics
from synthmtl.models import Recognizer
from synthmtl.models.inference import predict_table, save_network
from synthmtl.training import Player, TrainingConfig, build_accelerator, check_same_data, check_seed, fit

log = logging.getLogger("synthmtl")


@dataclass
class Network:
    """Widths and kinds of :class:`synthmtl.models.Recognizer`."""

    stem_channels: int = 16
    stage_channels: tuple[int, ...] = (32, 64, 96)
    joint_channels: int = 96
    stem_kind: Literal["unshuffle", "pool"] = "unshuffle"
    pool_first: bool = True
    dropout: float = 0.0


@dataclass
class Options:
    """What a run depends on.

    Attributes:
        faces: where faces come from; without a path they are rendered. Training keeps faces that the other splits
            show, too, unless ``on_leak`` says otherwise: every split is scored without them as well.
        network: of the recognizer.
        training: its training.
        augmentation: random views of the training faces.
        label_smoothing: share of the target spread over all classes.
        sampling: ``natural``, or ``balanced``: every class equally often.
        logit_adjustment: tau of Menon et al. (ICLR 2021); 0 turns it off.
        mirror: average predictions with those of the mirrored face.
        seed: of everything random.
        precision: ``auto``, ``no``, ``bf16`` or ``fp16``.
        preset: ``smoke`` trains four steps, whatever ``training`` says, to prove the installation.
    """

    faces: FaceOptions = field(default_factory=lambda: FaceOptions(on_leak="warn"))
    network: Network = field(default_factory=Network)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(ema_decay=0.99))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    label_smoothing: float = 0.1
    sampling: Literal["natural", "balanced"] = "natural"
    logit_adjustment: float = 0.0
    mirror: bool = True
    seed: int = 0
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    preset: Literal["quick", "smoke"] = "quick"


def read(options: FaceOptions) -> dict[str, FaceTable]:
    """The splits that the data bring along, or rendered ones; training has no edit of a face that is scored."""
    if options.path is None:
        return load_data(options)[0].tables()
    tables = read_tables(
        options.path,
        image_size=options.image_size,
        channels=options.channels,
        on_bad=options.on_bad_image,
        format=options.format,
        every=options.every,
        peaks=options.peaks,
        ferplus=options.ferplus,
        ferplus_rule=options.ferplus_rule,
    )
    if "train" not in tables or len(tables) < 2:
        raise InputError(f"{options.path}: needs a train split and another one to score; it has {', '.join(tables)}")
    tables = {"train": tables.pop("train")} | {name: table.select(~table.synthetic) for name, table in tables.items()}
    held_out = [table for name, table in tables.items() if name != "train"]
    tables["train"] = without_edits(tables["train"], held_out, [])  # which it logs
    tables, _ = guard(tables, options.on_leak, options.path, reuse=True)
    check_classes(tables["train"], f"{options.path}, train")
    for name, table in tables.items():
        if not (table.expression >= 0).any():
            raise InputError(f"{options.path}: no {name} face has an expression, so nothing can be scored: label some")
    return tables


def scores(probabilities: torch.Tensor, table: FaceTable) -> dict:
    """Every score of a split, with intervals over its people, or its faces where these are unknown or few."""
    result = recognition_metrics(probabilities, table.expression, table.classes).as_dict()
    return result | {"ci95": bootstrap_intervals(probabilities, table.expression, table.classes, subject=table.subject)}


def train(out: Path, options: Options, *, resume: bool, overwrite: bool) -> dict:
    """Train, score every other split once, write ``model/`` and ``scores.json`` below ``out``."""
    check_seed("training", options.training)
    check_faces(options.faces, Options().faces)
    if options.preset == "smoke":
        options.training = dataclasses.replace(options.training, steps=4, batch_size=16, log_every=2)
    accelerator = build_accelerator(precision=options.precision)
    placement = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    if accelerator.is_main_process:
        check_out(out, resume=resume, overwrite=overwrite, options=dataclasses.asdict(options))

    # 1. Faces; nothing is replaced before they are read.
    tables = read(options.faces)
    check_same_data(accelerator, tables)
    faces = tables["train"]
    if accelerator.is_main_process:
        open_out(out, resume=resume, overwrite=overwrite)
        claim(out, dataclasses.asdict(options), describe_data(tables) if options.faces.path else None)
    accelerator.wait_for_everyone()
    # 2. The network and its batches, a pure function of seed and step.
    torch.manual_seed(options.seed)
    model = Recognizer(
        classes=faces.classes, image_size=options.faces.image_size, image_channels=options.faces.channels,
        **dataclasses.asdict(options.network),
    )  # fmt: skip
    batch_size = options.training.batch_size
    if options.sampling == "balanced":
        sampler = ClassBalancedSampler(faces.expression, batch_size, options.seed)
    else:
        sampler = EpochSampler(torch.where(faces.expression >= 0)[0], batch_size, options.seed)
    stream = RecognitionStream(faces, sampler, augmentation=options.augmentation, seed=options.seed, **placement)
    loss = ExpressionLoss(
        list(faces.counts().values()),
        label_smoothing=options.label_smoothing,
        logit_adjustment=options.logit_adjustment,
    )
    # 3. Training; the averaged weights of the last step are kept.
    result = fit(
        players=[Player("recognition", RecognitionObjective(model, loss))],
        stream=stream,
        config=dataclasses.replace(options.training, seed=options.seed),
        accelerator=accelerator,
        directory=out,
        description="recognition",
    )
    if accelerator.is_main_process:
        save_network(model, out / "model")
    # 4. Scores, with and without the faces that have a look-alike in training.
    report = {
        "preset": options.preset,
        "parameters": model.recognition_parameters(),
        "seconds": result.seconds,
        "splits": {},
    }
    seen = {leak.split: leak.rows for leak in leaks(tables) if leak.other == "train"}
    for name, table in tables.items():
        if name == "train":
            continue
        table = table.with_classes(model.classes)
        outputs = predict_table(model, table, device=accelerator.device, mirror=options.mirror)
        fresh = table.expression >= 0
        fresh[seen[name]] = False
        rows = torch.where(fresh)[0]
        if not len(rows):
            log.warning("%s: every labelled face has a look-alike in train, so there are no scores without them", name)
        without = scores(outputs[rows], table.select(rows)) if len(rows) else None
        report["splits"][name] = scores(outputs, table) | {"without_leaks": without}
    if accelerator.is_main_process:
        write_json(out / "scores.json", report)
        for name, each in report["splits"].items():
            low, high = each["ci95"]["macro_f1"]
            print(f"{name}: accuracy {each['accuracy']:.3f}, macro-F1 {each['macro_f1']:.3f} [{low:.3f}, {high:.3f}]")
    accelerator.wait_for_everyone()
    return report


def main() -> None:
    """Options from the command line and ``--config``."""
    given = recipe_parser(Options, prog="recognition.py").parse_args()
    train(Path(given.out), recipe_options(Options, given), resume=given.resume, overwrite=given.overwrite)


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
