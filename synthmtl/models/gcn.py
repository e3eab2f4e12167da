"""Emotions as a graph: which of them go together, what each is known by, and the classifiers made of both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import scipy  # which reads a part of itself when it is first named
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSION_ALIASES
from synthmtl.models.blocks import Float32Linear

AFFECT = ("valence", "arousal")
"""The nodes that come after the expressions."""

_AFFECT_WORDS = {"valence": ("valence", "pleasantness", "pleasure"), "arousal": ("arousal", "excitement", "activation")}


def emotion_adjacency(
    expression: Tensor,
    valence_arousal: Tensor,
    classes: Sequence[str],
    *,
    threshold: float = 0.1,
    self_weight: float = 0.5,
    normalization: Literal["row", "published"] = "row",
) -> Tensor:
    """How much each emotion takes from each other one, by the labels of a training set.

    Two nodes are neighbors if the absolute Spearman correlation of their labels (the indicator of an expression, a
    value) reaches the threshold; two expressions never are. Each row keeps ``self_weight`` for itself and shares the
    rest equally among its neighbors; without any, it keeps 1 (Antoniadis et al., FG 2021).

    Args:
        expression: (N,) index into ``classes``, -1 = missing.
        valence_arousal: (N, 2), NaN = missing. Each correlation is over the faces that carry both labels.
        classes: K expressions.
        threshold: smallest correlation of neighbors.
        self_weight: what a row keeps.
        normalization: ``row``: as above, each node's new vector is a mean. ``published``: the transposed matrix, which
            is what the published code computes, since its D^-1/2 Aᵀ D^-1/2 meets rows that already sum to 1. Sums then
            differ: valence and arousal, if they are neighbors of all seven expressions but not of each other, receive
            2.25 times the mass of ``row``.

    Returns:
        (K + 2, K + 2) float32; rows receive. Nodes: the expressions, valence, arousal.

    Raises:
        InputError: if no face carries both an expression and valence or arousal.
    """
    count = len(classes)
    labelled = expression >= 0
    columns = [torch.where(labelled, (expression == k).double(), float("nan")) for k in range(count)]
    columns += list(valence_arousal.double().unbind(1))
    if not bool((labelled[:, None] & ~valence_arousal.isnan()).any()):
        raise InputError("adjacency: no training face carries an expression together with valence or arousal")
    linked = torch.zeros(count + 2, count + 2)
    for i in range(count + 2):
        for j in range(max(count, i + 1), count + 2):
            linked[i, j] = linked[j, i] = float(_correlation(columns[i], columns[j]) >= threshold)
    neighbors = linked.sum(1, keepdim=True)
    matrix = (1 - self_weight) * linked / neighbors.clamp(min=1)
    matrix += torch.diag(torch.where(neighbors[:, 0] > 0, self_weight, 1.0))
    return matrix if normalization == "row" else matrix.T.contiguous()


def _correlation(a: Tensor, b: Tensor) -> float:
    """The absolute rank correlation over the rows that have both; 0 where one is constant."""
    both = ~a.isnan() & ~b.isnan()
    a, b = a[both], b[both]
    if len(a.unique()) < 2 or len(b.unique()) < 2:
        return 0.0
    return abs(float(scipy.stats.spearmanr(a.numpy(), b.numpy()).statistic))


def read_word_vectors(path: str | Path, classes: Sequence[str]) -> Tensor:
    """Vectors (K + 2, D) of the nodes' words, from a text file in the format of GloVe: a word and D numbers a line.

    A node goes by its own name or, where the file lacks it, by the first of its aliases that is there
    (``labels.EXPRESSION_ALIASES``). A first line with two numbers only, as word2vec writes it, is skipped.

    Raises:
        InputError: if the file cannot be read, a line of a wanted word is broken, or a node has no word in the file.
    """
    path = Path(path)
    words = {
        name: [alias for alias, of in EXPRESSION_ALIASES.items() if of == name] for name in classes
    } | _AFFECT_WORDS
    wanted = {word for each in words.values() for word in each}
    found: dict[str, list[float]] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                word, _, rest = line.partition(" ")
                if word in wanted and word not in found:
                    try:
                        found[word] = [float(value) for value in rest.split()]
                        if not torch.tensor(found[word]).isfinite().all():
                            raise ValueError
                    except ValueError:
                        raise InputError(f"{path}:{number}: the vector of {word!r} is not made of numbers") from None
                    first = next(iter(found.values()))
                    if not found[word] or len(found[word]) != len(first):
                        raise InputError(
                            f"{path}:{number}: the vector of {word!r} has {len(found[word])} numbers, not {len(first)}"
                        )
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read word vectors ({error}); give a text file as GloVe's") from None
    vectors = []
    for name, names in words.items():
        known = next((word for word in names if word in found), None)
        if known is None:
            raise InputError(f"{path}: has no vector for {name!r} (nor for {', '.join(names[1:])}); use another file")
        vectors.append(found[known])
    return torch.tensor(vectors)


class EmotionGraph(nn.Module):
    """Classifiers made of a graph: W = A lrelu(A N U) V, (K + 2, features) in float32 (Antoniadis et al., FG 2021).

    N (K + 2, D) are the nodes' vectors, A the adjacency, U (D, hidden), V (hidden, features); LeakyReLU of slope 0.2;
    no biases.

    Args:
        nodes: N.
        trained: N is a parameter, else a buffer.
        adjacency: A.
        hidden_channels, features: widths.
    """

    def __init__(self, nodes: Tensor, adjacency: Tensor, *, trained: bool, hidden_channels: int, features: int):
        super().__init__()
        if trained:
            self.nodes = nn.Parameter(nodes)
        else:
            self.register_buffer("nodes", nodes)
        self.register_buffer("adjacency", adjacency, persistent=False)  # it is in the network's configuration
        self.first = Float32Linear(nodes.shape[1], hidden_channels, bias=False)
        self.second = Float32Linear(hidden_channels, features, bias=False)

    def forward(self) -> Tensor:
        with torch.autocast(self.nodes.device.type, enabled=False):
            adjacency = self.adjacency.float()
            hidden = F.leaky_relu(adjacency @ self.first(self.nodes), 0.2)
            return adjacency @ self.second(hidden)
