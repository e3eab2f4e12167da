r"""Is a balanced set worth training on? A recognizer of another architecture learns from it, and from what it replaces.

Three recognizers alike in everything else learn from the original training faces, from these with faces of the rare
expressions drawn again until every class is as large as in the balanced set (``oversampled``), and from these with
the synthesized faces (``balanced``). Each batch is drawn evenly from its set; the weights are the averaged ones of the
last step, so the scored split decides nothing.

    synthmtl run --data FER2013 --out runs/fer2013
    synthmtl balance --model runs/fer2013 --data FER2013 --out balanced
    accelerate launch recipes/downstream.py --config recipes/configs/downstream_fer2013.yaml --faces.path FER2013 \
        --balanced balanced --out runs/downstream

``--faces`` must be those of the run, so that the generator has not seen the scored faces. ``--resume`` continues an
interrupted run, ``--preset smoke`` proves the installation. Scores and times: recipes/RESULTS.md.
"""

import dataclasses
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from synthmtl.balance import dilution
from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.options import recipe_options, recipe_parser
from synthmtl.data import FaceTable
from synthmtl.data.augmentation import AugmentationConfig
from synthmtl.data.load import SPLITS, Splits, read_tables
from synthmtl.data.provenance import homes_of, sources_of
from synthmtl.data.randomness import derive_seed
from synthmtl.data.sampling import EpochSampler
from synthmtl.data.streams import RecognitionStream
from synthmtl.errors import InputError
from synthmtl.experiment import check_out, claim, describe_data, open_out, write_json
from synthmtl.experiment.checks import check_faces
from synthmtl.experiment.config import FaceOptions
from synthmtl.experiment.stages import load_data
from synthmtl.experiment.workspace import Unit
from synthmtl.files import write_tensors
from synthmtl.losses import ExpressionLoss, RecognitionObjective
from synthmtl.metrics import bootstrap_intervals, compare_paired, minority_classes, recognition_metrics
from synthmtl.models import EmotionGCN
from synthmtl.models.inference import predict_table, save_network
from synthmtl.report import methods_figure
from synthmtl.training import Player, TrainingConfig, build_accelerator, check_same_data, check_seed, fit

log = logging.getLogger("synthmtl")

TRAINED_ON = ("original", "oversampled", "balanced")


@dataclass
class Options:
    """What a run depends on.

    Attributes:
        balanced: what ``synthmtl balance`` wrote.
        faces: where the original faces come from; without a path they are rendered.
        score: the split that is scored: ``validation`` or ``test``.
        backbone: a classifier of torchvision.
        pretrained: start from its default weights.
        training: of each recognizer.
        augmentation: random views of the training faces.
        label_smoothing: share of the target spread over all classes.
        on_unknown_source: where no photograph that the balanced set was edited from is found among the faces, so that
            edits of held-out ones would pass: ``error`` stops, ``warn`` goes on.
        mirror: average predictions with those of the mirrored face.
        seeds: of each recognizer.
        precision: ``auto``, ``no``, ``bf16`` or ``fp16``.
        preset: ``smoke`` trains four steps, whatever ``training`` says, to prove the installation.
    """

    balanced: str
    faces: FaceOptions = field(default_factory=FaceOptions)
    score: Literal["validation", "test"] = "validation"
    backbone: str = "resnet18"
    pretrained: bool = False
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(ema_decay=0.99))
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    label_smoothing: float = 0.1
    on_unknown_source: Literal["error", "warn"] = "error"
    mirror: bool = True
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    preset: Literal["quick", "smoke"] = "quick"


class Logits(nn.Module):
    """The expression's logits alone."""

    def __init__(self, model: EmotionGCN):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["expression"]


def synthesized_faces(options: Options, splits: Splits) -> FaceTable:
    """The synthesized faces of the balanced set; none may be an edit of a face that is held out.

    What cannot be known of that is said in the log and among ``splits.notes``.
    """
    size, channels = options.faces.image_size, options.faces.channels
    tables = read_tables(options.balanced, image_size=size, channels=channels).values()
    table = FaceTable.concatenate(list(tables))
    table = table.select(torch.where(table.synthetic & (table.expression >= 0))[0])
    if not len(table):
        raise InputError(f"{options.balanced}: no face is marked synthetic: give what synthmtl balance wrote")
    check_sources(options, sources_of(table), splits)
    if unknown := set(table.classes) - set(splits.classes):
        raise InputError(f"{options.balanced}: has {', '.join(sorted(unknown))}, which the original faces have not")
    return table.replace(attributes={}).with_classes(splits.classes)


def check_sources(options: Options, sources: list[str | None], splits: Splits) -> None:
    """Refuse edits of held-out faces; say how many name a photograph that is not here. New faces name none.

    Raises:
        InputError: if a source is held out, or if some are named and none is here.
    """
    homes = homes_of(sources, [splits.train, splits.validation, splits.test])
    cure = "give the --faces options of the run that made them"
    if edits := int((homes > 0).sum()):
        told = f"{edits} of {len(sources)} synthesized faces are edits of faces that are held out here"
        raise InputError(f"{options.balanced}: {told}: {cure}")
    named = [name for name in sources if name]
    if lost := len(named) - int((homes >= 0).sum()):
        told = f"{lost} of {len(sources)} synthesized faces are edits of photographs that are not found among the faces"
        if lost == len(named) and options.on_unknown_source == "error":
            told += f" (first: {named[0]}), so held-out ones may be among them"
            raise InputError(f"{options.balanced}: {told}: {cure}, or go on with --on_unknown_source warn")
        splits.notes.append(f"{told}: whether these are held out is not known")
        log.warning(splits.notes[-1])


def training_sets(original: FaceTable, made: FaceTable) -> dict[str, FaceTable]:
    """What each recognizer learns from, by :data:`TRAINED_ON`."""
    original = original.select(torch.where((original.expression >= 0) & ~original.synthetic)[0]).replace(attributes={})
    again = dilution(original, made.counts(), seed=derive_seed("downstream") % 2**31)
    sets = original, FaceTable.concatenate([original, again]), FaceTable.concatenate([original, made])
    return dict(zip(TRAINED_ON, sets, strict=True))


def train(out: Path, options: Options, *, resume: bool, overwrite: bool) -> dict:
    """Train every recognizer, score the split, write ``results.json`` and a figure below ``out``."""
    check_seed("training", options.training)
    check_faces(options.faces, FaceOptions())
    if options.preset == "smoke":
        options.training = dataclasses.replace(options.training, steps=4, batch_size=16, log_every=2)
    if not options.seeds or len(set(options.seeds)) < len(options.seeds):
        raise InputError(f"--seeds is {options.seeds}: give at least one, each once")
    accelerator = build_accelerator(precision=options.precision)
    if accelerator.is_main_process:
        check_out(out, resume=resume, overwrite=overwrite, options=dataclasses.asdict(options))

    # 1. Faces; nothing is replaced before they are read.
    splits, _ = load_data(options.faces)
    held_out = getattr(splits, options.score)
    made = synthesized_faces(options, splits)
    tables = {name: getattr(splits, name) for name in SPLITS} | {"synthesized": made}
    check_same_data(accelerator, tables)
    if accelerator.is_main_process:
        open_out(out, resume=resume, overwrite=overwrite)
        read = tables if options.faces.path is not None else {"synthesized": made}
        claim(out, dataclasses.asdict(options), describe_data(read))
    accelerator.wait_for_everyone()
    # 2. A recognizer for each set and seed; those that are finished are read.
    outputs, seconds = {}, {}
    for name, table in training_sets(splits.train, made).items():
        cells = [train_one(out, name, table, held_out, options, seed, accelerator) for seed in options.seeds]
        outputs[name] = torch.stack([probabilities for probabilities, _ in cells])
        seconds[name] = sum(spent for _, spent in cells) / len(cells)
        counts = ", ".join(f"{key} {count}" for key, count in table.counts().items())
        accelerator.print(f"{name}: {len(table)} faces ({counts})")
    # 3. Scores with intervals over people (faces, where these are unknown or few) and seeds; paired differences.
    results = {"preset": options.preset, "split": options.score, "seeds": options.seeds, "notes": splits.notes}
    results |= scored(outputs, held_out, splits.train, seconds)
    if accelerator.is_main_process:
        write_json(out / "results.json", results)
        methods_figure(results["methods"], "macro_f1", out / "macro_f1.png")
        say(results)
    accelerator.wait_for_everyone()
    return results


def train_one(
    out: Path, name: str, table: FaceTable, held_out: FaceTable, options: Options, seed: int, accelerator: Accelerator
) -> tuple[Tensor, float]:
    """Probabilities (N, K) for the scored split by one recognizer, and the seconds its training took."""
    unit = Unit(out, f"{name}/seed{seed}")
    file = unit.directory / "predictions.safetensors"
    if unit.result is None:
        torch.manual_seed(derive_seed("weights", seed))  # the same for every set, so that comparisons are paired
        model = EmotionGCN(
            table.classes, tasks=["expression"], head="linear", pooling="average", backbone=options.backbone,
            pretrained=options.pretrained, image_size=options.faces.image_size, image_channels=options.faces.channels,
        )  # fmt: skip
        sampler = EpochSampler(torch.arange(len(table)), options.training.batch_size, seed)
        placement = {"rank": accelerator.process_index, "world": accelerator.num_processes}
        stream = RecognitionStream(table, sampler, augmentation=options.augmentation, seed=seed, **placement)
        loss = ExpressionLoss(label_smoothing=options.label_smoothing)
        result = fit(
            players=[Player("recognition", RecognitionObjective(Logits(model), loss))],
            stream=stream,
            config=dataclasses.replace(options.training, seed=seed),
            accelerator=accelerator,
            directory=unit.directory,
            description=f"{name} seed {seed}",
        )
        probabilities = predict_table(model, held_out, device=accelerator.device, mirror=options.mirror)
        if accelerator.is_main_process:
            save_network(model, unit.directory / "model")
            write_tensors(file, {options.score: probabilities})
            unit.finish({"seconds": result.seconds})
        accelerator.wait_for_everyone()
    return load_file(file)[options.score], unit.result["seconds"]


def scored(outputs: dict[str, Tensor], table: FaceTable, train: FaceTable, seconds: dict[str, float]) -> dict:
    """``methods`` and ``comparisons`` of the results."""
    classes, minority = list(table.classes), list(minority_classes(train.counts(), table.counts()))
    methods = {}
    for name, probabilities in outputs.items():
        each = [recognition_metrics(one, table.expression, classes) for one in probabilities]
        mean = {m: sum(getattr(r, m) for r in each) / len(each) for m in ("accuracy", "macro_f1", "balanced_accuracy")}
        methods[name] = mean | {
            "ci95": bootstrap_intervals(
                probabilities, table.expression, classes, subject=table.subject, minority=minority
            ),
            "per_seed": [{"macro_f1": result.macro_f1} for result in each],
            "per_class_recall": {
                k: sum(result.per_class_recall[k] or 0.0 for result in each) / len(each) for k in classes
            },
            "seconds": seconds[name],
        }
    comparisons = []
    for other in TRAINED_ON[:2]:
        for metric in ("macro_f1", "accuracy", *(["minority_recall"] if minority else [])):
            found = compare_paired(
                outputs["balanced"],
                outputs[other],
                table.expression,
                classes,
                subject=table.subject,
                metric=metric,
                minority=minority,
            )
            comparisons.append(found.as_dict("balanced", other))
    return {"minority": minority, "methods": methods, "comparisons": comparisons}


def say(results: dict) -> None:
    """A line each set and difference."""
    for name, entry in results["methods"].items():
        low, high = entry["ci95"]["macro_f1"]
        rare = " ".join(f"{name} {entry['per_class_recall'][name]:.3f}" for name in results["minority"])
        print(f"{name:11s} accuracy {entry['accuracy']:.3f}  macro-F1 {entry['macro_f1']:.3f} [{low:.3f}, {high:.3f}]"
              f"{'  recall: ' + rare if rare else ''}")  # fmt: skip
    for entry in results["comparisons"]:
        low, high = entry["ci95"]
        print(f"balanced - {entry['b']}, {entry['metric']}: {entry['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")


def main() -> None:
    """Options from the command line and ``--config``."""
    given = recipe_parser(Options, prog="downstream.py").parse_args()
    train(Path(given.out), recipe_options(Options, given), resume=given.resume, overwrite=given.overwrite)


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
