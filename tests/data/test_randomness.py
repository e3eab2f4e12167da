import pytest
import torch

from synthmtl.data.randomness import StepRandom, derive_seed

DRAWS = {
    "uniform": lambda random, count: random.uniform("u", count, 3, low=-2.0, high=5.0),
    "normal": lambda random, count: random.normal("n", count, 2, 2),
    "integers": lambda random, count: random.integers("i", 2, 9, count),
    "positions": lambda random, count: random.positions(count),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("world", [2, 3])
def test_interleaved_processes_draw_what_one_does(draw, world):
    one = draw(StepRandom(5, 8), 4 * world)
    several = [draw(StepRandom(5, 8, rank=rank, world=world), 4) for rank in range(world)]
    assert torch.equal(torch.stack(several, 1).flatten(0, 1), one)


def test_shared_integers_are_the_same_in_every_process():
    draws = [StepRandom(1, 2, rank=rank, world=3).shared_integers("s", 10, 5).tolist() for rank in range(3)]
    assert draws[0] == draws[1] == draws[2]
    assert all(0 <= number < 10 for number in draws[0])


def test_numbers_depend_on_seed_step_and_name_only():
    def numbers(seed, step, name):
        return tuple(StepRandom(seed, step).uniform(name, 4).tolist())

    kinds = {numbers(seed, step, name) for seed in (0, 1) for step in (0, 1) for name in ("a", "b")}
    assert len(kinds) == 8
    random = StepRandom(0, 0)
    first = random.uniform("a", 4)
    random.normal("b", 7)
    torch.rand(3)
    assert torch.equal(random.uniform("a", 4), first)
    assert torch.equal(random.to("cpu").uniform("a", 4), first)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    for draw in DRAWS.values():
        draw(StepRandom(0, 0), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_ranges():
    random = StepRandom(0, 0)
    uniform = random.uniform("u", 10_000, low=-2.0, high=5.0)
    assert -2 <= uniform.min() < -1.9 and 4.9 < uniform.max() <= 5
    assert set(random.integers("i", 2, 9, 1000).tolist()) == set(range(2, 9))
    normal = random.normal("n", 10_000)
    assert abs(normal.mean()) < 0.05 and abs(normal.std() - 1) < 0.05


def test_derived_seeds():
    seeds = [derive_seed(*parts) for parts in [(1, 2), (12,), ("1", "2", ""), (2, 1), ("12", ""), ()]]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "style", 3) == 6931938998772993203
