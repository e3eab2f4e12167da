import pytest
import torch
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.labels import TASKS
from synthmtl.models.heads import LandmarkHead, build_head, checked_tasks, read_prediction

SHAPES = {
    "expression": (5, 8), "compound": (5, 12), "action_units": (5, 22), "landmarks": (5, 68, 2),
    "valence_arousal": (5, 2),
}  # fmt: skip


def features():
    return torch.randn(5, 6, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task", TASKS)
def test_shapes_and_float32(task):
    torch.manual_seed(0)
    head = build_head(task, 6, map_size=3, classes=8, dropout=0.5).eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = head(features().bfloat16())
    assert output.shape == SHAPES[task] and output.dtype == torch.float32
    assert torch.equal(head(features()), head(features()))


def test_predictions_are_in_their_ranges():
    wide = 10 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    for task in ("expression", "compound"):
        torch.testing.assert_close(read_prediction(task, wide).sum(1), torch.ones(5))
    assert torch.equal(read_prediction("action_units", wide), wide.sigmoid())
    for task, low in (("landmarks", 0.0), ("valence_arousal", -1.0)):
        read = read_prediction(task, wide)
        assert (read.min(), read.max()) == (low, 1.0)
        inside = (wide > low) & (wide < 1)
        assert torch.equal(read[inside], wide[inside])


def test_landmark_head_reads_positions():
    torch.manual_seed(0)
    # One bright cell among nine: an average is the same wherever it is.
    cells = torch.arange(9)
    maps = F.one_hot(cells, 9).float().view(9, 1, 3, 3).expand(9, 4, 3, 3)
    target = (torch.stack([cells % 3, cells // 3], 1)[:, None] / 4 + 0.25).expand(9, 68, 2)
    head = LandmarkHead(4, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(head(maps), target).backward()
        optimizer.step()
    assert (head(maps) - target).abs().max() < 0.02


def test_landmarks_are_in_the_image_and_keep_their_precision_under_autocast():
    torch.manual_seed(0)
    head = LandmarkHead(6, 3)
    exact = head(features().bfloat16().float())
    assert exact.min() > 0 and exact.max() < 1
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(features().bfloat16()), exact, atol=1e-6, rtol=0)


def test_landmarks_are_computed_in_float32_with_weights_of_half_precision():
    torch.manual_seed(0)
    half = LandmarkHead(6, 3).bfloat16()
    exact = LandmarkHead(6, 3)
    exact.load_state_dict(half.state_dict())
    found = half(features().bfloat16())
    assert found.dtype == torch.float32 and torch.equal(found, exact(features().bfloat16().float()))


def test_tasks_are_checked():
    assert checked_tasks(["landmarks", "expression"]) == ("landmarks", "expression")
    with pytest.raises(InputError, match="unknown task 'age': use some of expression, compound, "):
        checked_tasks(["age"])
    with pytest.raises(InputError, match="synthesis is FERSNet's"):
        checked_tasks(["expression", "synthesis"])
    for tasks in ([], ["expression", "expression"]):
        with pytest.raises(InputError, match="name at least one, and none twice"):
            checked_tasks(tasks)
