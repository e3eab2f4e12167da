"""What every multi-task network offers: outputs by task, predictions, sizes by name."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.blocks import in_precision_of
from synthmtl.models.encoder import check_dropout
from synthmtl.models.heads import build_head, read_prediction
from synthmtl.models.trunk import MultiTaskTrunk


class MultiTaskModel(ModelMixin, ConfigMixin):
    """Faces in, a dict by task out; the tasks are named by the columns of :class:`FaceBatch` that they predict.

    A subclass registers its arguments as its configuration and builds its ``trunk`` and ``heads`` by
    :meth:`build_trunk` and :meth:`build_heads`. Outputs are those of ``heads.build_head``, and ``penalty``, a scalar,
    if a sharing unit adds something to the loss.

    Attributes:
        SIZES: configurations by name. Their ``sharing_options`` are those of the leaky unit.
    """

    SIZES: ClassVar[dict[str, dict[str, Any]]] = {}

    @classmethod
    def sized(cls, size: str, **config) -> "MultiTaskModel":
        """A network of one of :attr:`SIZES`, ``config`` overriding it.

        Raises:
            InputError: if there is no such size.
        """
        default = signature(cls.__init__).parameters["sharing"].default
        return cls(**size_config(cls.SIZES, size, config, sharing=config.get("sharing", default)))

    @property
    def classes(self) -> tuple[str, ...]:
        """Expressions, in the order of the logits."""
        return tuple(self.config.classes)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the network predicts."""
        return tuple(self.config.tasks)

    def build_trunk(self) -> MultiTaskTrunk:
        """The trunk that the configuration asks for, a branch for each task."""
        config = self.config
        names = (
            "image_channels", "stem_channels", "stage_channels", "shared_stages", "sharing", "sharing_options",
            "one_unit", "norm", "stem_kind", "pool_first",
        )  # fmt: skip
        return MultiTaskTrunk(tasks=len(config.tasks), **{name: config[name] for name in names})

    def build_heads(self, tasks: Sequence[str], in_channels: int, map_size: int) -> nn.ModuleDict:
        """A head for each of ``tasks``.

        Raises:
            InputError: if the dropout does not suit; who builds other heads of it relies on that.
        """
        config = self.config
        check_dropout(config.dropout)
        options = {"classes": len(config.classes), "norm": config.norm, "dropout": config.dropout}
        return nn.ModuleDict({task: build_head(task, in_channels, map_size=map_size, **options) for task in tasks})

    def map_size(self) -> int:
        """Height = width of the trunk's features.

        Raises:
            InputError: if the stages do not divide the image, or leave a single pixel of it.
        """
        size, step = self.config.image_size, 2 ** (1 + len(self.config.stage_channels))
        if size % step or size < 2 * step:
            raise InputError(f"image_size {size} does not suit the network: use a multiple of {step} from {2 * step}")
        return size // step

    def read(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Outputs of ``heads`` for faces (B, C, H, W) in [-1, 1], and the features (B, C, h, w) of every task."""
        features, penalty = self.trunk(in_precision_of(self.trunk, images))
        features = dict(zip(self.tasks, features, strict=True))
        outputs = {task: head(features[task]) for task, head in self.heads.items()}
        return outputs if penalty is None else outputs | {"penalty": penalty}, features

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """What faces (B, C, H, W) in [-1, 1] show, by task, float32.

        ``expression`` (B, K) and ``compound`` (B, 12) probabilities, ``action_units`` (B, 22) intensities in [0, 1],
        ``landmarks`` (B, 68, 2) in [0, 1] of the image, ``valence_arousal`` (B, 2) in [-1, 1].
        """
        outputs = self(images)
        return {task: read_prediction(task, outputs[task]) for task in self.tasks}

    def recognize(self, images: Tensor) -> Tensor:
        """Probabilities (B, K) of the expressions of faces (B, C, H, W) in [-1, 1].

        Raises:
            InputError: if expression is none of the tasks.
        """
        if "expression" not in self.tasks:
            raise InputError(f"{type(self).__name__} predicts {', '.join(self.tasks)} and no expression")
        return self.predict(images)["expression"]

    def recognition_parameters(self) -> int:
        """How many parameters take part in recognition; 0 if expression is none of the tasks."""
        if "expression" not in self.tasks:
            return 0
        trunk = self.trunk.parameters_of(self.tasks.index("expression"))
        return sum(p.numel() for p in (*trunk, *self.heads["expression"].parameters()))


def size_config(sizes: dict[str, dict[str, Any]], size: str, config: dict[str, Any], *, sharing: str) -> dict[str, Any]:
    """Arguments of a network of one of ``sizes``, ``config`` overriding them.

    The size's ``sharing_options`` go to the leaky unit and its ablations only, and stay where ``config`` has others.

    Raises:
        InputError: if there is no such size.
    """
    if size not in sizes:
        raise InputError(f"unknown model size {size!r}: use one of {', '.join(sizes)}")
    base = sizes[size]
    options = base.get("sharing_options", {}) if sharing.startswith("leaky") else {}
    return base | config | {"sharing_options": options | (config.get("sharing_options") or {})}
