import numpy as np
import pytest
import torch

from synthmtl.data.pairs import PairIndex
from synthmtl.data.readers.ckplus import is_ckplus, read_ckplus
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, CKPLUS_CODES


def read(root, **options):
    return read_ckplus(root, **{"image_size": 16, "channels": 1} | options)


def sequence(subject, number, emotion=None, frames=4, facs=None, landmarks=None, base="cohn-kanade-images"):
    stems = [f"{subject}_{number}_{i:08d}" for i in range(1, frames + 1)]
    files = {
        f"{base}/{subject}/{number}/{stem}.png": 100 * int(subject[1:]) + 10 * int(number) + i
        for i, stem in enumerate(stems)
    }
    if emotion is not None:
        files[f"Emotion/{subject}/{number}/{stems[-1]}_emotion.txt"] = f"   {float(emotion):.7e}\n"
    if facs is not None:
        rows = [f"   {float(unit):.7e}   {float(grade):.7e}" for unit, grade in facs]
        files[f"FACS/{subject}/{number}/{stems[-1]}_facs.txt"] = "\n".join(rows) + "\n"
    for stem, points in zip(stems, landmarks or [], strict=True) if landmarks else ():
        rows = [f"   {x:.7e}   {y:.7e}" for x, y in points]
        files[f"Landmarks/{subject}/{number}/{stem}_landmarks.txt"] = "\n".join(rows) + "\n"
    return files


def names(table):
    return [None if i < 0 else table.classes[i] for i in table.expression.tolist()]


def test_codes_in_the_publishers_order(lay_out):
    files = {}
    for code in CKPLUS_CODES:
        files |= sequence(f"S{code:03d}", "001", code)
    root = lay_out(files)
    assert is_ckplus(root)
    table = read(root)["all"]
    assert names(table)[1::2] == [
        "neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise",
    ]  # fmt: skip
    assert set(names(table)[::2]) == {"neutral"}
    assert table.files[1].endswith("S000_001_00000004.png") and table.files[0].endswith("00000001.png")


def test_neutral_and_peak_of_a_sequence_are_pairs(lay_out):
    root = lay_out(
        sequence("S005", "001", 5) | sequence("S005", "002", 7) | sequence("S010", "001", 5) | {".DS_Store": ""}
    )
    table = read(root)["all"]
    assert table.subject.tolist() == [0, 0, 0, 0, 1, 1] and table.session.tolist() == [0, 0, 1, 1, 2, 2]
    pairs = PairIndex(table)
    assert pairs.counts.tolist() == [1] * 6
    assert pairs.draw(pairs.rows, torch.zeros(6)).tolist() == [1, 0, 3, 2, 5, 4]


def test_landmarks_and_one_box_a_sequence(lay_out, points):
    low, high = points(8, 20), points(10, 24)
    root = lay_out(sequence("S005", "001", 5, frames=2, landmarks=[low, high]))
    table = read(root)["all"]
    for marks, own in zip(table.landmarks, (low, high), strict=True):
        np.testing.assert_allclose(marks, (own - 4) / 24, atol=1e-5)


def test_action_units_belong_to_the_last_frame(lay_out):
    facs = [(12, 3), (6, 0), (25, 5), (64, 2)]
    root = lay_out(sequence("S005", "001", None, facs=facs) | sequence("S005", "002", 5, frames=6))
    table = read(root, peaks=2)["all"]
    assert names(table) == ["neutral", None, "neutral", "happiness", "happiness"]
    units = table.action_units[1]
    known = {name: float(units[ACTION_UNITS.index(name)]) for name in ACTION_UNITS}
    assert {name: value for name, value in known.items() if value} == pytest.approx({"AU12": 0.6, "AU6": 1, "AU25": 1})
    assert table.action_units[[0, 2, 3, 4]].isnan().all()
    with pytest.raises(InputError, match="peaks must be at least 1"):
        read(root, peaks=0)


def test_folders_that_wrap_others(lay_out):
    files = sequence("S005", "001", 3, facs=[(9, 5)], base="extended-cohn-kanade-images/cohn-kanade-images")
    root = lay_out({name.replace("Emotion/", "Emotion_labels/Emotion/"): content for name, content in files.items()})
    assert is_ckplus(root) and names(read(root)["all"]) == ["neutral", "disgust"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "Emotion/S006/001/S006_001_00000004_emotion.txt",
            "   8.0\n",
            "emotion.txt:1: emotion is '8.0': use a code from 0",
        ),
        ("Emotion/S006/001/S006_001_00000004_emotion.txt", "happy", "emotion.txt:1: emotion is 'happy'"),
        ("FACS/S006/001/S006_001_00000004_facs.txt", "1 1\n2 9\n", "facs.txt:2: '2 9' is no action unit and intensity"),
        ("Landmarks/S006/001/S006_001_00000004_landmarks.txt", "1 2\n" * 67, "landmarks.txt: 67 points instead of 68"),
        ("Landmarks/S006/001/S006_001_00000004_landmarks.txt", "1 2\n3\n", "landmarks.txt:2: no point x y"),
        ("cohn-kanade-images/S006/001/S006_001_00000004.png", b"", "S006_001_00000004.png: the image file is empty"),
    ],
)
def test_a_bad_file_is_named_or_its_sequence_skipped(lay_out, name, text, message):
    root = lay_out(sequence("S005", "001", 1) | sequence("S006", "001", 1) | {name: text})
    with pytest.raises(InputError, match=message):
        read(root)
    assert 2 <= len(read(root, on_bad="skip")["all"]) <= 3


def test_no_sequences(lay_out):
    root = lay_out({"cohn-kanade-images/S005/001/notes.txt": "x"})
    with pytest.raises(InputError, match="no faces found: give the folder of cohn-kanade-images"):
        read(root)
