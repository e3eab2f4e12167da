"""From what probability on a judge is taken to see an expression, measured on real faces."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from synthmtl.balance.chunks import weights_hash
from synthmtl.data.pixels import to_unit
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.files import write_text
from synthmtl.models.blocks import evaluating


def judge_classes(judge: nn.Module) -> tuple[str, ...]:
    """What a judge tells apart, in the order of its outputs."""
    return tuple(judge.classes)  # type: ignore[arg-type]


def judge_probabilities(
    judge: nn.Module, images: Tensor, *, batch_size: int = 256, device: torch.device | str = "cpu"
) -> Tensor:
    """Probabilities (N, K) float32 on the CPU that a judge gives to faces (N, C, H, W) uint8, in evaluation mode."""
    with evaluating(judge.to(device)), torch.no_grad():
        parts = [
            judge.recognize(to_unit(part, device)).float().cpu()  # type: ignore[operator]
            for part in images.split(batch_size)
        ]
    return torch.cat(parts) if parts else torch.empty(0, len(judge_classes(judge)))


@dataclass(frozen=True)
class JudgeCalibration:
    """The least probability at which a judge is taken to see each class.

    One threshold for all classes would be wrong: a judge that learned from a long tail gives real faces of its rare
    classes probabilities of a few percent. So the threshold of class c is the ``quantile`` of p(c | face) over real
    validation faces of class c: by construction it keeps 1 − ``quantile`` of real faces.

    How much such a filter is worth is another matter: a weak judge may let as many faces of other classes pass. The
    share of real faces of the other classes that would pass is measured, and where ``mistaken_at_most`` bounds it, the
    threshold is raised until it holds. Faces to edit are of other classes: where the generator left them as they are,
    about that share passes.

    Attributes:
        classes: of the judge, in the order of its outputs.
        thresholds: (K,) float32.
        quantile: share of real faces that falls below.
        faces: validation faces of each class.
        mistaken: (K,) float32, share of the other classes' validation faces that reach the threshold.
        mistaken_at_most: what it was held to; None = it was left alone.
        borrowed: classes with too few faces, which took the lowest threshold of the others (the quantile over all
            faces if every class has too few): a doubtful face is kept rather than a good one lost.
    """

    classes: tuple[str, ...]
    thresholds: Tensor
    quantile: float
    faces: dict[str, int]
    borrowed: tuple[str, ...]
    mistaken: Tensor
    mistaken_at_most: float | None = None

    def as_dict(self) -> dict:
        """For ``balance.json``."""
        return {
            "quantile": self.quantile,
            "thresholds": {n: round(t, 6) for n, t in zip(self.classes, self.thresholds.tolist(), strict=True)},
            "validation_faces": self.faces,
            "borrowed": list(self.borrowed),
            "mistaken": {n: round(t, 6) for n, t in zip(self.classes, self.mistaken.tolist(), strict=True)},
            "mistaken_at_most": self.mistaken_at_most,
        }


def calibrate_judge(
    judge: nn.Module,
    validation: FaceTable,
    *,
    quantile: float = 0.2,
    mistaken_at_most: float | None = None,
    min_faces: int = 5,
    wanted: Sequence[str] = (),
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> JudgeCalibration:
    """Calibrate a judge on real faces that it did not train on.

    Args:
        judge: network with ``classes`` and ``recognize(images) -> (B, K)``; it must not have taken part in the
            generator's training, or it agrees with whatever pleases it.
        validation: labelled faces; synthesized ones are left out. Those of classes that the judge does not know are
            faces of other classes to each that it knows.
        quantile: share of real faces of each class that would be rejected, in [0, 1).
        mistaken_at_most: share of real faces of the other classes that may pass as a class, in [0, 1]; None = any.
        min_faces: fewest faces from which a threshold is estimated.
        wanted: classes whose faces will be judged, which the judge has to know.

    Raises:
        InputError: if there is no usable face, a wanted class is unknown to the judge, or a share is out of range.
    """
    if not 0 <= quantile < 1:
        raise InputError(f"quantile must lie in [0, 1), not {quantile}")
    if mistaken_at_most is not None and not 0 <= mistaken_at_most <= 1:
        raise InputError(f"mistaken_at_most must lie in [0, 1], not {mistaken_at_most}")
    usable = (validation.expression >= 0) & ~validation.synthetic
    if not usable.any():
        raise InputError("cannot calibrate the judge: the validation split has no real labelled face")
    real = validation.select(usable)
    judge_columns(judge, tuple(wanted))
    classes, index = judge_classes(judge), judge_columns(judge, real.classes, wanted=())
    target = index[real.expression]
    known = target >= 0
    if not known.any():
        raise InputError(f"cannot calibrate the judge: no real validation face shows any of {', '.join(classes)}")
    probabilities = judge_probabilities(judge, real.images, batch_size=batch_size, device=device)
    own = probabilities[torch.arange(len(real)), target]
    count = torch.bincount(target[known], minlength=len(classes))
    enough = count >= min_faces
    thresholds = torch.zeros(len(classes))
    for k in torch.where(enough)[0].tolist():
        thresholds[k] = torch.quantile(own[target == k], quantile)
    thresholds[~enough] = thresholds[enough].min() if enough.any() else torch.quantile(own[known], quantile)
    mistaken = torch.zeros(len(classes))
    for k in range(len(classes)):
        others = probabilities[target != k, k]
        if not len(others):
            continue
        if mistaken_at_most is not None:
            # Just above the face that would be one too many.
            allowed = int(mistaken_at_most * len(others))
            if allowed < len(others):
                bound = others.sort(descending=True).values[allowed]
                thresholds[k] = torch.maximum(thresholds[k], torch.nextafter(bound, torch.tensor(2.0)))
        mistaken[k] = (others >= thresholds[k]).float().mean()
    return JudgeCalibration(
        classes=classes,
        thresholds=thresholds,
        quantile=quantile,
        faces=dict(zip(classes, count.tolist(), strict=True)),
        borrowed=tuple(name for name, good in zip(classes, enough.tolist(), strict=True) if not good),
        mistaken=mistaken,
        mistaken_at_most=mistaken_at_most,
    )


def judge_columns(judge: nn.Module, classes: tuple[str, ...], wanted: Sequence[str] | None = None) -> Tensor:
    """(K,) int64: the judge's output for each of ``classes``; -1 for those that it neither knows nor has to.

    Args:
        judge: its ``classes`` are those that it knows.
        classes: K expressions.
        wanted: those of them that it has to know; None = all.

    Raises:
        InputError: if the judge does not know one of them.
    """
    known, needed = judge_classes(judge), classes if wanted is None else wanted
    missing = [name for name in classes if name in needed and name not in known]
    if missing:
        raise InputError(f"the judge does not know {missing[0]}: train it on {', '.join(needed)}")
    return torch.tensor([known.index(name) if name in known else -1 for name in classes], dtype=torch.int64)


def kept_calibration(
    directory: str | Path, calibration: JudgeCalibration, judge: nn.Module, *, rank: int = 0
) -> JudgeCalibration:
    """The calibration that a directory keeps, so that a resumed job filters by the thresholds that it began with.

    Another kind of processor computes the same network's probabilities with other last bits, and chunks that were
    filtered by other thresholds are not continued.

    Args:
        directory: made if missing; holds ``calibration.json``.
        calibration: kept and returned if the directory has none of this judge, these options and as many faces.
        judge: that was calibrated.
        rank: of this process; the first one writes.
    """
    file = Path(directory) / "calibration.json"
    # Digits enough to give every float32 back as it was.
    numbers = {name: getattr(calibration, name).tolist() for name in ("thresholds", "mistaken")}
    content = json.loads(json.dumps({"judge": weights_hash(judge)} | dataclasses.asdict(calibration) | numbers))
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if all(kept[name] == value for name, value in content.items() if name not in numbers):
            thresholds, mistaken = (torch.tensor(kept[name]) for name in numbers)
            return dataclasses.replace(calibration, thresholds=thresholds, mistaken=mistaken)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or a damaged one
    if rank == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(content))
    return calibration
