import logging

import numpy as np
import pytest

from synthmtl.data.readers.affwild2 import is_affwild2, read_affwild2
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS

EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
SETS = {"EXPR": "EXPR_Classification", "VA": "VA_Estimation", "AU": "AU_Detection"}


def read(root, **options):
    return read_affwild2(root, **{"image_size": 16, "channels": 1} | options)


def annotation(task, video, rows, split="Train", sep="\n"):
    header = {"EXPR": EXPR, "VA": "valence,arousal", "AU": ",".join(UNITS)}[task]
    return {f"annotations/{SETS[task]}_Set/{split}_Set/{video}.txt": sep.join([header, *map(str, rows)]) + sep}


def pictures(video, frames):
    return {f"cropped_aligned/{video}/{frame:05d}.jpg": 100 * ord(video[0]) + frame for frame in frames}


def test_codes_in_the_publishers_order(lay_out):
    root = lay_out(annotation("EXPR", "1-30", range(8), sep="\r\n") | pictures("1-30", range(1, 9)))
    assert is_affwild2(root)
    train = read(root)["train"]
    names = [train.classes[i] for i in train.expression.tolist()]
    assert names == ["neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise"]
    assert train.files[6].endswith("cropped_aligned/1-30/00007.jpg")


def test_tasks_are_joined_by_frame(lay_out):
    present = [1, 0, -1] + [0] * 8 + [1]
    root = lay_out(
        annotation("EXPR", "a", [4, -1, 7, -1])
        | annotation("VA", "a", ["0.5,-0.5", "-5,0.1", "-5,-5", "-5,-5"])
        | annotation("AU", "a", [",".join(map(str, present)), *[",".join(["-1"] * 12)] * 3])
        | annotation("VA", "b", ["0,0"])
        | pictures("a", [1, 2, 3, 4])
        | pictures("b", [1])
    )
    train = read(root)["train"]
    assert len(train) == 3  # frames 3 and 4 carry nothing
    assert train.classes == ("happiness",) and train.expression.tolist() == [0, -1, -1]
    np.testing.assert_allclose(train.valence_arousal, [[0.5, -0.5], [np.nan, 0.1], [0, 0]], atol=1e-6)
    units = train.action_units[0]
    assert units[ACTION_UNITS.index("AU1")] == 1 and units[ACTION_UNITS.index("AU2")] == 0
    assert units[ACTION_UNITS.index("AU4")].isnan() and units[ACTION_UNITS.index("AU26")] == 1
    assert int((~units.isnan()).sum()) == 10  # of twelve, AU4 is missing and AU23 not known
    assert train.action_units[1:].isnan().all()
    assert train.subject.tolist() == [0, 0, 1]


def test_a_video_in_two_splits_is_held_out(lay_out, caplog):
    root = lay_out(
        annotation("EXPR", "a", [1, 2])
        | annotation("VA", "a", ["0,0", "0,0"], "Validation")
        | annotation("EXPR", "b", [1, 2])
        | pictures("a", [1, 2])
        | pictures("b", [1, 2])
    )
    with caplog.at_level(logging.INFO, "synthmtl"):
        tables = read(root)
    assert "1 videos in train of one task and validation of another" in caplog.text
    assert {name: {f.split("/")[-2] for f in table.files} for name, table in tables.items()} == {
        "train": {"b"},
        "validation": {"a"},
    }
    assert (tables["validation"].expression >= 0).all() and not tables["validation"].valence_arousal.isnan().any()


def test_every_nth_frame_and_frames_without_a_face(lay_out, caplog):
    root = lay_out(annotation("EXPR", "a", [0, 1] * 5) | pictures("a", [1, 2, 4, 7, 10]))
    with caplog.at_level(logging.INFO, "synthmtl"):
        assert len(read(root)["train"]) == 5
    assert "left out 5 labels of frames without a picture" in caplog.text
    assert [file[-6:-4] for file in read(root, every=3)["train"].files] == ["01", "04", "07", "10"]
    with pytest.raises(InputError, match="every must be at least 1"):
        read(root, every=0)


@pytest.mark.parametrize(
    ("task", "bad", "message"),
    [
        ("EXPR", "8", "expression is '8': use a code from -1 to 7"),
        ("EXPR", "Happy", "expression is 'Happy'"),
        ("VA", "0.5", "'0.5' is no valence,arousal"),
        ("VA", "1.5,0", "'1.5,0' is no valence,arousal"),
        ("VA", "-4,0", "'-4,0' is no valence,arousal"),
        ("AU", "1,0", "'1,0' is no row of 12 action units"),
        ("AU", ",".join(["2"] * 12), "is no row of 12 action units, each 0, 1 or -1"),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(lay_out, task, bad, message):
    good = {"EXPR": "0", "VA": "0,0", "AU": ",".join(["0"] * 12)}[task]
    root = lay_out(annotation(task, "a", [good, bad, good]) | pictures("a", [1, 2, 3]))
    with pytest.raises(InputError, match=f"a.txt:3: .*{message}"):
        read(root)
    assert len(read(root, on_bad="skip")["train"]) == 2


def test_headers_and_videos_that_do_not_fit(lay_out):
    root = lay_out(annotation("EXPR", "a", [0]) | pictures("a", [1]) | annotation("EXPR", "b", [0]))
    with pytest.raises(InputError, match="b.txt: no images in .*cropped_aligned/b"):
        read(root)
    assert len(read(root, on_bad="skip")["train"]) == 1
    for text in ("Anger,Neutral,Disgust,Fear,Happiness,Sadness,Surprise\n0\n", "", "0\n1\n"):
        lay_out({f"annotations/{SETS['EXPR']}_Set/Train_Set/a.txt": text})
        with pytest.raises(InputError, match="a.txt:1: not the header of Aff-Wild2's EXPR labels"):
            read(root)


def test_hidden_files_are_no_annotations_and_no_frames(lay_out):
    files = annotation("VA", "a", ["0,0", "0.5,0.5"]) | pictures("a", [1, 2])
    forks = {"annotations/VA_Estimation_Set/Train_Set/._a.txt": b"\xff", "cropped_aligned/a/.x1.jpg": b"fork"}
    assert len(read(lay_out(files | forks))["train"]) == 2
