"""Residual multi-task learning: landmarks and expression, each taking from the other what it lacks. A reconstruction.

Chen, Guan, Li, Ikeda, Hirasawa, Lu: Residual multi-task learning for facial landmark localization and expression
recognition. Pattern Recognition 115 (2021) 107893.

Known from the abstract: one network predicts landmarks and expression, a residual learning module lets each task take
complementary information from the other, and association learning ties the two so that data sets with a single kind
of label train both. No equation, layer or size is public. What is here is a reconstruction: the shape of the network,
the residual module (``sharing.residual``), the predictors of the association, and every number.
"""

from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.blocks import in_precision_of
from synthmtl.models.heads import LANDMARKS, LandmarkHead, checked_tasks
from synthmtl.models.multitask import MultiTaskModel

RESIDUAL_MTL_SIZES = {
    "published": {
        "image_size": 224,
        "image_channels": 3,
        "stem_channels": 64,
        "stage_channels": (64, 128, 256, 512),
        "shared_stages": 2,
        "stem_kind": "pool",
        "pool_first": False,
    },
    "cpu": {
        "image_size": 48,
        "stem_channels": 16,
        "stage_channels": (32, 64, 96),
        "shared_stages": 1,
        "stem_kind": "unshuffle",
        "pool_first": True,
        "sharing_options": {"gate_bias": -2.0},
    },
    "tiny": {
        "image_size": 32,
        "stem_channels": 8,
        "stage_channels": (8, 16, 16),
        "shared_stages": 1,
        "stem_kind": "unshuffle",
        "pool_first": True,
        "sharing_options": {"gate_bias": -2.0},
    },
}
"""Configurations by name: ``published`` (the paper's sizes are not public: 224 px, 64-512 channels are our choice),
``cpu`` (48 px, narrow), ``tiny`` (32 px, for trials)."""


class LandmarksToExpression(nn.Module):
    """The landmark route's view of the expression: landmarks (B, 68, 2) → logits (B, K) in float32.

        s = (l - mean l) / sqrt(mean |l - mean l|² + 1e-4),        logits = V relu(U s + a) + b

    What is left of the points is their shape, without the face's place and size.
    """

    def __init__(self, classes: int, hidden: int = 64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * LANDMARKS, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes))

    def forward(self, landmarks: Tensor) -> Tensor:
        centered = landmarks - landmarks.mean(1, keepdim=True)
        # Points that are still all in one place must not be blown up to a shape.
        size = (centered.square().sum(2).mean(1) + 1e-4).sqrt()
        shape = (centered / size[:, None, None]).flatten(1)
        return self.layers(in_precision_of(self.layers, shape)).float()


class ExpressionToLandmarks(nn.Module):
    """The expression route's view of the landmarks: features (B, C, h, w), logits (B, K) → (B, 68, 2) in float32.

        l = head(features) + sum_k softmax(logits)_k d_k

    The head (:class:`LandmarkHead`) reads from the expression branch's features where the face is and whose; d_k (68,
    2), zero at the start, is how far expression k moves each point. Landmarks so teach both the expression's features
    and its classifier.
    """

    def __init__(self, in_channels: int, map_size: int, classes: int):
        super().__init__()
        self.head = LandmarkHead(in_channels, map_size)
        self.moves = nn.Linear(classes, 2 * LANDMARKS, bias=False)
        nn.init.zeros_(self.moves.weight)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        moved = self.moves(in_precision_of(self.moves, logits.softmax(1))).float()
        return self.head(features) + rearrange(moved, "b (point xy) -> b point xy", xy=2)


class ResidualMTL(MultiTaskModel):
    """Stem and first stages in common, then a branch per task with residual modules both ways after each stage.

    ``forward(images)`` → outputs by task (``heads.build_head``), ``penalty`` if the sharing units have one, and with an
    association ``associated_expression`` (B, K), logits read from the predicted landmarks, and
    ``associated_landmarks`` (B, 68, 2), read from the expression branch. Gradients pass: the loss stops those that
    should not. Controls: ``sharing="none"`` is without residual modules, ``association=False`` without association.

    Args:
        classes: expressions, in canonical order.
        tasks: of ``labels.TASKS``, a branch for each.
        image_size: side of the faces in pixels; with S stages a multiple of 2^(S + 1).
        image_channels: 1 for gray, 3 for RGB.
        stem_channels, stage_channels, shared_stages, sharing, sharing_options, one_unit, norm, stem_kind, pool_first:
            as in :class:`MultiTaskTrunk`.
        association: predictors between expression and landmarks.
        dropout: in front of the linear classifiers.

    Raises:
        InputError: if there is an association, and expression or landmarks is none of the tasks; or if a size, task or
            sharing unit does not suit.
    """

    SIZES = RESIDUAL_MTL_SIZES

    @register_to_config
    def __init__(
        self,
        classes: Sequence[str],
        *,
        tasks: Sequence[str] = ("expression", "landmarks"),
        image_size: int = 48,
        image_channels: int = 1,
        stem_channels: int = 16,
        stage_channels: Sequence[int] = (32, 64, 96),
        shared_stages: int = 1,
        sharing: str = "residual",
        sharing_options: dict | None = None,
        one_unit: bool = False,
        association: bool = True,
        norm: str = "batch",
        stem_kind: str = "unshuffle",
        pool_first: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        tasks = checked_tasks(tasks)
        if association and not {"expression", "landmarks"} <= set(tasks):
            raise InputError(
                f"association ties expression and landmarks, but the tasks are {', '.join(tasks)}: "
                "add the task that is missing, or turn association off"
            )
        self.trunk = self.build_trunk()
        self.heads = self.build_heads(tasks, stage_channels[-1], self.map_size())
        if association:
            self.landmarks_to_expression = LandmarksToExpression(len(classes))
            self.expression_to_landmarks = ExpressionToLandmarks(stage_channels[-1], self.map_size(), len(classes))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name for faces (B, C, H, W) in [-1, 1]."""
        outputs, features = self.read(images)
        if self.config.association:
            outputs["associated_expression"] = self.landmarks_to_expression(outputs["landmarks"])
            outputs["associated_landmarks"] = self.expression_to_landmarks(
                features["expression"], outputs["expression"]
            )
        return outputs
