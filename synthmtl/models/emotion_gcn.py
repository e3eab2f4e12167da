"""Emotion-GCN: expressions, valence and arousal through classifiers that a graph of emotions makes.

Antoniadis, Filntisis, Maragos: Exploiting emotional dependencies with graph convolutional networks for facial
expression recognition. FG 2021, arXiv 2106.03487. The layers are the paper's and its published code's; learned and
one-hot node vectors, backbones other than DenseNet-121 and branches that share are additions of ours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.models.backbones import TorchvisionTrunk
from synthmtl.models.blocks import Float32Linear
from synthmtl.models.gcn import AFFECT, EmotionGraph, read_word_vectors
from synthmtl.models.heads import checked_tasks
from synthmtl.models.multitask import MultiTaskModel
from synthmtl.models.trunk import MultiTaskTrunk

EMOTION_GCN_SIZES = {
    "published": {"image_size": 227, "image_channels": 3, "backbone": "densenet121", "pretrained": True},
    "cpu": {
        "image_size": 48,
        "stem_channels": 16,
        "stage_channels": (32, 64, 96),
        "stem_kind": "unshuffle",
        "pool_first": True,
        "sharing_options": {"gate_bias": -2.0},
    },
    "tiny": {
        "image_size": 32,
        "stem_channels": 8,
        "stage_channels": (8, 16, 16),
        "hidden_channels": 32,
        "stem_kind": "unshuffle",
        "pool_first": True,
        "sharing_options": {"gate_bias": -2.0},
    },
}
"""Configurations by name: ``published`` (227 px, DenseNet-121 with ImageNet's weights), ``cpu`` (48 px, narrow),
``tiny`` (32 px, for trials)."""

GRAPH_TASKS = ("expression", "valence_arousal")
"""What the classifiers of the graph, or their linear control, predict."""


class EmotionGCN(MultiTaskModel):
    """Pooled features x, classifiers W from a graph of the emotions (:class:`EmotionGraph`), and the output x Wᵀ.

    ``forward(images)`` → ``expression`` logits (B, K) and ``valence_arousal`` (B, 2), each from the features of its own
    branch where there are two; other tasks through heads as in ``heads.build_head``; ``penalty`` if the sharing units
    have one. The controls of a fair comparison are configurations: ``head="linear"`` with ``pooling`` ``max`` or
    ``average``; ``adjacency="identity"``; ``node_vectors="random"``.

    Args:
        classes: K expressions, in canonical order.
        tasks: of ``labels.TASKS``.
        head: ``gcn``, or ``linear``: plain linear classifiers with biases.
        pooling: ``max`` as published, or ``average``, of the features over space.
        adjacency: (K + 2, K + 2) as nested lists (``emotion_adjacency(...).tolist()``), or ``identity``: no graph.
        node_vectors: ``learned``; ``one_hot`` of K + 2 numbers; ``random``, drawn by ``node_seed`` and kept; the path
            of a word-vector file (:func:`read_word_vectors`), whose vectors are kept in the weights; or ``stored``, as
            a network with such vectors says of itself.
        node_dim: length of the node vectors; ``one_hot`` and a file have their own.
        node_seed: of random vectors.
        hidden_channels: of the graph.
        backbone: ``narrow``, a :class:`MultiTaskTrunk`, or a classifier of torchvision by its name
            (:class:`TorchvisionTrunk`), which is one trunk for all tasks.
        pretrained: start torchvision's backbone from its default weights. A network says ``false`` once it has them.
        image_size: side of the faces in pixels; for a narrow trunk of S stages a multiple of 2^(S + 1).
        image_channels: 1 for gray, 3 for RGB.
        stem_channels, stage_channels, shared_stages, sharing, sharing_options, one_unit, norm, stem_kind, pool_first:
            as in :class:`MultiTaskTrunk`.
        dropout: in front of the classifiers.
        origin: written by the network: the names of the word-vector file and of the weights that it started from.

    Raises:
        InputError: if an argument does not suit, or word vectors or weights cannot be had.
    """

    SIZES = EMOTION_GCN_SIZES

    @register_to_config
    def __init__(
        self,
        classes: Sequence[str],
        *,
        tasks: Sequence[str] = GRAPH_TASKS,
        head: Literal["gcn", "linear"] = "gcn",
        pooling: Literal["max", "average"] = "max",
        adjacency: Sequence[Sequence[float]] | Literal["identity"] = "identity",
        node_vectors: str = "learned",
        node_dim: int = 300,
        node_seed: int = 0,
        hidden_channels: int = 512,
        backbone: str = "narrow",
        pretrained: bool = False,
        image_size: int = 48,
        image_channels: int = 1,
        stem_channels: int = 16,
        stage_channels: Sequence[int] = (32, 64, 96),
        shared_stages: int = 0,
        sharing: str = "hard",
        sharing_options: dict | None = None,
        one_unit: bool = False,
        norm: str = "batch",
        stem_kind: str = "unshuffle",
        pool_first: bool = True,
        dropout: float = 0.0,
        origin: dict[str, str] | None = None,
    ):
        super().__init__()
        tasks = checked_tasks(tasks)
        for name, value, known in (("head", head, ("gcn", "linear")), ("pooling", pooling, ("max", "average"))):
            if value not in known:
                raise InputError(f"{name} is {value!r}: use {' or '.join(known)}")
        origin = dict(origin or {})
        if backbone == "narrow":
            if pretrained:
                raise InputError("pretrained: there are no weights for the narrow backbone; name one of torchvision")
            self.trunk: MultiTaskTrunk | TorchvisionTrunk = self.build_trunk()
            channels, map_size = stage_channels[-1], self.map_size()
        else:
            if sharing != "hard":
                raise InputError(
                    f"backbone {backbone!r} is one trunk for all tasks: sharing must be hard, not {sharing}"
                )
            trunk = TorchvisionTrunk(backbone, tasks=len(tasks), image_size=image_size, pretrained=pretrained)
            self.trunk, channels, map_size = trunk, trunk.channels, trunk.map_size
            if trunk.weights is not None:
                origin["weights"] = trunk.weights
        self.heads = self.build_heads([task for task in tasks if task not in GRAPH_TASKS], channels, map_size)
        count = len(classes) + len(AFFECT)
        if head == "linear":
            outputs = {"expression": len(classes), "valence_arousal": len(AFFECT)}
            self.linear = nn.ModuleDict({t: Float32Linear(channels, outputs[t]) for t in tasks if t in GRAPH_TASKS})
        else:
            nodes = _node_vectors(node_vectors, classes, node_dim, node_seed)
            if node_vectors not in _KINDS:
                origin["word_vectors"] = Path(node_vectors).name
                self.register_to_config(node_vectors="stored", node_dim=nodes.shape[1])
            self.graph = EmotionGraph(
                nodes,
                _matrix(adjacency, count),
                trained=node_vectors == "learned",
                hidden_channels=hidden_channels,
                features=channels,
            )
        # Who loads the network has the weights from its file, and needs neither a download nor word vectors.
        self.register_to_config(pretrained=False, origin=origin or None)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name for faces (B, C, H, W) in [-1, 1]."""
        outputs, features = self.read(images)
        classes = len(self.classes)
        rows = {"expression": slice(0, classes), "valence_arousal": slice(classes, None)}
        weights = self.graph() if self.config.head == "gcn" else None
        for task in self.tasks:
            if task in rows:
                x = F.dropout(self.pool(features[task]), self.config.dropout, self.training)
                with torch.autocast(x.device.type, enabled=False):
                    outputs[task] = self.linear[task](x) if weights is None else x @ weights[rows[task]].T
        return outputs

    def pool(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C) in float32."""
        return (features.amax((2, 3)) if self.config.pooling == "max" else features.mean((2, 3))).float()

    def recognition_parameters(self) -> int:
        """How many parameters take part in recognition; of the graph all, since every classifier is made of them."""
        if "expression" not in self.tasks:
            return 0
        classifier = self.graph if self.config.head == "gcn" else self.linear["expression"]
        trunk = self.trunk.parameters_of(self.tasks.index("expression"))
        return sum(p.numel() for p in (*trunk, *classifier.parameters()))


_KINDS = ("learned", "one_hot", "random", "stored")


def _node_vectors(kind: str, classes: Sequence[str], dim: int, seed: int) -> Tensor:
    count = len(classes) + len(AFFECT)
    if kind == "one_hot":
        return torch.eye(count)
    if kind == "stored":
        return torch.zeros(count, dim)
    if kind in ("learned", "random"):
        # About as spread as the numbers of GloVe's vectors, for which the widths of the layers were chosen.
        generator = torch.Generator().manual_seed(seed) if kind == "random" else None
        return 0.35 * torch.randn(count, dim, generator=generator)
    if not Path(kind).is_file():
        raise InputError(f"node_vectors is {kind!r}: neither a file of word vectors nor one of {', '.join(_KINDS)}")
    return read_word_vectors(kind, classes)


def _matrix(adjacency: Sequence[Sequence[float]] | str, count: int) -> Tensor:
    if adjacency == "identity":
        return torch.eye(count)
    if isinstance(adjacency, str) or len(adjacency) != count or any(len(row) != count for row in adjacency):
        raise InputError(f"adjacency: give identity, or {count} rows of {count} numbers, one for each emotion")
    return torch.tensor([list(row) for row in adjacency])
