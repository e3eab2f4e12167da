"""Whether an edited face still shows the person of its source."""

from dataclasses import dataclass

import torch
from torch import Tensor

from synthmtl.errors import InputError
from synthmtl.metrics.generation import distances


@dataclass(frozen=True)
class SubjectScores:
    """How often the nearest real face is of the source's person.

    Attributes:
        kept: (M,) bool, with the source itself among the real faces.
        other: (M,) bool, with the source left out, so that another picture of the person has to be found; only where
            ``comparable``.
        comparable: (M,) bool, whether the source is known and the person has another real face.
        chance: (M,) double, how often a random real face is of the person.
    """

    kept: Tensor
    other: Tensor
    comparable: Tensor
    chance: Tensor


def subject_scores(
    real: Tensor, synthetic: Tensor, *, real_subject: Tensor, subject: Tensor, source_row: Tensor
) -> SubjectScores:
    """Nearest person by features.

    Args:
        real, synthetic: (N, D) and (M, D) features.
        real_subject: (N,) int64; faces of unknown subject (-1) are left out.
        subject: (M,) int64, the person of each source, none missing.
        source_row: (M,) int64, the source among the real faces, -1 = unknown.

    Raises:
        InputError: if no real face has a subject.
    """
    known = real_subject >= 0
    if not known.any():
        raise InputError("no real face has a subject")
    kept, other = [], []
    for rows, distance in distances(synthetic, real):
        distance[:, ~known] = float("inf")
        kept.append(real_subject[distance.argmin(1)] == subject[rows])
        with_source = torch.where(source_row[rows] >= 0)[0]
        distance[with_source, source_row[rows][with_source]] = float("inf")
        other.append(real_subject[distance.argmin(1)] == subject[rows])
    people, count = real_subject[known].unique(return_counts=True)
    pictures = torch.where(subject[:, None] == people, count, 0).sum(1)
    return SubjectScores(
        kept=torch.cat(kept),
        other=torch.cat(other),
        comparable=(source_row >= 0) & (pictures > 1),
        chance=pictures.double() / known.sum(),
    )
