"""Attributes such as age or ethnicity, whose joint distribution a balancing set can keep within each class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

_CATEGORIES = 8
_QUARTILES = (0.25, 0.5, 0.75)


def strata(table: FaceTable, names: Sequence[str]) -> Tensor:
    """(N,) int64: a number from 0 for each combination of attributes that some face has.

    An attribute of words, or with up to eight different values, is taken as it is, another one by the quarter of the
    faces that it falls in; a missing value is a value of its own.

    Raises:
        InputError: if the table does not carry one of the attributes.
    """
    columns = [torch.zeros(len(table), dtype=torch.int64)]
    for name in names:
        values = table.attributes.get(name, torch.empty(0)).double()
        known = values[~values.isnan()]
        if not len(known):
            carried = ", ".join(sorted(table.attributes)) or "no attribute at all"
            raise InputError(
                f"cannot match {name!r}: the data carry {carried}; give it as a number or a word for each face, in a "
                f"column {name!r} of metadata.csv or metadata.jsonl"
            )
        edges = known.unique()
        if len(edges) > _CATEGORIES and name not in table.words:
            edges = torch.quantile(known, torch.tensor(_QUARTILES, dtype=known.dtype))
        columns.append(torch.where(values.isnan(), -1, torch.searchsorted(edges, values)))
    return torch.unique(torch.stack(columns, 1), dim=0, return_inverse=True)[1]


def quotas(have: Tensor, share: Tensor, count: int) -> list[int]:
    """How many of ``count`` further faces each of S strata gets, so that the sum comes nearest to the wanted shares.

    Args:
        have: (S,) faces of a class in each stratum now.
        share: (S,) at least 0, what all faces of the class should be in proportion to; 0 for a stratum that gets none.

    Returns:
        S numbers whose sum is ``count``.
    """
    share = share.double() / share.sum()
    lack = (share * (have.sum() + count) - have).clamp(min=0) * (share > 0)
    exact = count * (lack / lack.sum() if lack.sum() > 0 else share)
    whole = exact.floor().long()
    largest = (exact - whole).argsort(descending=True, stable=True)[: count - int(whole.sum())]
    whole[largest] += 1
    return whole.tolist()
