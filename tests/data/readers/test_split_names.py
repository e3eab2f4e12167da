import pytest

from synthmtl.data.readers.split_names import SPLIT_ALIASES, canonical_split, splits_in


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
