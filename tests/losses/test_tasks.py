import torch

from synthmtl.data import FaceTable
from synthmtl.losses import task_losses, unit_prevalence


def faces():
    """Every grade of every action unit once."""
    grades = torch.arange(6.0)[:, None].expand(6, 22) / 5
    return FaceTable(images=torch.zeros(6, 1, 8, 8, dtype=torch.uint8), classes=("neutral",), action_units=grades)


def test_rare_units_are_weighed_by_how_often_they_are_active():
    def weights(**options):
        return task_losses(["action_units"], faces(), **options)["action_units"].positive_weights

    assert weights() is None and weights(unit_threshold=0.4) is None
    torch.testing.assert_close(weights(unit_weighted=True), torch.full((22,), 1.0))  # three of six grades
    for threshold in (0.2, 0.4, 0.8):
        share = unit_prevalence(faces().action_units, threshold)
        torch.testing.assert_close(weights(unit_weighted=True, unit_threshold=threshold), (1 - share) / share)
