import pytest

from synthmtl.data.readers.disfa import is_disfa, read_disfa
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS


def read(root, **options):
    return read_disfa(root, **{"image_size": 16, "channels": 1} | options)


def labels(subject, unit, intensities, sep="\n"):
    rows = [f"{frame},{value}" for frame, value in enumerate(intensities, 1)]
    return {f"ActionUnit_Labels/{subject}/{subject}_au{unit}.txt": sep.join(rows) + sep}


def test_units_are_joined_by_frame(lay_out):
    root = lay_out(
        labels("SN001", 1, [0, 1, 5], "\r\n")
        | labels("SN001", 12, [2, 3, 4])
        | labels("SN024", 26, [5])
        | {"Images/SN001/00001.png": 1, "Images/SN001/2.png": 2, "Images/SN001/frame_3.png": 3, "Images/SN024/1.jpg": 4}
    )
    assert is_disfa(root)
    table = read(root)["all"]
    assert [file.split("/")[-1] for file in table.files] == ["00001.png", "2.png", "frame_3.png", "1.jpg"]
    columns = {name: table.action_units[:, ACTION_UNITS.index(name)] for name in ("AU1", "AU12", "AU26")}
    assert columns["AU1"][:3].tolist() == pytest.approx([0, 0.2, 1]) and columns["AU1"][3].isnan()
    assert columns["AU12"][:3].tolist() == pytest.approx([0.4, 0.6, 0.8])
    assert columns["AU26"][3] == 1 and int((~table.action_units.isnan()).sum()) == 7
    assert table.subject.tolist() == [0, 0, 0, 1]
    assert [file.split("/")[-1] for file in read(root, every=2)["all"].files] == ["00001.png", "frame_3.png", "1.jpg"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("2,6", "'2,6' is no frame,intensity with 0 to 5"),
        ("2,-1", "'2,-1' is no frame,intensity"),
        ("2", "'2' is no frame,intensity"),
        ("two,1", "'two,1' is no frame,intensity"),
        ("9,1", "no image .*Images/SN001/00009.png"),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(lay_out, bad, message):
    files = {"ActionUnit_Labels/SN001/SN001_au4.txt": f"1,0\n{bad}\n3,2\n"}
    root = lay_out(files | {f"Images/SN001/0000{i}.png": i for i in (1, 2, 3)})
    with pytest.raises(InputError, match=f"SN001_au4.txt:2: {message}"):
        read(root)
    assert len(read(root, on_bad="skip")["all"]) == 2


def test_other_names_and_no_faces(lay_out):
    root = lay_out(labels("SN001", 1, [1]) | {"Images/SN001/1.png": 1, "ActionUnit_Labels/SN001/notes.txt": "1,1"})
    with pytest.raises(InputError, match="notes.txt: its name does not end in au1, au2"):
        read(root)
    assert len(read(root, on_bad="skip")["all"]) == 1
    with pytest.raises(InputError, match="no faces found: give the folder of ActionUnit_Labels"):
        read(root / "Images")
    with pytest.raises(InputError, match="every must be at least 1"):
        read(root, every=0)


def test_hidden_files_are_no_labels_and_no_frames(lay_out):
    files = labels("SN001", 1, [1, 2]) | {f"Images/SN001/{i}.png": i for i in (1, 2)}
    forks = {"ActionUnit_Labels/SN001/._SN001_au1.txt": b"\xff", "Images/SN001/.x2.png": b"fork"}
    assert len(read(lay_out(files | forks))["all"]) == 2
