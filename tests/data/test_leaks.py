import logging

import pytest
import torch

from synthmtl.data import duplicates, storage
from synthmtl.data.alignment import best_match
from synthmtl.data.leaks import guard, leaks
from synthmtl.data.load import load_splits
from synthmtl.data.table import FaceTable
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError


def brighter(images):
    return (images.float() * 0.8 + 30).round().to(torch.uint8)


@pytest.fixture
def parts(table):
    """24 training, 10 validation and 10 test faces, which share nothing yet."""
    counts = {"happiness": 12, "anger": 12}
    others = {name: table({"happiness": 5, "anger": 5}, size=48, seed=i + 5) for i, name in enumerate(("v", "t"))}
    return {"train": table(counts, size=48), "validation": others["v"], "test": others["t"]}


def write(parts, root):
    for name, table in parts.items():
        write_image_folder(table, root, name)
    return root


def test_leaks_are_counted_in_the_later_split(table):
    train = table({"happiness": 20, "anger": 20}, size=48)
    fresh = table({"happiness": 5, "anger": 5}, size=48, seed=5)
    train.subject[:] = torch.arange(40) % 8
    test = fresh.replace(images=fresh.images.clone(), subject=torch.tensor([6, 7, 8, 9] + [-1] * 6))
    test.images[0] = train.images[1]  # same label
    test.images[1] = train.images[30]  # other label
    test.images[2] = brighter(train.images[2])
    test.images[3] = brighter(train.images[31]).flip(-1)
    none, seen, unseen = leaks({"train": train, "validation": fresh, "test": test})
    assert (none.split, none.other, none.near, none.exact, none.subjects) == ("validation", "train", 0, 0, 0)
    assert (seen.split, seen.other, seen.faces) == ("test", "train", 10)
    assert (seen.exact, seen.near, seen.exact_other_label, seen.near_other_label, seen.subjects) == (2, 4, 1, 2, 2)
    assert seen.mirrored == 1
    assert seen.rows.tolist() == [0, 1, 2, 3] and seen.other_rows.tolist() == [1, 2, 30, 31]
    assert seen.subject_rows.tolist() == [row for row in range(40) if row % 8 in (6, 7)]
    assert (unseen.split, unseen.other, unseen.exact) == ("test", "validation", 6)
    assert set(seen.to_dict()) == {
        "split", "other", "faces", "exact", "near", "mirrored", "exact_other_label", "near_other_label", "subjects"
    }  # fmt: skip


def test_every_repeat_of_a_leaked_picture_counts(table):
    train = table({"happiness": 3, "anger": 3}, size=48)
    repeated = FaceTable.concatenate([train, train.select([0, 0])])
    (leak,) = leaks({"train": repeated, "test": train.select([0]).replace(images=train.images[:1].flip(-1))})
    assert leak.near == leak.mirrored == 1 and leak.other_rows.tolist() == [0, 6, 7]


def test_a_missing_label_is_no_other_label(table):
    train = table({"happiness": 3, "anger": 3})
    test = train.replace(expression=torch.full((6,), -1))
    (leak,) = leaks({"train": train, "test": test})
    assert leak.exact == leak.near == 6 and leak.exact_other_label == leak.near_other_label == 0


def test_dropping_leaves_out_of_the_earlier_split_what_the_later_shows(parts, caplog):
    train, validation, test = parts.values()
    train.images[0] = validation.images[3]
    train.images[13] = test.images[1].flip(-1)
    validation.images[4] = brighter(test.images[2])
    with caplog.at_level(logging.INFO, "synthmtl"):
        kept, notes = guard(parts, "drop", "DATA")
    assert kept["test"] is test
    assert torch.equal(kept["train"].images, train.images[[i for i in range(24) if i not in (0, 13)]])
    assert torch.equal(kept["validation"].images, validation.images[[i for i in range(10) if i != 4]])
    assert notes[-2:] == [
        "Left 2 of 24 train faces out, 2 as look-alikes of validation or test faces: happiness 1, anger 1.",
        "Left 1 of 10 validation faces out, 1 as look-alikes of test faces: happiness 1.",
    ]
    assert all(note in caplog.text for note in notes) and len(notes) == 5


def test_training_faces_of_held_out_people_are_dropped(parts):
    for i, table in enumerate(parts.values()):
        table.subject[:] = 100 * i + torch.arange(len(table)) // 2
    parts["train"].subject[[5, 20]] = parts["test"].subject[0]
    parts["train"].expression[5] = -1
    parts["validation"].subject[0] = parts["test"].subject[0]
    kept, notes = guard(parts, "drop", "DATA")
    assert {name: len(table) for name, table in kept.items()} == {"train": 22, "validation": 10, "test": 10}
    assert "1 people are in both" in notes[0]
    assert notes[-1] == (
        "Left 2 of 24 train faces out, 2 as people of validation or test faces: anger 1, without expression 1."
    )


def test_warning_keeps_everything_and_an_error_is_one_line(parts):
    parts["train"].images[0] = parts["test"].images[3]
    kept, notes = guard(parts, "warn", "DATA")
    assert all(kept[name] is table for name, table in parts.items())
    assert notes == [
        "1 of 10 test faces have a look-alike in train (1 equal in every pixel, 0 mirrored, 0 with another label); "
        "0 people are in both."
    ]
    with pytest.raises(InputError, match="^DATA: 1 of 10 test faces .* set on_leak to drop") as error:
        guard(parts, "error", "DATA")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("on_leak", ["drop", "warn", "error"])
def test_without_leaks_nothing_is_lost_or_said(parts, on_leak):
    kept, notes = guard(parts, on_leak, "DATA")
    assert notes == [] and all(kept[name] is table for name, table in parts.items())


def test_an_unknown_policy(parts, tmp_path):
    with pytest.raises(InputError, match="on_leak is 'keep': it must be drop, warn or error"):
        guard(parts, "keep", "DATA")
    with pytest.raises(InputError, match="on_leak is 'keep'"):
        load_splits(tmp_path, image_size=48, channels=1, on_leak="keep")


def test_data_sets_are_loaded_without_leaks(parts, tmp_path):
    parts["train"].images[2] = parts["test"].images[3].flip(-1)
    root = write(parts, tmp_path / "set")
    sizes = {}
    for on_leak in ("drop", "warn"):
        splits = load_splits(root, image_size=48, channels=1, on_leak=on_leak)
        sizes[on_leak] = [len(table) for table in splits.tables().values()]
        assert "1 of 10 test faces have a look-alike in train" in splits.notes[0]
    assert sizes == {"drop": [23, 10, 10], "warn": [24, 10, 10]}
    with pytest.raises(InputError, match="1 mirrored"):
        load_splits(root, image_size=48, channels=1, on_leak="error")


def test_a_class_that_dropping_would_empty_is_an_error(parts, tmp_path):
    lost = FaceTable.concatenate([parts["test"], parts["train"].select(torch.arange(12))])
    root = write(parts | {"test": lost}, tmp_path / "set")
    with pytest.raises(InputError, match="train without what .* show, too .*: only .'anger'. expression"):
        load_splits(root, image_size=48, channels=1)
    assert len(load_splits(root, image_size=48, channels=1, on_leak="warn").train) == 24


def test_a_split_that_is_all_leaked_is_an_error(parts):
    with pytest.raises(InputError, match="DATA: every validation face is in test, too: give other ones"):
        guard(parts | {"test": parts["validation"]}, "drop", "DATA")
    with pytest.raises(InputError, match="DATA: every train face is in validation and test, too"):
        guard(dict.fromkeys(parts, parts["train"]), "drop", "DATA")


def test_dropping_from_a_large_set_keeps_its_pixels_on_the_disk(parts, monkeypatch):
    made, shapes = storage.new_faces, []
    monkeypatch.setattr(storage, "IN_MEMORY", 15_000)  # less than 7 faces
    monkeypatch.setattr(storage, "new_faces", lambda shape: shapes.append(shape) or made(shape))
    parts["train"].images[5] = parts["test"].images[1]
    kept, _ = guard(parts, "drop", "DATA")
    assert shapes == [(23, 1, 48, 48)]  # the faces that stay, in a file, and no other copy
    assert torch.equal(kept["train"].images, parts["train"].images[[i for i in range(24) if i != 5]])


def test_what_stays_may_take_the_place_of_what_was(parts):
    train, validation, test = parts.values()
    train.images[[0, 13, 14]] = validation.images[[3, 6, 5]]
    train.subject[20] = test.subject[2] = 7
    validation.images[4] = brighter(test.images[2])
    copied, _ = guard({name: table.replace(images=table.images.clone()) for name, table in parts.items()}, "drop", "D")
    places = {name: table.images.data_ptr() for name, table in parts.items()}
    kept, _ = guard(parts, "drop", "D", reuse=True)
    for name, table in copied.items():
        assert table.fingerprint() == kept[name].fingerprint() and kept[name].images.data_ptr() == places[name]
    assert [len(table) for table in kept.values()] == [20, 9, 10]


@pytest.mark.parametrize("count", [60, 240])
def test_the_frames_of_a_clip_are_laid_over_each_other_a_few_times_each(table, monkeypatch, count):
    counts = []
    monkeypatch.setattr(duplicates, "_PICTURES", 16)
    monkeypatch.setattr(duplicates, "best_match", lambda a, b, **o: counts.append(len(a)) or best_match(a, b, **o))
    splits = {}
    for seed, name in enumerate(("train", "test")):
        frames = table({"happiness": count // 2, "anger": count // 2}, size=48)
        noise = torch.randn(frames.images.shape, generator=torch.Generator().manual_seed(seed))
        frames.images[:] = (frames.images[:1] * 0.8 + 30 + 2 * noise).to(torch.uint8)
        frames.images[::3] = frames.images[::3].flip(-1)
        splits[name] = frames
    (leak,) = leaks(splits)
    assert (leak.near, leak.near_other_label, leak.mirrored, leak.exact) == (count, count, 0, 0)
    assert len(leak.rows) == len(leak.other_rows) == count
    assert sum(counts) <= 2 * 8 * count  # each pair in place, too
