"""Intervals of scores over other test people and other training seeds (percentile bootstrap: Efron, Tibshirani, 1993).

A score here reads nothing but sums over faces (a confusion matrix, moments, a sum of errors), so that scoring a drawn
sample is a matter of how many times each face was drawn. Faces of one person are alike in how hard they are, so that
drawing them one by one would promise more than another test set holds: a person is drawn with all of their faces.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthmtl.errors import InputError

PEOPLE = 10
"""Fewer test people than these are no sample of people: then faces are drawn."""

_REPLICATE_CELLS = 4_000_000  # counts held at once while resampling: 16 MB


@dataclass(frozen=True)
class FaceSums:
    """What a score needs to know of each face.

    Attributes:
        statistics: (S, N, F), F numbers of N faces under S training seeds, that are added up over faces.
        scored: (A,) bool, which N of the split's A faces these are.
        score: sums (..., F) → scores (...), NaN where a sample has none.
    """

    statistics: np.ndarray
    scored: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]

    @property
    def points(self) -> np.ndarray:
        """The score of each seed on all faces, (S,)."""
        return self.score(self.statistics.sum(1, dtype=np.float64))


def resampled_sums(
    statistics: np.ndarray, *, samples: int, seed: int, subject: Tensor | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap replicates of M methods' sums on the same drawn people, and the drawn seeds.

    Args:
        statistics: (M, S, N, F) of M methods, S seeds, N faces, F numbers.
        samples: replicates.
        seed: of the resampling.
        subject: (N,) whose face it is, see :func:`people`; None: faces are drawn.

    Returns:
        Sums (M, samples, S, F), of the statistics' dtype, and the seeds (samples, S) of each replicate, see
        :func:`mean_over_seeds`. People and seeds are drawn with replacement.
    """
    if subject is not None:
        statistics = _sums_of_people(statistics, people(subject))
    methods, seeds, count, width = statistics.shape
    rng = np.random.default_rng(seed)
    drawn_seeds = rng.integers(seeds, size=(samples, seeds))
    sums = np.empty((methods, samples, seeds, width), dtype=statistics.dtype)
    step = max(1, _REPLICATE_CELLS // count)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(statistics.dtype)
        for method in range(methods):
            for one in range(seeds):
                sums[method, start : start + rows, one] = times @ statistics[method, one]
    return sums, drawn_seeds


def people(subject: Tensor | np.ndarray) -> np.ndarray:
    """Numbers 0 ... P - 1 of the people whose faces are drawn together, (N,), given subjects (N,), -1 = unknown.

    Who is unknown counts as somebody else each time; with fewer than :data:`PEOPLE` every face does.
    """
    numbers = _person_of_each(torch.as_tensor(subject).cpu().numpy())
    return numbers if _are_enough(numbers) else np.arange(len(numbers))


def drawn_unit(subject: Tensor | np.ndarray | None) -> str:
    """What :func:`resampled_sums` draws for subjects (N,), -1 = unknown: ``people`` or ``faces``, see :func:`people`.

    Where nobody is known it is faces, too.
    """
    if subject is None:
        return "faces"
    known = torch.as_tensor(subject).cpu().numpy()
    return "people" if (known >= 0).any() and _are_enough(_person_of_each(known)) else "faces"


def _person_of_each(known: np.ndarray) -> np.ndarray:
    alone = np.arange(len(known)) + known.max(initial=-1) + 1
    return np.unique(np.where(known < 0, alone, known), return_inverse=True)[1]


def _are_enough(numbers: np.ndarray) -> bool:
    return bool(numbers.max(initial=-1) + 1 >= PEOPLE)


def _sums_of_people(statistics: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(..., N, F) of faces as (..., P, F) of people."""
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(numbers.max() + 1))
    return np.add.reduceat(statistics[..., order, :], starts, axis=-2)


def mean_over_seeds(scores: np.ndarray, drawn_seeds: np.ndarray) -> np.ndarray:
    """Mean of scores (M, samples, S) over the seeds that each replicate drew, (samples, S): (M, samples)."""
    return np.take_along_axis(scores, drawn_seeds[None], axis=2).mean(2)


def interval(replicates: np.ndarray, confidence: float) -> list[float]:
    """Percentile interval ``[low, high]`` of bootstrap replicates; those without a value (NaN) are left out."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    tail = (1 - confidence) / 2
    return [float(value) for value in np.nanquantile(replicates, [tail, 1 - tail])]


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without the NaNs; NaN where there is nothing else."""
    defined = ~np.isnan(values)
    count = defined.sum(-1)
    return np.where(count > 0, np.where(defined, values, 0.0).sum(-1) / np.maximum(count, 1), np.nan)


def or_none(value: float | np.ndarray) -> float | None:
    """A plain number; None for NaN, which JSON lacks."""
    return None if np.isnan(value) else float(value)


def matched_arrays(
    outputs: Tensor | np.ndarray, labels: Tensor | np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (S, N, ...) and labels (N, ...), float64, of outputs (N, ...), then S = 1, or (S, N, ...).

    Raises:
        InputError: if the shapes disagree, an output is NaN, or there is no output.
    """
    outputs, labels = (torch.as_tensor(given).detach().cpu().double().numpy() for given in (outputs, labels))
    if outputs.ndim == labels.ndim:
        outputs = outputs[None]
    if outputs.shape[1:] != labels.shape or not outputs.size:
        raise InputError(f"{what} predicted as {tuple(outputs.shape[1:])} do not fit labels {tuple(labels.shape)}")
    if np.isnan(outputs).any():
        raise InputError(f"predicted {what} hold NaN: the network's weights are broken, use an earlier checkpoint")
    return outputs, labels
