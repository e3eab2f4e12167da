"""Processes that share cells, played by threads around one store."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from synthmtl.errors import InputError
from synthmtl.study.ranks import Ranks, launched


def together(call, world=3):
    """What ``call`` returns in each of ``world`` processes."""
    store = HashStore()
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(lambda rank: call(Ranks(rank, world, store)), range(world)))


def test_every_item_falls_to_one_process():
    def run(ranks):
        dealt = list(ranks.deal(range(20)))
        ranks.wait()
        return dealt

    parts = together(run)
    assert sorted(item for part in parts for item in part) == list(range(20))


def test_the_first_process_acts_for_all_and_its_error_is_everyones():
    done = []
    together(lambda ranks: (ranks.first(lambda: done.append(1)), ranks.first(lambda: done.append(2))))
    assert done == [1, 2]

    def refuse():
        raise InputError("not here")

    def run(ranks):
        with pytest.raises(InputError, match="not here"):
            ranks.first(refuse)
        return True

    assert together(run) == [True] * 3


def test_alone_without_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched() as ranks:
        assert (ranks.rank, ranks.world, list(ranks.deal("abc"))) == (0, 1, ["a", "b", "c"])
        ranks.wait()


def test_texts_of_all_are_gathered_in_the_order_of_their_ranks():
    def run(ranks):
        return ranks.gather(f"a{ranks.rank}"), ranks.gather(f"b{ranks.rank}")

    assert together(run) == [(["a0", "a1", "a2"], ["b0", "b1", "b2"])] * 3
    assert Ranks().gather("alone") == ["alone"]
