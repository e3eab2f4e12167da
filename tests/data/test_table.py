import dataclasses

import pytest
import torch

from synthmtl.data import FaceBatch, FaceTable, classes_of, storage
from synthmtl.data.table import attribute_words, coded_words
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, EXPRESSIONS, EXPRESSIONS_7

CLASSES = ("neutral", "happiness", "anger")


def make(count=6, *, classes=CLASSES, channels=1, size=4, seed=0, **columns):
    """Faces of random pixels; the expressions run 0, 1, ..., K - 1, missing, 0, ..."""
    generator = torch.Generator().manual_seed(seed)
    expression = (torch.arange(count) + 1) % (len(classes) + 1) - 1
    columns = {"expression": expression.roll(-1) if count else expression} | columns
    images = torch.randint(256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return FaceTable(images=images, classes=classes, **columns)


def columns_of(table):
    return {
        f.name: getattr(table, f.name)
        for f in dataclasses.fields(table)
        if isinstance(getattr(table, f.name), torch.Tensor)
    }


def test_columns_left_out_are_missing():
    table = FaceTable(images=torch.zeros(3, 3, 8, 8, dtype=torch.uint8), classes=EXPRESSIONS_7)
    assert (len(table), table.image_size, table.channels) == (3, 8, 3)
    assert table.expression.tolist() == table.compound.tolist() == [-1] * 3
    assert table.subject.tolist() == table.session.tolist() == [-1] * 3
    assert table.action_units.shape == (3, len(ACTION_UNITS))
    assert table.landmarks.shape == (3, 68, 2)
    assert table.expression_distribution.shape == (3, 7)
    for name in ("action_units", "landmarks", "valence_arousal", "expression_distribution"):
        assert getattr(table, name).isnan().all()
    assert table.weight.tolist() == [1.0] * 3
    assert table.domain.tolist() == [0] * 3
    assert table.synthetic.dtype == torch.bool and not table.synthetic.any()
    assert table.files == [""] * 3
    assert sum(table.counts().values()) == 0


def test_counts_are_per_class_without_missing():
    table = make(5, expression=torch.tensor([2, -1, 2, 0, -1]))
    assert table.counts() == {"neutral": 1, "happiness": 0, "anger": 2}
    assert list(table.counts()) == list(CLASSES)


def test_batch_scales_pixels_and_keeps_labels():
    table = make(4, subject=torch.tensor([7, 8, 9, -1]), weight=torch.tensor([1.0, 0.5, 2.0, 1.0]))
    table.images[1, 0, 0] = torch.tensor([0, 255, 51, 204], dtype=torch.uint8)
    batch = table.batch([2, 1, 1])
    assert isinstance(batch, FaceBatch) and len(batch) == 3
    assert batch.image.dtype == torch.float32 and batch.image.shape == (3, 1, 4, 4)
    torch.testing.assert_close(batch.image[1, 0, 0], torch.tensor([-1.0, 1.0, -0.6, 0.6]))
    assert batch.image.min() >= -1 and batch.image.max() <= 1
    assert torch.equal(((batch.image + 1) * 127.5).round().to(torch.uint8), table.images[[2, 1, 1]])
    assert batch.expression.tolist() == table.expression[[2, 1, 1]].tolist()
    assert batch.subject.tolist() == [9, 8, 8] and batch.weight.tolist() == [2.0, 0.5, 0.5]


@pytest.mark.parametrize("mask", [[False, True, False, True], [True] * 4, [False] * 4])
def test_a_batch_by_mask_is_the_batch_of_its_rows(mask):
    table = make(4, compound=torch.tensor([3, -1, 11, 0]))
    for given in (torch.tensor(mask), mask):
        batch, chosen = table.batch(given), table.select(mask)
        assert batch.compound.tolist() == chosen.compound.tolist()
        assert batch.expression.tolist() == chosen.expression.tolist()
        assert torch.equal(((batch.image + 1) * 127.5).round().to(torch.uint8), chosen.images)


def test_batches_join_and_move():
    table = make(4)
    joined = FaceBatch.concatenate([table.batch([0, 1]), table.batch([3])]).to("cpu")
    whole = table.batch([0, 1, 3])
    for f in dataclasses.fields(FaceBatch):
        assert torch.equal(getattr(joined, f.name).nan_to_num(-9), getattr(whole, f.name).nan_to_num(-9))


@pytest.mark.parametrize("index", [[3, 0, 3], torch.tensor([3, 0, 3]), torch.tensor([3, 0, 3], dtype=torch.int32)])
def test_select_by_integers(index):
    table = make(5, files=list("abcde"), attributes={"yaw": torch.arange(5.0)})
    chosen = table.select(index)
    assert chosen.files == ["d", "a", "d"]
    assert chosen.attributes["yaw"].tolist() == [3, 0, 3]
    for name, column in columns_of(table).items():
        assert torch.equal(getattr(chosen, name).float().nan_to_num(-9), column[[3, 0, 3]].float().nan_to_num(-9))


def test_select_by_mask_and_of_nothing():
    table = make(5)
    mask = torch.tensor([False, True, False, False, True])
    assert torch.equal(table.select(mask).images, table.images[[1, 4]])
    assert torch.equal(table.select(mask.tolist()).images, table.images[[1, 4]])
    assert len(table.select([])) == 0 and sum(table.select([]).counts().values()) == 0


def test_fingerprints_tell_faces_and_labels_apart():
    table = make(attributes={"yaw": torch.arange(6.0)})
    others = [
        table.replace(images=table.images ^ torch.tensor(1, dtype=torch.uint8)),
        table.replace(expression=table.expression.flip(0)),
        table.replace(attributes={"yaw": torch.arange(6.0).flip(0)}),
        table.replace(attributes={"pitch": torch.arange(6.0)}),
        table.select([1, 0, 2, 3, 4, 5]),
        table.select(range(5)),
    ]
    assert len({each.fingerprint() for each in (table, *others)}) == 7
    assert table.replace(files=[f"elsewhere/{i}.png" for i in range(6)]).fingerprint() == table.fingerprint()


def test_replace_shares_the_other_columns():
    table = make(3)
    other = table.replace(domain=torch.ones(3, dtype=torch.int64))
    assert other.domain.tolist() == [1, 1, 1] and table.domain.tolist() == [0, 0, 0]
    assert other.images is table.images


def test_with_classes_keeps_every_name_and_missing_labels():
    table = make(8)
    wide = table.with_classes(reversed(EXPRESSIONS))
    assert wide.classes == EXPRESSIONS
    for before, after in zip(table.expression.tolist(), wide.expression.tolist(), strict=True):
        assert (before < 0 and after == -1) or CLASSES[before] == EXPRESSIONS[after]
    assert wide.expression_distribution.shape == (8, 8)
    back = wide.with_classes(CLASSES)
    assert torch.equal(back.expression, table.expression)
    assert table.with_classes(CLASSES) is table


def test_with_classes_drops_labels_of_dropped_classes():
    table = make(4, expression=torch.tensor([0, 1, 2, -1]))
    narrow = table.with_classes(["anger", "neutral"])
    assert narrow.classes == ("neutral", "anger")
    assert narrow.expression.tolist() == [0, -1, 1, -1]
    assert len(narrow) == 4 and narrow.images is table.images


def test_with_classes_never_invents_a_distribution():
    shares = torch.tensor([[0.2, 0.5, 0.3], [float("nan")] * 3])
    table = make(2, expression_distribution=shares)
    wide = table.with_classes(EXPRESSIONS).expression_distribution
    assert wide[1].isnan().all()
    assert wide[0].sum() == pytest.approx(1)
    assert wide[0, [EXPRESSIONS.index(name) for name in CLASSES]].tolist() == pytest.approx([0.2, 0.5, 0.3])
    narrow = table.with_classes(["neutral", "anger"]).expression_distribution
    assert narrow[0].tolist() == pytest.approx([0.2, 0.3]) and narrow[1].isnan().all()


def test_concatenate_is_the_opposite_of_select():
    table = make(7, files=list("abcdefg"), attributes={"yaw": torch.arange(7.0)})
    joined = FaceTable.concatenate([table.select([0, 1, 2]), table.select([]), table.select([3, 4, 5, 6])])
    assert joined.files == table.files
    assert torch.equal(joined.attributes["yaw"], table.attributes["yaw"])
    for name, column in columns_of(table).items():
        assert torch.equal(getattr(joined, name).float().nan_to_num(-9), column.float().nan_to_num(-9))
        assert getattr(joined, name).dtype == column.dtype


def test_concatenate_fills_attributes_that_one_lacks():
    a, b = make(2, attributes={"yaw": torch.ones(2)}), make(1, attributes={"roll": torch.zeros(1)})
    joined = FaceTable.concatenate([a, b])
    assert joined.attributes["yaw"][:2].tolist() == [1, 1] and joined.attributes["yaw"][2].isnan()
    assert joined.attributes["roll"][:2].isnan().all() and joined.attributes["roll"][2] == 0


def test_concatenate_keeps_ids_of_parts_and_tells_data_sets_apart():
    parts = [
        make(3, subject=torch.tensor([10**18, 5, -1]), session=torch.tensor([2, 2, 2])),
        make(0),
        make(3, subject=torch.tensor([5, 5, 0]), session=torch.tensor([-1, 2, 7])),
    ]
    joined = FaceTable.concatenate(parts)
    assert joined.subject.tolist() == [10**18, 5, -1, 5, 5, 0] and joined.session.tolist() == [2, 2, 2, -1, 2, 7]
    apart = FaceTable.concatenate(parts, separate=True)
    assert apart.subject.tolist() == [1, 0, -1, 3, 3, 2] and apart.session.tolist() == [0, 0, 0, -1, 1, 2]
    assert apart.subject.dtype == apart.session.dtype == torch.int64
    assert parts[0].subject.tolist() == [10**18, 5, -1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"classes": ("neutral", "fear")}, "cannot join faces of classes"),
        ({"size": 8}, r"cannot join faces of shape \(1, 4, 4\) and \(1, 8, 8\)"),
        ({"channels": 3}, r"cannot join faces of shape \(1, 4, 4\) and \(3, 4, 4\)"),
    ],
)
def test_concatenate_refuses_different_faces(other, message):
    with pytest.raises(InputError, match=message):
        FaceTable.concatenate([make(), make(**other)])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"images": torch.zeros(2, 1, 4, 4)}, "uint8"),
        ({"images": torch.zeros(2, 2, 4, 4, dtype=torch.uint8)}, "1 or 3"),
        ({"images": torch.zeros(2, 4, 4, dtype=torch.uint8)}, r"\(2, 4, 4\)"),
        ({"classes": ("anger", "neutral")}, "canonical order"),
        ({"classes": ("neutral", "angry")}, "unknown expression 'angry'"),
        ({"expression": torch.tensor([0, 3])}, "expression 3 is not an index into 3 classes"),
        ({"expression": torch.tensor([0, -2])}, "expression -2 is not an index into 3 classes"),
        ({"compound": torch.tensor([0, 12])}, "compound 12 is not an index into 12 classes"),
        ({"compound": torch.tensor([-3, 0])}, "compound -3 is not an index into 12 classes"),
        ({"expression": torch.tensor([0])}, "expression has 1 rows for 2 images"),
        ({"subject": torch.tensor([0, 1, 2])}, "subject has 3 rows for 2 images"),
        ({"files": ["a"]}, "files has 1 rows for 2 images"),
    ],
)
def test_errors_name_the_column(columns, message):
    given = {"images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "classes": CLASSES} | columns
    with pytest.raises(InputError, match=message) as error:
        FaceTable(**given)
    assert "\n" not in str(error.value)


def test_classes_of_spellings():
    classes, renamed = classes_of(["angry", "Happy", "neutral", "happiness"])
    assert classes == CLASSES
    assert renamed == {"angry": "anger", "Happy": "happiness"}
    with pytest.raises(InputError, match="unknown expression class 'bored'"):
        classes_of(["angry", "bored"])


def test_attributes_of_words_are_joined_by_their_words(table):
    first, second, third, without = (table({"fear": 2, "anger": 1}) for _ in range(4))
    for each, texts in ((first, ["male", "female", None]), (second, ["male", "other", "male"])):
        column, words = coded_words(texts)
        each.attributes, each.words = {"gender": column, "yaw": torch.arange(3.0)}, {"gender": words}
    third.attributes = {"gender": torch.tensor([1.0, float("nan"), 0.5])}
    joined = FaceTable.concatenate([first, second, third, without])
    wanted = ["male", "female", None, "male", "other", "male", "1", None, "0.5", None, None, None]
    assert attribute_words(joined, "gender") == wanted
    assert joined.words == {"gender": ("0.5", "1", "female", "male", "other")}
    assert attribute_words(joined.select([4, 2]), "gender") == ["other", None]
    assert first.words == {"gender": ("female", "male")}
    renamed = first.replace(words={"gender": ("women", "men")})
    assert renamed.fingerprint() != first.fingerprint() == first.select([0, 1, 2]).fingerprint()


def test_joining_large_tables_keeps_their_pixels_on_the_disk(table, monkeypatch):
    monkeypatch.setattr(storage, "IN_MEMORY", 100)
    made, shapes = storage.new_faces, []
    monkeypatch.setattr(storage, "new_faces", lambda shape: shapes.append(shape) or made(shape))
    parts = [table({"fear": 2}), table({"fear": 3})]
    joined = FaceTable.concatenate(parts)
    assert shapes == [(5, 1, 16, 16)] and torch.equal(joined.images, torch.cat([part.images for part in parts]))
    assert FaceTable.concatenate(parts[:1]).images.data_ptr() == parts[0].images.data_ptr()


WIDE = ("landmarks", "action_units", "valence_arousal", "expression_distribution")


def held(table):
    """Bytes that the wide columns keep."""
    return sum(getattr(table, name).untyped_storage().nbytes() for name in WIDE)


def faces(count):
    images = torch.arange(count).to(torch.uint8)[:, None, None, None].expand(count, 1, 32, 32).contiguous()
    return FaceTable(images, ("neutral", "happiness"), expression=torch.arange(count) % 2)


def test_what_no_face_carries_is_held_once():
    table = faces(1000)
    assert held(table) < 2000  # in full it would be 650 kB
    for part in (
        table.select(torch.arange(0, 1000, 3)),
        table.select([7]),
        table.select([]),
        FaceTable.concatenate([table, table.select(torch.arange(10))]),
        table.replace(subject=torch.arange(1000)),
    ):
        assert held(part) < 2000
        assert all(len(getattr(part, name)) == len(part) and getattr(part, name).isnan().all() for name in WIDE)


def test_holding_it_once_changes_nothing():
    table = faces(40)
    full = table.replace(**{name: getattr(table, name).clone().contiguous() for name in WIDE})
    full.landmarks[3] = 0.5
    assert table.landmarks.isnan().all()
    full.landmarks[3] = float("nan")
    assert full.fingerprint() == table.fingerprint()
    mixed = FaceTable.concatenate([table, full.replace(landmarks=torch.full((40, 68, 2), 0.25))])
    assert mixed.landmarks[:40].isnan().all() and (mixed.landmarks[40:] == 0.25).all()
    rows = torch.tensor([5, 5, 0])
    for name in WIDE:
        assert getattr(table.batch(rows), name).equal(getattr(full.batch(rows), name)) or (
            getattr(table.batch(rows), name).isnan().all() and getattr(full.batch(rows), name).isnan().all()
        )


def test_one_value_for_all_faces_is_a_value():
    told = faces(4).replace(valence_arousal=torch.tensor([[0.5, -0.5]]).expand(4, 2))
    joined = FaceTable.concatenate([told, told.replace(valence_arousal=torch.tensor([[0.1, 0.2]]).expand(4, 2))])
    assert joined.valence_arousal[:, 0].tolist() == pytest.approx([0.5] * 4 + [0.1] * 4)
