import logging

import numpy as np
import pytest
import torch

from synthmtl.data.readers.fer2013 import is_fer2013, read_fer2013
from synthmtl.errors import InputError

VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


@pytest.fixture
def write(tmp_path):
    """write(rows, name) → path of a FER2013 csv; a row is (code, pixels or None for a full picture, usage)."""

    def make(rows, name="fer2013.csv"):
        lines = ["emotion,pixels,Usage"]
        for i, (code, pixels, usage) in enumerate(rows):
            if pixels is None:
                pixels = " ".join(str((i + j) % 256) for j in range(48 * 48))
            lines.append(f"{code},{pixels},{usage}")
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return make


def read(file, **options):
    return read_fer2013(file, **{"image_size": 48, "channels": 1} | options)


def test_codes_usages_and_pixels(write):
    rows = [(i, None, "Training") for i in range(7)] + [(3, None, "PublicTest"), (0, None, "PrivateTest")]
    tables = read(write(rows))
    assert {name: len(table) for name, table in tables.items()} == {"train": 7, "validation": 1, "test": 1}
    train = tables["train"]
    names = [train.classes[i] for i in train.expression.tolist()]
    assert names == ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
    expected = (np.arange(48 * 48) + 2).reshape(48, 48) % 256
    assert train.images[2, 0].tolist() == expected.tolist()
    assert train.files[2].endswith("fer2013.csv:4")
    assert train.expression_distribution.isnan().all()


def test_size_channels_and_classes(write):
    file = write([(0, None, "Training"), (3, None, "Training"), (6, None, "Training")])
    train = read(file, image_size=32, channels=3, classes=("anger", "happiness"))["train"]
    assert train.images.shape == (2, 3, 32, 32) and train.classes == ("happiness", "anger")
    assert torch.equal(train.images[:, 0], train.images[:, 2])


def test_ferplus_votes_stay_with_their_rows(write, tmp_path):
    file = write([(0, None, "Training"), (9, None, "Training"), (3, None, "Training"), (3, None, "PublicTest")])
    votes = ["Training,fer0.png,0,0,0,0,6,0,2,2,0,0", "Training,,0,0,0,0,0,0,0,0,0,10"]
    votes += ["Training,fer2.png,0,9,0,0,1,0,0,0,0,0", "PublicTest,fer3.png,0,0,0,0,0,0,0,0,10,0"]
    (tmp_path / "votes.csv").write_text("\n".join([VOTES, *votes]))
    tables = read(file, ferplus=tmp_path / "votes.csv", on_bad="skip")
    train = tables["train"]
    assert train.classes == ("happiness", "anger")
    torch.testing.assert_close(train.expression_distribution, torch.tensor([[0.0, 1.0], [0.9, 0.1]]))
    assert tables["validation"].expression_distribution.isnan().all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((7, None, "Training"), "emotion is '7': use a code from 0 to 6"),
        (("happy", None, "Training"), "emotion is 'happy'"),
        ((0, None, "Later"), "Usage is 'Later'"),
        ((0, "1 2 3", "Training"), "3 pixels instead of 2304"),
        ((0, "", "Training"), "0 pixels instead of 2304"),
        ((0, " ".join(["300"] * 2304), "Training"), "a pixel is no whole number from 0 to 255"),
        ((0, " ".join(["x"] * 2304), "Training"), "a pixel is no whole number from 0 to 255"),
    ],
)
def test_a_bad_row_names_file_and_line_or_is_skipped(write, caplog, row, message):
    file = write([(0, None, "Training"), row, (3, None, "Training")])
    with pytest.raises(InputError, match=f"fer2013.csv:3: {message}"):
        read(file)
    with caplog.at_level(logging.WARNING, "synthmtl"):
        assert len(read(file, on_bad="skip")["train"]) == 2
    assert "fer2013.csv:3" in caplog.text


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ([], "votes.csv: 0 rows for the 1"),
        (["PublicTest,f.png,1,0,0,0,0,0,0,0,0,0"], "votes.csv:2: Usage differs from .*fer2013.csv:2"),
        (["Training,f.png,many,0,0,0,0,0,0,0,0,0"], "votes.csv:2: neutral is 'many'"),
        (["Training,f.png,-1,0,0,0,0,0,0,0,0,0"], "votes.csv:2: neutral is '-1'"),
    ],
)
def test_votes_that_do_not_fit(write, tmp_path, votes, message):
    (tmp_path / "votes.csv").write_text("\n".join([VOTES, *votes]))
    with pytest.raises(InputError, match=message):
        read(write([(0, None, "Training")]), ferplus=tmp_path / "votes.csv")


def test_missing_and_foreign_files(write, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="other.csv:1: no column 'emotion'"):
        read(tmp_path / "other.csv")
    assert not is_fer2013(tmp_path / "other.csv") and is_fer2013(write([]))
    with pytest.raises(InputError, match="no faces found"):
        read(write([]))
    (tmp_path / "binary.csv").write_bytes(b"emotion,pixels,Usage\n0,\xff\xfe,Training\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read(tmp_path / "binary.csv")
    with pytest.raises(InputError, match="channels"):
        read(write([(0, None, "Training")]), channels=2)


def test_the_competitions_other_files(write, tmp_path):
    pixels = " ".join(["7"] * 48 * 48)
    (tmp_path / "icml_face_data.csv").write_text(
        f"emotion, Usage, pixels\n3,Training,{pixels}\n0,PrivateTest,{pixels}\n"
    )
    (tmp_path / "train.csv").write_text(f"emotion,pixels\n3,{pixels}\n6,{pixels}\n")
    (tmp_path / "test.csv").write_text(f"pixels\n{pixels}\n")
    icml = tmp_path / "icml_face_data.csv"
    assert all(is_fer2013(tmp_path / f"{name}.csv") for name in ("icml_face_data", "train", "test"))
    assert {n: t.counts() for n, t in read(icml).items()} == {
        "train": {"happiness": 1, "anger": 0}, "test": {"happiness": 0, "anger": 1},
    }  # fmt: skip
    assert {n: t.counts() for n, t in read(tmp_path / "train.csv").items()} == {"train": {"neutral": 1, "happiness": 1}}
    test = read(tmp_path / "test.csv")["test"]
    assert test.expression.tolist() == [-1] and int(test.images.sum()) == 7 * 48 * 48


def test_rules_of_votes(write, tmp_path, caplog):
    file = write([(3, None, "Training"), (0, None, "Training"), (0, None, "Training"), (5, None, "Training")])
    votes = [
        "Training,a.png,4,6,0,0,0,0,0,0,0,0",  # happiness has more than half
        "Training,b.png,0,0,0,0,3,0,0,4,0,3",  # contempt has most, though not more than half
        "Training,c.png,0,0,0,0,4,0,0,0,4,2",  # as many say unknown as anger
        "Training,d.png,0,0,0,0,0,0,0,9,1,0",  # contempt, which FER2013 does not know
    ]
    (tmp_path / "votes.csv").write_text("\n".join([VOTES, *votes]))

    def named(rule):
        table = read(file, ferplus=tmp_path / "votes.csv", ferplus_rule=rule)["train"]
        return [table.classes[i] for i in table.expression.tolist()], table

    names, table = named("distribution")
    assert names == ["happiness", "anger", "anger", "surprise"]
    torch.testing.assert_close(table.expression_distribution.nansum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    with caplog.at_level(logging.INFO, "synthmtl"):
        names, table = named("drop-unknown")
    assert names == ["happiness", "anger", "surprise"] and "left out 1 of 4 faces by the FER+ rule" in caplog.text
    assert not table.expression_distribution[0].isnan().any()
    names, table = named("majority")
    assert names == ["happiness", "contempt"] and table.expression_distribution.isnan().all()
    with pytest.raises(InputError, match="unknown rule 'most' for FER\\+: use one of distribution, majority"):
        named("most")
