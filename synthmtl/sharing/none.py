"""No sharing: the single-task control."""

from collections.abc import Sequence

from torch import Tensor

from synthmtl.sharing.base import SharingUnit


class NoSharing(SharingUnit):
    """Every task keeps its own features: out = in. No parameters."""

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return list(features)
