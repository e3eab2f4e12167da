"""Compound expressions read from what was never trained on them: basic expressions and action units."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthmtl.labels import COMPOUND_EXPRESSIONS, COMPOUND_PARTS


@cache
def compound_prototypes() -> Tensor:
    """(12, 22) intensities of the action units that the compound expressions show at full strength.

    By the recipes that rendered faces are made of (``faces.anatomy``), which blend those of the two parts.
    """
    from synthmtl.faces import anatomy  # the renderer is loaded only where it is asked

    recipes = [anatomy.recipe_vector(anatomy.KINDS.index(name)) for name in COMPOUND_EXPRESSIONS]
    return torch.from_numpy(anatomy.action_units(np.stack(recipes)))


def read_out(probabilities: Tensor, action_units: Tensor | None, classes: Sequence[str]) -> Tensor:
    """Scores of the compound expressions, from the two strongest basic ones and the action units.

        score_c ∝ sqrt(p_a p_b) · cos(u, v_c)            c made of a and b

    The first factor is largest for the pair of the two strongest expressions. The second is how well the action units u
    agree with the compound's v_c (:func:`compound_prototypes`), over the units that are known; 1 without any. Our own
    formula: the paper that reads compound emotions so (Pons and Masip, arXiv 1802.06664) gives none.

    Args:
        probabilities: (B, K) of the basic expressions.
        action_units: (B, 22) intensities in [0, 1], NaN = unknown; None = all unknown.
        classes: K expressions; a compound with a part that is none of them scores 0.

    Returns:
        (B, 12) in the order of ``labels.COMPOUND_EXPRESSIONS``, sum 1; uniform where no pair has any probability.
    """
    classes = tuple(classes)
    none = probabilities.new_zeros(len(probabilities), 1)
    padded = torch.cat([probabilities, none], 1)
    parts = [[classes.index(part) if part in classes else -1 for part in pair] for pair in COMPOUND_PARTS.values()]
    scores = padded[:, torch.tensor(parts, device=padded.device)].prod(2).sqrt()
    if action_units is not None:
        known = ~action_units.isnan()
        shown = torch.where(known, action_units, 0.0)
        expected = compound_prototypes().to(shown)[None] * known[:, None]
        likeness = F.cosine_similarity(shown[:, None], expected, dim=2)
        # A face that shows nothing agrees with nothing: then the expressions decide.
        scores = scores * torch.where((shown > 0).any(1, keepdim=True), likeness, 1.0)
    scores = scores + 1e-12
    return scores / scores.sum(1, keepdim=True)
