import pytest
import torch

from synthmtl.models.grain import grain_level, restore_grain


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("deviation", [0.02, 0.1])
def test_level_is_the_deviation_of_the_noise(channels, deviation):
    ramp = torch.linspace(-0.5, 0.5, 48).expand(4, channels, 48, 48)
    assert grain_level(ramp).max() < 1e-6
    torch.testing.assert_close(
        grain_level(ramp + deviation * normal(4, channels, 48, 48)), torch.full((4,), deviation), rtol=0.15, atol=0
    )


def test_edges_are_no_grain():
    square = torch.zeros(1, 1, 48, 48)
    square[..., 12:36, 12:36] = 1
    assert grain_level(square).item() == 0


def test_a_smooth_edit_gets_the_grain_of_its_source():
    source, edited = 0.05 * normal(3, 1, 48, 48), torch.zeros(3, 1, 48, 48)
    restored = restore_grain(edited, source, normal(3, 1, 48, 48, seed=1))
    torch.testing.assert_close(grain_level(restored), grain_level(source), rtol=0.15, atol=0)


def test_nothing_is_added_to_an_edit_with_grain():
    source, noise = 0.05 * normal(3, 1, 48, 48), normal(3, 1, 48, 48, seed=1)
    assert torch.equal(restore_grain(source, source, noise), source)
    assert torch.equal(restore_grain(2 * source, source, noise), 2 * source)
