"""Hard parameter sharing (Caruana, 1997): one trunk for all tasks."""

from collections.abc import Sequence

from torch import Tensor

from synthmtl.sharing.base import SharingUnit


class HardSharing(SharingUnit):
    """All tasks read the features of one trunk: the unit passes them on and has no parameters."""

    single_trunk = True

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return list(features)
