"""Scores of networks with several tasks on faces with whatever labels they carry: one table for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import COMPOUND_EXPRESSIONS
from synthmtl.metrics.action_units import THRESHOLD, action_unit_metrics, action_unit_sums
from synthmtl.metrics.affect import affect_metrics, affect_sums
from synthmtl.metrics.bootstrap import FaceSums, interval, mean_over_seeds, resampled_sums
from synthmtl.metrics.comparison import Comparison
from synthmtl.metrics.landmarks import OUTER_EYE_CORNERS, landmark_metrics, landmark_sums
from synthmtl.metrics.recognition import confusion_statistics, labelled_predictions, recognition_metrics, score

HEADLINES = {
    "expression": "macro_f1",
    "compound": "macro_f1",
    "action_units": "mean_f1",
    "landmarks": "nme",
    "valence_arousal": "ccc",
}
"""The score of each task that intervals and comparisons are about; of ``nme`` less is better.

``mean_f1`` is that of units from an intensity of 0.5 unless ``unit_threshold`` says otherwise, and so comparable with
published numbers of DISFA or CK+ only by their thresholds (``action_units.THRESHOLD``).
"""


@dataclass(frozen=True)
class Headline:
    """A task's headline score over S training seeds.

    Attributes:
        metric: of :data:`HEADLINES`.
        value: mean over seeds. per_seed: (S,) of each.
        ci95: ``[low, high]`` of the mean (at the confidence asked for).
        faces: labelled faces that took part.
    """

    metric: str
    value: float
    per_seed: list[float]
    ci95: list[float]
    faces: int

    def as_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def task_metrics(
    outputs: Mapping[str, Tensor], table: FaceTable, *, unit_threshold: float = THRESHOLD
) -> dict[str, dict]:
    """All scores of each task that the network predicts and the split has labels of: ``{task: {metric: value}}``.

    Each task's entry also has ``count``, the faces scored, and ``missing``, those without its label.

    Args:
        outputs: what ``predict`` gives for the N faces, by task: probabilities (N, K) of ``expression`` and (N, 12) of
            ``compound``, intensities (N, 22), landmarks (N, 68, 2), valence and arousal (N, 2); others are ignored.
        table: the faces.
        unit_threshold: intensity from which an action unit counts as active, as for :func:`action_unit_metrics`.

    Raises:
        InputError: if there is no task to score, or a task's outputs and labels disagree.
    """
    results = {}
    for task in scored_tasks(outputs, table):
        output, label = outputs[task], getattr(table, task)
        if task in ("expression", "compound"):
            results[task] = recognition_metrics(output, label, _classes(task, table)).as_dict()
        elif task == "action_units":
            results[task] = action_unit_metrics(output, label, threshold=unit_threshold).as_dict()
        elif task == "landmarks":
            results[task] = landmark_metrics(output, label).as_dict()
        else:
            results[task] = affect_metrics(output, label).as_dict()
    return results


def task_intervals(
    outputs: Sequence[Mapping[str, Tensor]],
    table: FaceTable,
    *,
    unit_threshold: float = THRESHOLD,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Headline]:
    """Headline score of each task, with its bootstrap interval over people and training seeds.

    A task whose score is undefined on the split (no unit is active on any face, affect does not vary) is left out.
    People and seeds are drawn as in ``recognition.bootstrap_intervals``, and few seeds make the interval too narrow as
    there.

    Args:
        outputs: one mapping for each training seed, as for :func:`task_metrics`.
        table, unit_threshold: as there.
        samples: replicates.
        confidence: coverage in (0, 1).
        seed: of the resampling.

    Raises:
        InputError: as :func:`task_metrics`; or if the seeds' tasks differ.
    """
    headlines = {}
    for task, sums in _sums(outputs, table, unit_threshold).items():
        points = sums.points
        if np.isnan(points).any():
            continue
        (replicates,) = _replicates([sums], table, samples, seed)
        headlines[task] = Headline(
            metric=HEADLINES[task],
            value=float(points.mean()),
            per_seed=points.tolist(),
            ci95=interval(replicates, confidence),
            faces=sums.statistics.shape[1],
        )
    return headlines


def compare_tasks(
    a: Sequence[Mapping[str, Tensor]],
    b: Sequence[Mapping[str, Tensor]],
    table: FaceTable,
    *,
    unit_threshold: float = THRESHOLD,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Difference a - b of the headline score of each task that both predict, paired by seed and by face.

    A task whose score is undefined on the split is left out. The bootstrap of ``comparison.compare_paired``: people
    and seeds are drawn jointly for both. Below zero a is better in ``nme``, above zero in all others.

    Args:
        a, b: as for :func:`task_intervals`; entry i of both was trained with the same seed.
        table, unit_threshold, samples, confidence, seed: as there.

    Raises:
        InputError: as there; if one has more seeds than the other, or they have no task in common.
    """
    if len(a) != len(b):
        raise InputError(f"a paired comparison needs the same seeds of both: a has {len(a)}, b has {len(b)}")
    first, second = _sums(a, table, unit_threshold), _sums(b, table, unit_threshold)
    common = [task for task in first if task in second]
    if not common:
        raise InputError(f"nothing to compare: a predicts {', '.join(first)} and b {', '.join(second)}")
    comparisons = {}
    for task in common:
        both = [first[task], second[task]]
        per_seed = both[0].points - both[1].points
        if np.isnan(per_seed).any():
            continue
        replicates = _replicates(both, table, samples, seed)
        comparisons[task] = Comparison(
            metric=HEADLINES[task],
            difference=float(per_seed.mean()),
            ci95=interval(replicates[0] - replicates[1], confidence),
            per_seed=per_seed.tolist(),
            faces=both[0].statistics.shape[1],
        )
    return comparisons


def headline_replicates(
    methods: Sequence[Sequence[Mapping[str, Tensor]]], table: FaceTable, *, samples: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Bootstrap replicates (M, samples) of the headline scores of M methods, drawn jointly, by task.

    Tasks that not all methods predict are left out. A replicate without a value is NaN.

    Args:
        methods: of each the outputs by training seed, as for :func:`task_intervals`, the same seeds for all.
        table, samples, seed: as there.

    Raises:
        InputError: as there.
    """
    sums = [_sums(outputs, table) for outputs in methods]
    tasks = [task for task in sums[0] if all(task in one for one in sums)]
    return {task: _replicates([one[task] for one in sums], table, samples, seed) for task in tasks}


def scored_tasks(outputs: Mapping[str, Tensor], table: FaceTable) -> list[str]:
    """The tasks of :data:`HEADLINES` that have both outputs and a label in the split that can be scored.

    Raises:
        InputError: if there is none.
    """
    labelled = scorable_labels(table)
    tasks = [task for task in labelled if task in outputs]
    if not tasks:
        raise InputError(
            f"nothing can be scored: the split has labels of {', '.join(labelled) or 'no task'}, "
            f"the network predicts {', '.join(outputs) or 'nothing'}"
        )
    return tasks


def scorable_labels(table: FaceTable) -> list[str]:
    """The tasks of :data:`HEADLINES` that some face can be scored by (:func:`scorable_faces`)."""
    return [task for task in HEADLINES if bool(scorable_faces(table, task).any())]


def scorable_faces(table: FaceTable, task: str) -> Tensor:
    """(N,) bool, the faces that are labelled for a task of :data:`HEADLINES`; of landmarks, both outer eye corners."""
    label = getattr(table, task)
    if task == "landmarks":
        return ~label[:, list(OUTER_EYE_CORNERS)].isnan().flatten(1).any(1)
    known = ~label.isnan() if label.is_floating_point() else label >= 0
    return known if known.ndim == 1 else known.flatten(1).any(1)


def _classes(task: str, table: FaceTable) -> Sequence[str]:
    return table.classes if task == "expression" else COMPOUND_EXPRESSIONS


def _sums(
    outputs: Sequence[Mapping[str, Tensor]], table: FaceTable, unit_threshold: float = THRESHOLD
) -> dict[str, FaceSums]:
    """What the headline scores need, by task."""
    if not outputs:
        raise InputError("nothing can be scored: there are no outputs of any seed")
    tasks = scored_tasks(outputs[0], table)
    sums = {}
    for task in tasks:
        if any(task not in one for one in outputs):
            raise InputError(f"the seeds' networks differ: not all of them predict {task}")
        stacked, label = torch.stack([one[task] for one in outputs]), getattr(table, task)
        if task in ("expression", "compound"):
            sums[task] = _macro_f1(stacked, label, _classes(task, table))
        elif task == "action_units":
            sums[task] = action_unit_sums(stacked, label, threshold=unit_threshold)
        elif task == "landmarks":
            sums[task] = landmark_sums(stacked, label)
        else:
            sums[task] = affect_sums(stacked, label)
    return sums


def _macro_f1(probabilities: Tensor, label: Tensor, classes: Sequence[str]) -> FaceSums:
    predictions, truth, _ = labelled_predictions(probabilities, label, classes)
    size = len(classes)

    def macro_f1(sums: np.ndarray) -> np.ndarray:
        return score(sums.reshape(*sums.shape[:-1], size, size), "macro_f1")

    return FaceSums(confusion_statistics(predictions, truth, size), (label >= 0).cpu().numpy(), macro_f1)


def _replicates(methods: Sequence[FaceSums], table: FaceTable, samples: int, seed: int) -> np.ndarray:
    """Bootstrap replicates (M, samples) of methods that saw the same faces."""
    statistics = np.stack([one.statistics for one in methods])
    subject = table.subject[torch.from_numpy(methods[0].scored)]
    sums, drawn_seeds = resampled_sums(statistics, samples=samples, seed=seed, subject=subject)
    return mean_over_seeds(methods[0].score(sums), drawn_seeds)
