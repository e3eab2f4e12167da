"""What reads a task's prediction from its features."""

from einops import rearrange
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, COMPOUND_EXPRESSIONS, TASKS
from synthmtl.models.blocks import Float32Linear
from synthmtl.models.encoder import ExpressionHead

LANDMARKS = 68


class LandmarkHead(nn.Module):
    """Linear in every position of the map: (B, C, h, w) → (B, 68, 2) in float32, in [0, 1] of the image.

        l = sigmoid(W vec(x) + b)

    The map is not pooled, since its cells say where things are. This runs in float32: bfloat16 would round coordinates
    to a fifth of a pixel of a 48 px face.
    """

    def __init__(self, in_channels: int, map_size: int):
        super().__init__()
        self.linear = Float32Linear(in_channels * map_size**2, 2 * LANDMARKS)

    def forward(self, features: Tensor) -> Tensor:
        return rearrange(self.linear(features.flatten(1)).sigmoid(), "b (point xy) -> b point xy", xy=2)


def build_head(
    task: str, in_channels: int, *, map_size: int, classes: int, norm: str = "batch", dropout: float = 0.0
) -> nn.Module:
    """A head that makes of features (B, in_channels, map_size, map_size) what its task predicts, in float32.

    ``expression`` and ``compound``: logits (B, K) and (B, 12); ``action_units``: logits (B, 22), whose sigmoid is the
    intensity; ``landmarks`` (B, 68, 2); ``valence_arousal`` (B, 2). All but landmarks are an :class:`ExpressionHead`.

    Args:
        task: one of ``labels.TASKS``.
        in_channels: of the features.
        map_size: height = width of the features.
        classes: K.
        norm, dropout: as in :class:`ExpressionHead`.
    """
    if task == "landmarks":
        return LandmarkHead(in_channels, map_size)
    outputs = {
        "expression": classes,
        "compound": len(COMPOUND_EXPRESSIONS),
        "action_units": len(ACTION_UNITS),
        "valence_arousal": 2,
    }
    return ExpressionHead(in_channels, outputs[task], norm, dropout)


def read_prediction(task: str, output: Tensor) -> Tensor:
    """What a head's output says: probabilities, intensities, coordinates in [0, 1], or values in [-1, 1]."""
    if task in ("expression", "compound"):
        return output.softmax(1)
    if task == "action_units":
        return output.sigmoid()
    return output.clamp(0, 1) if task == "landmarks" else output.clamp(-1, 1)


def checked_tasks(tasks) -> tuple[str, ...]:
    """``tasks``, if each is one of ``labels.TASKS`` and none comes twice.

    Raises:
        InputError: if not.
    """
    for task in tasks:
        if task not in TASKS:
            hint = "; synthesis is FERSNet's" if task == "synthesis" else ""
            raise InputError(f"unknown task {task!r}: use some of {', '.join(TASKS)}{hint}")
    if not tasks or len(set(tasks)) != len(tasks):
        raise InputError(f"tasks are {list(tasks)}: name at least one, and none twice")
    return tuple(tasks)
