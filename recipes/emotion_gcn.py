r"""Expressions, valence and arousal through classifiers that a graph makes (Antoniadis et al., FG 2021, 2106.03487).

Does the graph help beyond max pooling? Every control is a variant, trained by the same seeds on the same faces:

    emotion_gcn             graph of the training labels' correlations, aggregation by normalized rows
    published_adjacency     the matrix that the published code multiplies by (``models.gcn.emotion_adjacency``)
    identity_adjacency      no edges: each classifier from its own node
    random_nodes            node vectors drawn once and kept, so that they mean nothing
    linear_max              no graph: max pooling and a plain linear head
    linear_average          average pooling and a plain linear head, the usual baseline

    accelerate launch recipes/emotion_gcn.py --config recipes/configs/emotion_gcn_rendered_cpu.yaml --out runs/gcn

Further data: ``emotion_gcn_mixture.yaml`` and ``emotion_gcn_published.yaml`` (AffectNet, DenseNet-121).
``--model.sharing NAME`` gives expression and valence-arousal a branch each that share through any unit. On a machine
without GPU, several processes need ``accelerate launch --multi_gpu --num_processes 2``. ``--resume`` continues an
interrupted run; ``--preset smoke`` proves the installation. Scores and times: recipes/RESULTS.md.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.options import recipe_options, recipe_parser
from synthmtl.commands.systems import say_system
from synthmtl.data import FaceTable
from synthmtl.models import EmotionGCN, emotion_adjacency
from synthmtl.systems import System, SystemModel, SystemOptions, build_objective, run_system

VARIANTS = {
    "emotion_gcn": {},
    "published_adjacency": {"model.adjacency": "published"},
    "identity_adjacency": {"model.adjacency": "identity"},
    "random_nodes": {"model.node_vectors": "random"},
    "linear_max": {"model.head": "linear"},
    "linear_average": {"model.head": "linear", "model.pooling": "average"},
}


@dataclass
class Model(SystemModel):
    """The network.

    Attributes:
        head: ``gcn``, or ``linear``: no graph.
        pooling: ``max`` as published, or ``average``.
        adjacency: ``row``, ``published`` or ``identity``.
        threshold: smallest correlation of neighbors in the graph.
        node_vectors: ``learned``, ``one_hot``, ``random``, or a file of word vectors.
        backbone: ``narrow``, or a classifier of torchvision by name; null = that of the size.
        pretrained: start from torchvision's weights; null = as the size says.
    """

    FILES = ("node_vectors",)

    tasks: list[str] = field(default_factory=lambda: ["expression", "valence_arousal"])
    head: Literal["gcn", "linear"] = "gcn"
    pooling: Literal["max", "average"] = "max"
    adjacency: Literal["row", "published", "identity"] = "row"
    threshold: float = 0.1
    node_vectors: str = "learned"
    backbone: str | None = None
    pretrained: bool | None = None


@dataclass
class Options(SystemOptions):
    """The recipe's options.

    Attributes:
        model: the network.
    """

    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(VARIANTS))
    model: Model = field(default_factory=Model)


def build(options: Options, faces: FaceTable) -> System:
    """A row's network, its graph from the labels of the training faces, and what it minimizes."""
    chosen = options.model
    adjacency = "identity"
    if chosen.head == "gcn" and chosen.adjacency != "identity":
        adjacency = emotion_adjacency(
            faces.expression,
            faces.valence_arousal,
            faces.classes,
            threshold=chosen.threshold,
            normalization=chosen.adjacency,
        ).tolist()
    of_size = {"backbone": chosen.backbone, "pretrained": chosen.pretrained}
    model = EmotionGCN.sized(
        chosen.size,
        classes=faces.classes,
        **chosen.arguments(),
        head=chosen.head,
        pooling=chosen.pooling,
        adjacency=adjacency,
        node_vectors=chosen.node_vectors,
        image_size=options.image_size,
        image_channels=faces.channels,
        **{name: value for name, value in of_size.items() if value is not None},
    )
    return System(model, build_objective(model, options.losses, faces))


def main() -> None:
    """Options from the command line and ``--config``."""
    given = recipe_parser(Options, prog="emotion_gcn.py").parse_args()
    options = recipe_options(Options, given)
    results = run_system(
        options, build, Path(given.out), title="Emotion-GCN", resume=given.resume, overwrite=given.overwrite
    )  # fmt: skip
    say_system(results, given.out)


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
