"""One sharing unit for stages of different widths."""

from collections.abc import Sequence

from torch import Tensor, nn

from synthmtl.sharing.base import SharingUnit


class ProjectedExchange(nn.Module):
    """Lets a unit of another width exchange the features of a stage.

        x_i' = x_i + Q_i * (unit(P * x)_i - P_i * x_i)

    Only the change is projected back, so that a unit that shares nothing leaves the features as they are. Where the
    widths agree there are no projections. Parameters: 2 tasks C K for a stage of C and a unit of K ≠ C channels.

    Args:
        channels: C, of the stage.
        width: K, of the unit.
        tasks: number of tasks.
    """

    def __init__(self, channels: int, width: int, tasks: int = 2):
        super().__init__()
        count = 0 if channels == width else tasks
        self.to_unit = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for _ in range(count))
        self.to_stage = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=False) for _ in range(count))

    def forward(self, features: Sequence[Tensor], unit: SharingUnit) -> list[Tensor]:
        """What ``unit`` makes of ``features``, one (B, C, H, W) per task, in the same shapes."""
        if not self.to_unit:
            return unit(features)
        given = [project(x) for project, x in zip(self.to_unit, features, strict=True)]
        parts = zip(self.to_stage, features, unit(given), given, strict=True)
        return [x + project(after - before) for project, x, after, before in parts]
