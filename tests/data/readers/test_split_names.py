from pathlib import PurePosixPath

import pytest

from synthmtl.data.readers.split_names import SPLIT_ALIASES, canonical_split, folders_of_parts, splits_in, splits_told


@pytest.mark.parametrize("alias", SPLIT_ALIASES)
def test_an_alias_is_found_wherever_it_stands(alias):
    split = SPLIT_ALIASES[alias]
    for spelled in (alias, alias.upper(), alias.replace("_", "-"), alias.replace("_", " ")):
        assert canonical_split(spelled) == split
        for stem in ("{}", "{}0", "{}_0", "{}-00000-of-00001", "fer_{}", "faces.{}.v2", "a-{}-b", "2013 {} 48px"):
            assert set(splits_in(stem.format(spelled)).values()) == {split}, stem


def test_a_word_within_a_word_is_none():
    for stem in ("restrained", "trainer", "testimony", "latest-00000", "invalid", "development", "values", "faces", ""):
        assert splits_in(stem) == {}


def test_two_splits_in_a_name_are_both_told():
    assert splits_in("train_test") == {"train": "train", "test": "test"}
    assert splits_in("train-training") == {"train": "train", "training": "train"}
    assert splits_in("fer_public_test") == splits_in("fer-Public.Test") == {"public_test": "validation"}


def test_a_folder_tells_as_much_as_a_word():
    assert splits_told(PurePosixPath("Val/000.tar")) == {"Val": "validation"}
    assert splits_told(PurePosixPath("train/test-0.tar")) == {"train": "train", "test": "test"}
    assert splits_told(PurePosixPath("data/000.tar")) == splits_told(PurePosixPath("restrained/0.tar")) == {}


def test_parts_lie_in_the_folder_and_by_split_in_it(tmp_path):
    for name in ("data/train", "default/validation", "Test", "other/train", "test/train"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "dev").touch()  # a file
    found = [folder.relative_to(tmp_path).as_posix() for folder in folders_of_parts(tmp_path)]
    assert found == [".", "data", "default", "Test", "test", "data/train", "default/validation"]
