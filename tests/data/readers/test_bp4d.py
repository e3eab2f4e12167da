import numpy as np
import pytest

from synthmtl.data.readers.bp4d import is_bp4d, read_bp4d
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS


def read(root, **options):
    return read_bp4d(root, **{"image_size": 16, "channels": 1} | options)


def codes(*rows, units="1,2,3,12"):
    return "\n".join([f"0,{units}", *rows]) + "\n"


@pytest.mark.parametrize(
    ("labels", "images"), [("AUCoding", "BP4D-training"), ("AUCoding/AU_OCC", "2D+3D"), ("AU_OCC", ".")]
)
def test_codes_and_subjects(lay_out, labels, images):
    root = lay_out(
        {
            f"{labels}/F001_T1.csv": "\ufeff" + codes("2440,1,0,1,9", "2441,9,9,1,9").replace("\n", "\r\n"),
            f"{labels}/F001_T8.csv": codes("7,0,0,0,1"),
            f"{labels}/M002_T1.csv": codes("7,0,0,0,1"),
            f"{labels}/readme.csv": "nothing",
            f"{images}/F001/T1/2440.jpg": 1,
            f"{images}/F001/T8/0007.jpg": 2,
            f"{images}/M002/T1/007.jpg": 3,
        }
    )
    assert is_bp4d(root) and not is_bp4d(root / labels)
    table = read(root)["all"]
    assert len(table) == 3 and table.subject.tolist() == [0, 0, 1]  # 2441 has no known unit of ours
    columns = [ACTION_UNITS.index(name) for name in ("AU1", "AU2", "AU12")]
    np.testing.assert_array_equal(table.action_units[:, columns], [[1, 0, np.nan], [0, 0, 1], [0, 0, 1]])
    assert int((~table.action_units.isnan()).sum()) == 8


def test_every_nth_coded_frame(lay_out):
    files = {f"BP4D-training/F001/T1/{frame}.jpg": frame for frame in range(100, 107)}
    root = lay_out(files | {"AUCoding/F001_T1.csv": codes(*(f"{frame},1,0,0,0" for frame in range(100, 107)))})
    assert [file[-7:-4] for file in read(root, every=3)["all"].files] == ["100", "103", "106"]
    with pytest.raises(InputError, match="every must be at least 1"):
        read(root, every=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("2,1,0,0,5", "AU12 is '5': use 0, 1, or 9"),
        ("2,1,,0,0", "AU2 is ''"),
        ("two,1,0,0,0", "'two' is no number of a frame"),
        ("9,1,0,0,0", "no image .*BP4D-training/F001/T1/9.jpg"),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(lay_out, bad, message):
    files = {f"BP4D-training/F001/T1/{frame}.jpg": frame for frame in (1, 2, 3)}
    root = lay_out(files | {"AUCoding/F001_T1.csv": codes("1,0,0,0,0", bad, "3,0,0,0,0")})
    with pytest.raises(InputError, match=f"F001_T1.csv:3: {message}"):
        read(root)
    assert len(read(root, on_bad="skip")["all"]) == 2


def test_a_row_of_another_length_and_a_video_without_pictures(lay_out):
    root = lay_out({"AUCoding/F001_T1.csv": codes("1,0,0,0")})
    with pytest.raises(InputError, match="F001_T1.csv:2: 4 cells where the header has 5"):
        read(root)
    lay_out({"AUCoding/F001_T1.csv": codes("1,0,0,0,1")})
    with pytest.raises(InputError, match="F001_T1.csv:2: no image .*BP4D-training/F001/T1/1.jpg"):
        read(root)


def test_a_frame_has_one_row_and_hidden_files_have_none(lay_out):
    files = {"AUCoding/F001_T1.csv": "0,1\n1,1\n01,0\n2,0\n", "AUCoding/._F001_T1.csv": b"\xff"}
    root = lay_out(files | {f"BP4D-training/F001/T1/{name}.jpg": 1 for name in ("1", "2")})
    with pytest.raises(InputError, match="F001_T1.csv:3: BP4D-training/F001/T1/1.jpg has a row already .*:2"):
        read(root)
    assert len(read(root, on_bad="skip")["all"]) == 2
