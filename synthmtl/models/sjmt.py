"""Selective joint multi-task learning: expressions and action units from data that are labelled for some tasks only.

Pons, Masip: Multi-task, multi-label and multi-domain learning with residual convolutional networks for emotion
recognition. arXiv 1802.06664, IEEE Transactions on Cybernetics 52(6).

Known from the abstract and introduction: a residual network whose representation emotion recognition and facial action
units share; a loss over the tasks that a sample carries a label of (``losses.HeterogeneousLoss``); compound emotions.
The widths are a reconstruction. Single-task training, classical multi-task training (samples with all labels only) and
selective joint training are one network on other tasks and other samples.
"""

from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from synthmtl.models.heads import checked_tasks
from synthmtl.models.multitask import MultiTaskModel

SJMT_SIZES = {
    "published": {
        "image_size": 224,
        "image_channels": 3,
        "stem_channels": 64,
        "stage_channels": (64, 128, 256, 512),
        "stem_kind": "pool",
        "pool_first": False,
    },
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
        "stem_kind": "unshuffle",
        "pool_first": True,
        "sharing_options": {"gate_bias": -2.0},
    },
}
"""Configurations by name: ``published`` (224 px, the widths of an 18-layer residual network, our choice), ``cpu``
(48 px, narrow), ``tiny`` (32 px, for trials)."""


class SJMT(MultiTaskModel):
    """One residual trunk for all tasks, and a head for each.

    ``forward(images)`` → outputs by task (``heads.build_head``), and ``penalty`` if the sharing units have one. The
    paper's network has one trunk (``sharing="hard"``); any other unit gives every task a branch. Compound expressions
    come from a head (task ``compound``) or from a network without one by ``compound.read_out``.

    Args:
        classes: expressions, in canonical order.
        tasks: of ``labels.TASKS``, a head for each.
        image_size: side of the faces in pixels; with S stages a multiple of 2^(S + 1).
        image_channels: 1 for gray, 3 for RGB.
        stem_channels, stage_channels, shared_stages, sharing, sharing_options, one_unit, norm, stem_kind, pool_first:
            as in :class:`MultiTaskTrunk`.
        dropout: in front of the linear classifiers.

    Raises:
        InputError: if a size, task or sharing unit does not suit.
    """

    SIZES = SJMT_SIZES

    @register_to_config
    def __init__(
        self,
        classes: Sequence[str],
        *,
        tasks: Sequence[str] = ("expression", "action_units"),
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
    ):
        super().__init__()
        tasks = checked_tasks(tasks)
        self.trunk = self.build_trunk()
        self.heads = self.build_heads(tasks, stage_channels[-1], self.map_size())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by task for faces (B, C, H, W) in [-1, 1]."""
        return self.read(images)[0]
