import json
import math

import pytest
import torch

from synthmtl.data.readers.columns import (
    LABEL_KEYS,
    MISSING,
    NAMED_KEYS,
    OTHER_LABEL_KEYS,
    cell,
    known_key,
    meanings,
    near_misses,
    refuse_repeats,
)
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.readers.metadata import parse_metadata
from synthmtl.errors import InputError

SPELLINGS = (str, str.upper, str.title, lambda key: f" {key}", lambda key: f"{key} ")
ROW = {"file_name": "a.png", "subject": "P1", "split": "test", "valence": "0.5", "ferplus_anger": "3", "age": "30"}


def records(row, kind):
    """One row, read from a metadata file."""
    if kind == "jsonl":
        return parse_metadata(json.dumps(row).encode(), "metadata.jsonl")
    return parse_metadata(f"{', '.join(row)}\n{', '.join(row.values())}\n".encode(), "metadata.csv")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("spelled", SPELLINGS)
def test_known_columns_mean_the_same_however_they_are_spelled(kind, spelled):
    known = {key: value for key, value in ROW.items() if key != "age"}
    (record,) = records({spelled(key): value for key, value in known.items()} | {"age": "30"}, kind)
    assert record.values == ROW
    assert all(known_key(spelled(key)) == key for key in NAMED_KEYS)


def test_exact_names_and_unknown_ones_are_left_alone():
    assert meanings([ROW | {"Gender": "f", "AU1": 1, "x0": 0.5, "X0": 3}]) == {}
    assert meanings([]) == {} and known_key("Gender") is None


@pytest.mark.parametrize("key", [*OTHER_LABEL_KEYS, "Emotion", " Labels"])
def test_other_columns_of_expressions_serve_where_there_is_no_better_one(key):
    row = {"file_name": "a.png", key: "happy"}
    assert records(row, "csv")[0].expression() == records(row, "jsonl")[0].expression() == "happiness"
    for better in LABEL_KEYS:
        (record,) = records(row | {better: "sad"}, "jsonl")
        assert record.expression() == "sadness" and record.get(key) == "happy"
    rows = [row, {"file_name": "b.png", "label": None}]  # one row in which it is called otherwise is enough
    assert meanings(rows) == {}


def test_of_other_columns_of_expressions_the_first_counts():
    names = dict.fromkeys(reversed(OTHER_LABEL_KEYS), "fear")
    assert meanings([names]) == {OTHER_LABEL_KEYS[0]: "expression"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_expression_that_is_none_is_refused_in_any_column(kind):
    (record,) = records({"file_name": "a.png", "emotion": "3"}, kind)
    with pytest.raises(InputError, match=rf"metadata.{kind}:\d: unknown expression '3'"):
        record.expression()


def test_usage_tells_the_split_if_every_value_is_one():
    usages = ["Training", "PublicTest", None, " PrivateTest", ""]
    assert meanings([{"Usage": usage} for usage in usages]) == {"Usage": "split"}
    for others in (["Training", "daily"], [None, ""], [1, 2]):
        assert meanings([{"Usage": usage} for usage in others]) == {}
    assert meanings([{"Usage": "Training", "split": "test"}]) == {}
    assert meanings([{"Usage": "Training"}], usage=False) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,subject,Subject\na.png,1,2\n", ":1: two columns mean subject, 'subject' and 'Subject': keep one"),
        ("file_name,subject, subject\na.png,1,2\n", ":1: two columns mean subject, 'subject' and 'subject'"),
        ("file_name,File_Name\na.png,b.png\n", ":1: two columns mean file_name"),
        ("file_name,Emotion,emotion\na.png,fear,fear\n", ":2: two columns mean expression, 'Emotion' and 'emotion'"),
    ],
)
def test_two_columns_for_one_are_refused(text, message):
    with pytest.raises(InputError, match=f"metadata.csv{message}"):
        parse_metadata(text.encode(), "metadata.csv")
    header, row = (line.split(",") for line in text.splitlines())
    if len(set(header)) == len(header):
        with pytest.raises(InputError, match="metadata.jsonl:1: two columns mean"):
            parse_metadata(json.dumps(dict(zip(header, row, strict=True))).encode(), "metadata.jsonl")


def test_rows_of_jsonl_may_spell_differently():
    rows = [{"file_name": "a.png", "Subject": "x"}, {"file_name": "b.png", "subject": "y"}]
    found = parse_metadata("\n".join(map(json.dumps, rows)).encode(), "metadata.jsonl")
    assert [record.get("subject") for record in found] == ["x", "y"]
    refuse_repeats(["a", "a", "age", "Age"], {}, "here")  # attributes are their owner's business


@pytest.mark.parametrize("word", sorted(MISSING))
def test_a_missing_value_is_missing_in_any_case(word):
    assert all(cell(text) is None for text in (word, word.upper(), word.title(), f" {word} "))
    assert cell(None) is cell(math.nan) is None
    assert [cell(value) for value in ("Nan Li", "Na", 0, False, "0", " a ")] == ["Nan Li", None, 0, False, "0", "a"]


def test_people_whom_r_does_not_know_are_nobody(folder):
    root = folder({"happy": 3, "sad": 3})
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    rows = [f'"{name}",{who}' for name, who in zip(names, ("NA", '"P1"', "NA", "NA", '"P1"', "#N/A"), strict=True)]
    (root / "metadata.csv").write_text("\n".join(['"file_name","subject"', *rows]))
    table = read_image_folder(root, image_size=16, channels=1)["all"]
    assert table.subject.tolist() == [-1, 0, -1, -1, 0, -1]


def test_near_misses_are_told_unless_nobody_misses_them():
    keys = ["file_name", "Subject_ID", "person", "usage", "Class", "age"]
    said = near_misses(keys, "set", told=())
    assert [message.split("'")[1] for message in said] == ["Subject_ID", "person", "usage", "Class"]
    assert said[1] == "set: the column 'person' is not read as subject: call it 'subject' if it says who is shown"
    for label in LABEL_KEYS:
        assert near_misses([*keys, "subject", "split", label], "set", told=()) == []
    assert near_misses([*keys, "subject"], "set", told={"split", "expression"}) == []


def test_blanks_after_commas_cost_nothing(folder):
    root = folder({"faces": 4})
    rows = ["file_name, expression, split, subject, AU12, note"]
    rows += [
        f'faces/{i:03d}.png, {("happy", "sad")[i % 2]}, {("train", "test")[i // 2]}, P{i}, 0.5, "a, b"'
        for i in range(4)
    ]
    read = []
    for text in ("\n".join(rows), "\n".join(rows).replace(", ", ",").replace("a,b", "a, b")):
        (root / "metadata.csv").write_text(text)
        read.append(read_image_folder(root, image_size=16, channels=1))
    spaced, plain = read
    assert list(spaced) == list(plain) == ["train", "test"]
    for name, table in spaced.items():
        assert table.counts() == {"happiness": 1, "sadness": 1} and list(table.attributes) == ["note"]
        assert torch.equal(table.subject, plain[name].subject) and (table.subject >= 0).all()
        assert torch.equal(table.action_units.nan_to_num(9), plain[name].action_units.nan_to_num(9))
