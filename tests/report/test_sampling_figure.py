import numpy as np
import pytest
from PIL import Image

from synthmtl.report.sampling_figure import few_steps_figure


def rows(solver, kids, agreement):
    return [
        {"solver": solver, "evaluations": n, "kid": kid, "ci95": [kid - 0.005, kid + 0.005], "agreement": agreement}
        for n, kid in zip((1, 8, 50), kids, strict=True)
    ]


@pytest.mark.parametrize("best", [0.02, -0.001])  # an unbiased estimate may be below zero, which no logarithm shows
def test_each_solver_has_its_color_in_both_panels(tmp_path, best):
    both = rows("dpm", (0.5, 0.1, best), 0.4) + rows("ddim", (0.6, 0.3, 0.1), 0.7)
    image = np.asarray(Image.open(few_steps_figure(both, "inception", tmp_path / "few.png")).convert("RGB")).astype(int)
    half = image.shape[1] // 2
    for color in ((0, 0x72, 0xB2), (0xE6, 0x9F, 0)):
        near = (np.abs(image - color).max(2) < 12).nonzero()[1]
        assert (near < half).any() and (near > half).any()


def test_the_same_rows_make_the_same_file(tmp_path):
    first, again = (few_steps_figure(rows("dpm", (3, 2, 1), 0.5), "x", tmp_path / n) for n in ("a.png", "b.png"))
    assert first.read_bytes() == again.read_bytes()
