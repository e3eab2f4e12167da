import json

import pytest
import torch

from synthmtl.data.readers.metadata import distribution, label_columns, numbered, parse_metadata, raise_input_error
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, COMPOUND_EXPRESSIONS

CLASSES = ("neutral", "happiness", "anger")


def csv_columns(text, classes=CLASSES, complain=raise_input_error):
    return label_columns(parse_metadata(text.encode(), "metadata.csv"), classes, complain)


def jsonl_columns(*rows, complain=raise_input_error):
    text = "\n".join(json.dumps({"file_name": f"{i}.png"} | row) for i, row in enumerate(rows))
    return label_columns(parse_metadata(text.encode(), "metadata.jsonl"), CLASSES, complain)


def test_csv_labels():
    columns = csv_columns(
        "\ufefffile_name,subject,session,valence,arousal,AU01,au_12,synthetic,weight,domain,yaw,country,code\n"
        "a.png,Zoe,s1,0.5,-0.25,0.1,,true,2,1,-3.5,NL,007\n"
        "b.png,Ann,,,nan,,1,0,,,,DE,008\n"
    )
    assert columns["subject"].tolist() == [1, 0]
    assert columns["session"].tolist() == [0, -1]
    torch.testing.assert_close(
        columns["valence_arousal"], torch.tensor([[0.5, -0.25], [torch.nan] * 2]), equal_nan=True
    )
    units = columns["action_units"]
    assert units[0, ACTION_UNITS.index("AU1")] == torch.tensor(0.1) and units[1, ACTION_UNITS.index("AU12")] == 1
    assert int((~units.isnan()).sum()) == 2
    assert columns["synthetic"].tolist() == [True, False]
    assert columns["weight"].tolist() == [2.0, 1.0]
    assert columns["domain"].tolist() == [1, 0]
    assert list(columns["attributes"]) == ["yaw"] and not columns["words"]  # words of which none is there twice
    torch.testing.assert_close(columns["attributes"]["yaw"], torch.tensor([-3.5, torch.nan]), equal_nan=True)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["10", "9", "9"], [10, 9, 9]),
        ([10, 9, None], [10, 9, -1]),
        (["001", "002", "001"], [0, 1, 0]),
        (["b", "10", "a"], [2, 0, 1]),
    ],
)
def test_subjects_are_numbered_by_sorted_name_unless_they_are_numbers(names, numbers):
    assert jsonl_columns(*({"subject": name} for name in names))["subject"].tolist() == numbers


def test_landmarks_from_jsonl_and_csv_agree():
    points = [[round(i / 68, 3), round(1 - i / 68, 3)] for i in range(68)]
    header = ",".join(f"x{i},y{i}" for i in range(68))
    flat = ",".join(f"{x},{y}" for x, y in points)
    from_csv = csv_columns(f"file_name,{header}\na.png,{flat}\n")
    assert torch.equal(from_csv["landmarks"][0], torch.tensor(points))
    assert torch.equal(from_csv["landmarks"], jsonl_columns({"landmarks": points})["landmarks"])
    assert not from_csv["attributes"]
    assert jsonl_columns({"landmarks": points}, {})["landmarks"][1].isnan().all()


def test_landmarks_of_another_scheme_are_no_landmarks():
    header = ",".join(f"x{i},y{i}" for i in range(70))
    assert "landmarks" not in csv_columns(f"file_name,{header}\na.png,{','.join(['0.5'] * 140)}\n")


def test_votes_become_shares_of_the_classes_there_are():
    columns = csv_columns(
        "file_name,ferplus_neutral,ferplus_happiness,ferplus_anger,ferplus_contempt,ferplus_unknown,ferplus_nf\n"
        "a.png,3,0,1,4,2,0\nb.png,0,0,0,5,5,0\n"
    )
    shares = columns["expression_distribution"]
    assert shares[0].tolist() == [0.75, 0.0, 0.25] and shares[1].isnan().all()


def test_distribution_keeps_complete_shares_to_the_bit():
    third = float(torch.tensor(1 / 3))
    assert distribution({"neutral": third, "anger": 1 - third}, CLASSES) == [third, 0.0, 1 - third]
    assert distribution({"neutral": 0.25, "fear": 0.75}, CLASSES) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"compound": "happily bored"}, "unknown compound 'happily bored': use one of happily_surprised, "),
        ({"compound": 3}, "unknown compound 3"),
        ({"valence": 3}, "valence"),
        ({"arousal": "high"}, "arousal"),
        ({"AU1": 4}, r"AU1 .*divide by 5"),
        ({"weight": -1}, "weight"),
        ({"weight": "inf"}, "weight"),
        ({"synthetic": "perhaps"}, "true or false"),
        ({"landmarks": [[0.5, 0.5]]}, "68 pairs"),
        ({"landmarks": [["a", "b"]] * 68}, "68 pairs"),
        ({"landmarks": [[100, 120]] * 68}, "divide pixels"),
        ({"expression_distribution": {"joyous": 1}}, "expression_distribution"),
        ({"ferplus_anger": -2}, "votes"),
    ],
)
def test_a_wrong_value_names_file_and_line(row, message):
    with pytest.raises(InputError, match=rf"metadata.jsonl:2: .*{message}"):
        jsonl_columns({}, row)
    said = []
    columns = jsonl_columns({}, row, complain=said.append)
    assert len(said) == 1
    for column in (columns.get("valence_arousal"), columns.get("action_units"), columns.get("landmarks")):
        assert column is None or column.isnan().all()


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("metadata.csv", b"name,label\na.png,anger\n", ":1: no column file_name"),
        ("metadata.csv", b"", ":1: no column file_name"),
        ("metadata.csv", b"file_name,label\na.png,anger\nb.png\n", ":3: the row does not have 2 cells"),
        ("metadata.csv", b"file_name,label\na.png,anger,x\n", ":2: the row does not have 2 cells"),
        ("metadata.csv", b"file_name,label\n,anger\n", ":2: no file_name"),
        ("metadata.csv", b"file_name\n\xff\xfe.png\n", "not UTF-8"),
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name"', ":2: broken JSON"),
        ("metadata.jsonl", b'["a.png"]', ":1: not a JSON object"),
        ("metadata.jsonl", b'{"label": "anger"}', ":1: no file_name"),
    ],
)
def test_broken_files(file, data, message):
    with pytest.raises(InputError, match=file + message.replace("not UTF", ": not UTF")):
        parse_metadata(data, file)


def test_compound_in_any_spelling():
    text = "file_name,compound\na.png,Happily Surprised\nb.png,FEARFULLY-disgusted\nc.png,\nd.png,sadly_angry\n"
    assert csv_columns(text)["compound"].tolist() == [0, 11, -1, 3]
    rows = jsonl_columns({"compound": None}, {}, {"compound": " angrily_surprised "})["compound"]
    assert rows.tolist() == [-1, -1, COMPOUND_EXPRESSIONS.index("angrily_surprised")]
    assert "compound" not in jsonl_columns({"valence": 0.5})


def test_expression_and_label():
    def expression(**row):
        return parse_metadata(json.dumps({"file_name": "a.png"} | row).encode(), "metadata.jsonl")[0].expression()

    assert expression(label="Happy") == expression(expression="happiness", label="joy") == "happiness"
    assert expression(label=None) is expression(expression="") is expression() is None
    with pytest.raises(InputError, match="metadata.jsonl:1: unknown label 'sleepy'"):
        expression(label="sleepy")
    with pytest.raises(InputError, match="metadata.jsonl:1: expression 'anger' but label 'fear'"):
        expression(expression="anger", label="fear")


def test_words_become_attributes():
    rows = [("male", "20-29", "first", "007"), ("female", 5, "second", None), ("male", "5", "third", "007")]
    columns = jsonl_columns(*(dict(zip(("gender", "age", "note", "code"), row, strict=True)) for row in rows))
    assert columns["words"] == {"gender": ("female", "male"), "age": ("20-29", "5"), "code": ("007",)}
    values = {name: column.tolist() for name, column in columns["attributes"].items()}
    assert values.pop("code")[::2] == [0, 0] and columns["attributes"]["code"].isnan().tolist() == [False, True, False]
    assert values == {"gender": [1, 0, 1], "age": [0, 1, 1]}


def test_too_many_words_and_other_values_are_no_attributes():
    names = [{"name": f"person {i}", "box": [0, 1]} for i in (*range(65), 0)]
    assert not jsonl_columns(*names)["attributes"]
    assert list(jsonl_columns(*names[1:])["attributes"]) == []  # 65 different ones
    assert list(jsonl_columns(*names[2:], names[3])["attributes"]) == ["name"]
    assert list(jsonl_columns({"size": 1e38}, {"size": 2})["attributes"]) == ["size"]
    assert not jsonl_columns({"size": 1e39}, {"size": 2})["attributes"]  # which float32 does not hold


def test_sources_of_edits_are_kept_however_many():
    rows = [{"source_file": f"{i % 70}.png"} for i in range(140)]
    columns = jsonl_columns(*rows)
    codes = columns["attributes"]["source_file"]
    assert torch.equal(codes[:70], codes[70:]) and len(codes.unique()) == 70


@pytest.mark.parametrize("names", [["a/1.png", "a/2.png"], ["1.png", None], ["20240131123", "7"], ["007"]])
def test_sources_of_edits_are_kept_to_the_letter_where_each_is_there_once(names):
    columns = jsonl_columns(*({"source_file": name, "note": name} for name in names))
    known = sorted(name for name in names if name)
    assert columns["words"]["source_file"] == tuple(known)
    codes = columns["attributes"]["source_file"]
    assert [None if code.isnan() else known[int(code)] for code in codes] == names


def test_no_source_at_all_is_no_column():
    assert not jsonl_columns({"source_file": None}, {"source_file": ""})["attributes"]


@pytest.mark.parametrize("unknown", [None, "-1", -1, -1.0])
def test_minus_one_is_nobody(unknown):
    assert numbered([unknown, "3", unknown, "7"]).tolist() == [-1, 3, -1, 7]
    assert numbered([unknown, "Ann", "Bob"]).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("one", ["1.0", 1.0, "1.", " 1 "])
def test_a_whole_number_is_one_person_however_it_is_written(one):
    assert numbered(["1", one, "10.0", None, 7]).tolist() == [1, 1, 10, -1, 7]
    assert numbered(["Ann", one, "1", "001"]).tolist() == [2, 1, 1, 0]
    assert len(numbered(["1", "1.5", "01", "001", "1.0a"]).unique()) == 5


def test_spellings_of_one_action_unit_fill_each_other():
    columns = csv_columns("file_name,AU1,AU01,au_1\na.png,0.5,,\nb.png,,0.25,0.25\nc.png,,,1\nd.png,,,\n")
    known = ~columns["action_units"].isnan()
    assert columns["action_units"][known].tolist() == [0.5, 0.25, 1]
    assert known[:, ACTION_UNITS.index("AU1")].tolist() == [True, True, True, False] and int(known.sum()) == 3
    rows = {"AU1": 0.5, "AU01": 0.7}, {"AU1": 0.5, "AU01": 0.5}, {"AU01": 0}
    with pytest.raises(
        InputError, match="metadata.jsonl:1: AU01 is 0.7, AU1 is 0.5, which are one action unit: correct"
    ):
        jsonl_columns(*rows)
    said = []
    units = jsonl_columns(*rows, complain=said.append)["action_units"][:, ACTION_UNITS.index("AU1")]
    assert len(said) == 1 and units[0].isnan() and units[1:].tolist() == [0.5, 0]


def test_action_units_that_are_there_or_not_are_one_or_zero():
    unit = ACTION_UNITS.index("AU1")
    from_json = jsonl_columns({"AU1": True}, {"AU1": False}, {"AU1": None}, {"AU1": "NA"})["action_units"][:, unit]
    from_csv = csv_columns("file_name,AU1\na.png,TRUE\nb.png,False\nc.png,NA\nd.png,\n")["action_units"][:, unit]
    for units in (from_json, from_csv):
        assert units[:2].tolist() == [1, 0] and units[2:].isnan().all()
    with pytest.raises(InputError, match="valence is True"):
        jsonl_columns({"valence": True})
