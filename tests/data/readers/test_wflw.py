import numpy as np
import pytest

from synthmtl.data.readers.wflw import WFLW_TO_68, is_wflw, read_wflw
from synthmtl.errors import InputError

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_"


def read(root, **options):
    return read_wflw(root, **{"image_size": 16, "channels": 1} | options)


def marks98(low=8.0, high=24.0):
    steps = np.linspace(low, high, 98)
    return np.stack([steps, np.roll(steps, 30)], 1)


def line(points, name):
    numbers = " ".join(f"{value:.6f}" for value in points.ravel())
    return f"{numbers} 8 8 24 24 0 1 0 0 1 0 {name}"


def test_lists(lay_out):
    marks = marks98()
    rows = [line(marks, "0--Parade/a b.png"), line(marks + 1, "0--Parade/a b.png"), ""]
    root = lay_out(
        {
            f"{LISTS}train.txt": "\r\n".join(rows),
            f"{LISTS}test.txt": line(marks, "1--Handshaking/c.png"),
            "WFLW_images/0--Parade/a b.png": 1,
            "WFLW_images/1--Handshaking/c.png": 2,
        }
    )
    assert is_wflw(root) and not is_wflw(root / "WFLW_images")
    tables = read(root)
    assert {name: len(table) for name, table in tables.items()} == {"train": 2, "test": 1}
    chosen = marks[list(WFLW_TO_68)]
    center, side = (chosen.min(0) + chosen.max(0)) / 2, 1.5 * np.ptp(chosen, axis=0).max()
    np.testing.assert_allclose(tables["test"].landmarks[0], (chosen - center) / side + 0.5, atol=1e-5)
    assert (tables["train"].images[0] != tables["train"].images[1]).any()


def test_the_map_keeps_order_and_symmetry():
    """Mirrored pairs of the 68 are mirrored pairs of the 98, part by part."""
    assert len(set(WFLW_TO_68)) == 68 and set(WFLW_TO_68) <= set(range(96))

    def pairs(*parts):
        return {a: b for left, right in parts for a, b in zip(left, right, strict=True)}

    def both(half):
        return half | {b: a for a, b in half.items()}

    of68 = both(
        pairs(
            (range(9), range(16, 7, -1)), (range(17, 22), range(26, 21, -1)), (range(27, 31), range(27, 31)),
            (range(31, 34), range(35, 32, -1)), ([36, 37, 38, 39, 40, 41], [45, 44, 43, 42, 47, 46]),
            (range(48, 52), range(54, 50, -1)), ([59, 58, 57], [55, 56, 57]),
            ([60, 61, 62], [64, 63, 62]), ([67, 66], [65, 66]),
        )
    )  # fmt: skip
    of98 = both(
        pairs(
            (range(17), range(32, 15, -1)), (range(33, 38), range(46, 41, -1)), (range(51, 55), range(51, 55)),
            (range(55, 58), range(59, 56, -1)), ([60, 61, 62, 63, 64, 65, 66, 67], [72, 71, 70, 69, 68, 75, 74, 73]),
            (range(76, 80), range(82, 78, -1)), ([87, 86, 85], [83, 84, 85]),
            ([88, 89, 90], [92, 91, 90]), ([95, 94], [93, 94]),
        )
    )  # fmt: skip
    assert sorted(of68) == list(range(68))
    for point, mirrored in of68.items():
        assert of98[WFLW_TO_68[point]] == WFLW_TO_68[mirrored]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line(marks98()[:97], "b.png"), "205 cells where 98 points"),
        (line(marks98(), "b.png").replace("8.000000", "x", 1), "no numbers where 98 points"),
        (line(marks98(), "../b.png"), "'../b.png' is no path below the data folder"),
        (line(marks98(), "missing.png"), "no image .*missing.png"),
        (line(marks98() + 900, "b.png"), None),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(lay_out, bad, message):
    rows = [line(marks98(), "a.png"), bad]
    root = lay_out({f"{LISTS}train.txt": "\n".join(rows), "WFLW_images/a.png": 1, "WFLW_images/b.png": 2})
    match = f"train.txt:2: {message}" if message else "b.png: the face's box .* does not suit"
    with pytest.raises(InputError, match=match):
        read(root)
    assert len(read(root, on_bad="skip")["train"]) == 1
