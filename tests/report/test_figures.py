import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS
from synthmtl.report import (
    class_counts_figure,
    confusion_figure,
    contact_sheet,
    curves_figure,
    draw_gate_figures,
    draw_report_figures,
    methods_figure,
    per_class_figure,
)

HEADS = ["source", *EXPRESSIONS]


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def colors(path) -> set[tuple[int, int, int]]:
    return set(map(tuple, pixels(path).reshape(-1, 3).tolist()))


def rgb(color: str) -> tuple[int, int, int]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def find(page: np.ndarray, block: np.ndarray) -> int:
    """How often ``block`` occurs in ``page``, both (H, W)."""
    windows = np.lib.stride_tricks.sliding_window_view(page, block.shape)
    return int((windows == block).all((2, 3)).sum())


def test_faces_stand_in_the_sheet_pixel_by_pixel(faces, tmp_path):
    path = contact_sheet(faces, ["a", "b", "c"], HEADS, tmp_path / "sheet.png", 2, lead_columns=1)
    page = pixels(path)[..., 0]
    for row, column in ((0, 0), (0, 8), (2, 4)):
        crisp = faces[row, column, 0].repeat(2, 0).repeat(2, 1)
        top_left = crisp[:24, :24]  # a corner is enough to be found once only
        assert find(page, top_left) == 1


def test_rgb_tensors_keep_their_channels_and_scale_follows_from_the_width(tmp_path):
    images = torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)
    images[0, 0, 0], images[0, 1, 2] = 255, 255
    path = contact_sheet(images, None, None, tmp_path / "sheet.png")
    assert {(255, 0, 0), (0, 0, 255), (255, 255, 255)} == colors(path)
    page = pixels(path)
    assert (page == (255, 0, 0)).all(-1).sum() == (32 * 4) ** 2  # the largest scale


def test_heads_take_room_and_turn_upright_where_the_column_is_narrow(faces, tmp_path):
    bare = pixels(contact_sheet(faces, None, None, tmp_path / "bare.png", 2))
    flat = pixels(contact_sheet(faces, None, HEADS, tmp_path / "flat.png", 2))
    assert flat.shape[0] == bare.shape[0] + 20
    assert (flat[:26] < 128).any()
    small, upright = (
        pixels(contact_sheet(faces, None, heads, tmp_path / f"{heads is None}.png", 1)) for heads in (None, HEADS)
    )
    assert upright.shape[0] > small.shape[0] + 40
    assert (upright[: upright.shape[0] - small.shape[0]] < 128).any()


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((2, 2, 1, 8, 8)), None, None),
        (np.zeros((2, 2, 2, 8, 8), np.uint8), None, None),
        (np.zeros((0, 2, 1, 8, 8), np.uint8), None, None),
        (np.zeros((2, 2, 1, 8, 8), np.uint8), ["one"], None),
        (np.zeros((2, 2, 1, 8, 8), np.uint8), None, ["one", "two", "three"]),
    ],
)
def test_a_sheet_that_cannot_be_is_refused(arguments, tmp_path):
    with pytest.raises(InputError):
        contact_sheet(*arguments, tmp_path / "sheet.png")


def test_every_figure_of_a_report_is_drawn_and_modest(report, tmp_path):
    drawn = draw_report_figures(report, tmp_path / "new" / "figures")
    assert set(drawn) == {
        "methods_macro_f1",
        "methods_minority_recall",
        "per_class",
        "class_counts",
        "confusion_plain",
        "confusion_gated_balanced",
    }
    for path in drawn.values():
        assert path.stat().st_size < 300_000
        assert pixels(path).std() > 10


def test_gates_of_a_report_are_drawn_where_there_are_any(report, tmp_path):
    drawn = draw_gate_figures(report, tmp_path)
    assert set(drawn) == {"gates", "gates_expressions"}
    assert all(pixels(path).std() > 10 and path.stat().st_size < 300_000 for path in drawn.values())
    further = report["gates"][0]["gates"][0] | {"direction": "2_to_0"}  # of a third task: in the report, in no figure
    report["gates"][0]["gates"].append(further)
    again = draw_gate_figures(report, tmp_path / "more")
    assert all(again[name].read_bytes() == path.read_bytes() for name, path in drawn.items())
    report["gates"] = []
    assert draw_gate_figures(report, tmp_path) == draw_gate_figures({}, tmp_path) == {}


def test_figures_are_the_same_every_time_and_leave_pyplot_alone(report, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, second = (methods_figure(report["methods"], "macro_f1", tmp_path / f"{i}.png") for i in (0, 1))
    assert first.read_bytes() == second.read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_added_and_left_out_faces_have_their_own_color(tmp_path):
    added = class_counts_figure({"neutral": 10, "anger": 2}, {"neutral": 10, "anger": 10}, tmp_path / "a.png")
    fewer = class_counts_figure({"neutral": 10, "anger": 2}, {"neutral": 2, "anger": 2}, tmp_path / "b.png")
    blue, pale = rgb("#0072B2"), rgb("#D9D9D9")
    share = [np.mean((pixels(path) == color).all(-1)) for path in (added, fewer) for color in (blue, pale)]
    assert share[0] > 0.05 > 0.01 > share[1]
    assert share[3] > 0.05


def test_a_confusion_is_dark_where_it_is_certain(tmp_path):
    certain = pixels(confusion_figure(np.eye(4, dtype=int) * 9, EXPRESSIONS[:4], tmp_path / "a.png"))
    vague = pixels(confusion_figure(np.ones((4, 4), dtype=int), EXPRESSIONS[:4], tmp_path / "b.png"))
    darkest = np.array(rgb("#08306b"))
    assert (np.abs(certain - darkest).sum(-1) < 6).mean() > 0.05
    assert (np.abs(vague - darkest).sum(-1) < 6).mean() == 0


def test_a_class_without_faces_is_no_reason_to_fail(report, tmp_path):
    for entry in report["methods"].values():
        entry["per_class_recall"]["contempt"] = None
    recall = {name: entry["per_class_recall"] for name, entry in report["methods"].items()}
    assert per_class_figure(recall, tmp_path / "a.png").exists()
    assert per_class_figure({"other": recall["plain"]}, tmp_path / "b.png").exists()
    confusion = np.zeros((8, 8), dtype=int)
    assert confusion_figure(confusion, EXPRESSIONS, tmp_path / "c.png").exists()


def test_curves_tell_training_from_validation(tmp_path):
    training = [{"step": s, "losses": {"total": 1 / (s + 1), "cycle": None}} for s in range(50)]
    validation = [{"step": s, "evaluation": {"macro_f1": s / 50}} for s in range(0, 50, 10)]
    blue, orange = rgb("#0072B2"), rgb("#E69F00")
    assert blue in colors(curves_figure(training, tmp_path / "a.png"))
    both = curves_figure(training + validation, tmp_path / "b.png")
    assert {blue, orange} <= colors(both)
    assert pixels(both).shape[1] > pixels(tmp_path / "a.png").shape[1]


@pytest.mark.parametrize("history", [[], [{"step": 3}], [{"step": 3, "losses": {"total": None}}]])
def test_a_history_without_numbers_is_refused(history, tmp_path):
    with pytest.raises(InputError, match="no curve"):
        curves_figure(history, tmp_path / "a.png")
