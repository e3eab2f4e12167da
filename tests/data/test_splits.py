import logging

import numpy as np
import pytest
import torch

from synthmtl.data import splits
from synthmtl.data.splits import SHARES, check_classes, split_by_subject, split_unit, subject_folds
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

COUNTS = {"neutral": 120, "happiness": 200, "disgust": 12, "anger": 48}


def rows_of(table, parts):
    """Where each row of the parts stands in the table, by its picture."""
    place = {image.numpy().tobytes(): i for i, image in enumerate(table.images)}
    return {name: [place[image.numpy().tobytes()] for image in part.images] for name, part in parts.items()}


@pytest.mark.parametrize("subjects", [None, 60])
def test_every_row_goes_to_one_part(table, subjects):
    whole = table(COUNTS, subjects)
    rows = rows_of(whole, split_by_subject(whole, seed=3))
    assert sorted(sum(rows.values(), [])) == list(range(len(whole)))
    assert all(part == sorted(part) for part in rows.values())


@pytest.mark.parametrize("subjects", [None, 60])
@pytest.mark.parametrize("shares", [SHARES, {"test": 0.3, "train": 0.7}, {"train": 0.4, "test": 0.6}])
def test_the_largest_part_may_take_the_place_of_the_whole(table, subjects, shares):
    whole = table(COUNTS, subjects)
    copied = split_by_subject(whole, shares, seed=3)
    place = whole.images.data_ptr()
    parts = split_by_subject(whole, shares, seed=3, reuse=True)
    assert list(parts) == list(copied)
    assert all(parts[name].fingerprint() == part.fingerprint() for name, part in copied.items())
    at_the_place = [name for name, part in parts.items() if part.images.data_ptr() == place]
    assert at_the_place == [max(shares, key=shares.get)]


def test_parts_of_rows_that_follow_on_each_other_stay_when_the_largest_moves(table, monkeypatch):
    whole = table({"neutral": 6, "anger": 6})
    monkeypatch.setattr(splits, "_assign", lambda *_: np.repeat([0, 1], [4, 8]))
    first, rest = whole.select(range(4)), whole.select(range(4, 12))
    wanted = [first.fingerprint(), rest.fingerprint()]
    parts = split_by_subject(whole, {"test": 0.3, "train": 0.7}, reuse=True)
    assert [part.fingerprint() for part in parts.values()] == wanted


def test_no_subject_is_in_two_parts(table):
    parts = split_by_subject(table(COUNTS, 60), seed=1)
    people = [set(part.subject.tolist()) for part in parts.values()]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert set.union(*people) == set(range(60))


def test_by_image_classes_are_in_exact_proportion(table, caplog):
    whole = table(COUNTS)
    with caplog.at_level(logging.WARNING, "synthmtl"):
        parts = split_by_subject(whole, seed=1)
    assert split_unit(whole) == "image" and "no subject is known" in caplog.text
    for name, part in parts.items():
        for expression, count in part.counts().items():
            assert abs(count - SHARES[name] * COUNTS[expression]) <= 1.5


def test_by_subject_classes_are_near_proportion(table):
    for seed in range(5):
        parts = split_by_subject(table(COUNTS, 60), seed=seed)
        for name, part in parts.items():
            for expression, count in part.counts().items():
                assert abs(count / COUNTS[expression] - SHARES[name]) < 0.12
                assert count > 0


def test_seed_decides(table):
    whole = table(COUNTS, 60)
    one, same, other = (split_by_subject(whole, seed=seed)["test"].images for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize(("count", "expected"), [(2, (2, 0, 0)), (3, (2, 1, 0)), (4, (2, 1, 1))])
def test_rare_class_serves_training_first_then_every_part(table, count, expected):
    parts = split_by_subject(table({"neutral": 40, "fear": count}), seed=0)
    assert tuple(part.counts()["fear"] for part in parts.values()) == expected


def test_look_alikes_stay_together_when_no_subject_is_known(table, faces):
    whole = table({"neutral": 30, "fear": 30})
    copies = FaceTable.concatenate([whole, whole, whole])
    rows = [{image.numpy().tobytes() for image in part.images} for part in split_by_subject(copies, seed=0).values()]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])


def test_faces_without_subject_among_others(table, caplog):
    whole = table(COUNTS, 60)
    whole.subject[::10] = -1
    parts = split_by_subject(whole, seed=0)
    known = [set(part.subject[part.subject >= 0].tolist()) for part in parts.values()]
    assert not (known[0] & known[1] or known[0] & known[2] or known[1] & known[2])
    assert "38 faces have no subject" in caplog.text


def test_unlabelled_faces_are_spread_too(table):
    whole = table({"neutral": 40, "fear": 40})
    whole.expression[:40:2] = -1
    parts = split_by_subject(whole, seed=0)
    assert [int((part.expression < 0).sum()) for part in parts.values()] == [14, 3, 3]


def test_folds_cover_every_row_once(table):
    whole = table(COUNTS, 60)
    folds = subject_folds(whole, 5, seed=0)
    assert torch.equal(torch.cat([held_out for _, held_out in folds]).sort().values, torch.arange(len(whole)))
    for training, held_out in folds:
        assert len(training) + len(held_out) == len(whole)
        assert not set(whole.subject[training].tolist()) & set(whole.subject[held_out].tolist())
        assert all(whole.select(held_out).counts().values())


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"neutral": 10}, "only .*neutral.* expression"),
        ({}, "no faces"),
        ({"neutral": 10, "fear": 1}, "class 'fear' has one image"),
        ({"neutral": 10, "fear": 3, "anger": 0}, "class 'anger' has no images"),
    ],
)
def test_too_little_to_learn_from(table, counts, message):
    with pytest.raises(InputError, match=message):
        check_classes(table(counts))
    with pytest.raises(InputError, match=message):
        split_by_subject(table(counts))


@pytest.mark.parametrize("counts", [{"neutral": 10, "fear": 1}, {"neutral": 10, "fear": 3, "anger": 0}])
def test_a_class_need_not_have_two_faces_if_so_wished(table, counts):
    check_classes(table(counts), every_class=False)
    for few in ({"neutral": 10}, {"neutral": 10, "fear": 0}, {}):
        with pytest.raises(InputError, match="only .*neutral.* expression|no faces"):
            check_classes(table(few), every_class=False)


@pytest.mark.parametrize(("common", "subjects"), [(3, None), (4, None), (40, None), (4, 4), (40, 9)])
def test_the_one_face_of_a_class_serves_training(table, subjects, common):
    counts = {"neutral": common, "happiness": common, "fear": 1, "anger": 1}
    for seed in range(8):
        parts = split_by_subject(table(counts, subjects), seed=seed, every_class=False)
        assert all(len(part) for part in parts.values())
        assert [part.counts()["fear"] + part.counts()["anger"] for part in parts.values()] == [2, 0, 0]


@pytest.mark.parametrize("counts", [{"neutral": 3, "fear": 1}, {"fear": 1, "neutral": 4}, {"neutral": 3, "fear": 2}])
def test_of_few_faces_those_go_that_are_not_the_last_of_their_class(table, counts):
    parts = split_by_subject(table(counts), every_class=False)
    assert all(len(part) for part in parts.values()) and all(parts["train"].counts().values())


def test_too_few_subjects_or_bad_arguments(table):
    with pytest.raises(InputError, match="2 subjects cannot be split into 3 parts"):
        split_by_subject(table({"neutral": 10, "fear": 10}, subjects=2))
    with pytest.raises(InputError, match="sum to 1"):
        split_by_subject(table(COUNTS), {"train": 0.7, "test": 0.7})
    with pytest.raises(InputError, match="folds"):
        subject_folds(table(COUNTS), 1)


@pytest.mark.parametrize("counts", [(2, 2), (3, 3, 3)])
def test_few_faces_leave_no_part_empty(counts):
    expression = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.randint(0, 256, (len(expression), 1, 16, 16), dtype=torch.uint8)
    parts = split_by_subject(FaceTable(images, ("neutral", "happiness", "fear")[: len(counts)], expression=expression))
    assert all(len(part) for part in parts.values()) and sum(map(len, parts.values())) == len(expression)


def test_any_seed_splits_and_those_from_zero_up_as_numpy_draws(table, monkeypatch):
    whole, drawn = table(COUNTS, 60), []
    default_rng = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn.append(seed) or default_rng(seed))
    one, same, other = (split_by_subject(whole, seed=seed) for seed in (-1, -1, -2))
    assert [one[name].fingerprint() for name in SHARES] == [same[name].fingerprint() for name in SHARES]
    assert one["test"].fingerprint() != other["test"].fingerprint()
    assert len(subject_folds(whole, 3, seed=-5)) == 3
    split_by_subject(whole, seed=0), split_by_subject(whole, seed=7)
    assert drawn[4:] == [0, 7] and min(drawn) >= 0
