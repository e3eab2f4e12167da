import warnings

import pytest
import torch
from prdc import compute_prdc
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from synthmtl.errors import InputError
from synthmtl.metrics.generation import (
    distances,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    mean_pair_distance,
    mean_perceptual_distance,
    nearest,
)


def draw(count, dimensions=12, seed=0, shift=0.0, scale=1.0):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) * scale + shift


def torchmetrics_of(metric, real, synthetic):
    metric.update(real, real=True)
    metric.update(synthetic, real=False)
    return metric.compute()


class Through(nn.Identity):
    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features


@pytest.mark.parametrize("counts", [(200, 150), (9, 7)])
def test_frechet_distance_is_torchmetrics(counts):
    real, synthetic = draw(counts[0], 24), draw(counts[1], 24, seed=1, shift=0.5)
    expected = torchmetrics_of(FrechetInceptionDistance(Through(24), normalize=True), real, synthetic)
    assert frechet_distance(real, synthetic) == pytest.approx(float(expected), rel=1e-4)


def test_frechet_distance_of_gaussians():
    shifted = frechet_distance(draw(4000, 4), draw(4000, 4, seed=1, shift=1.0))
    assert shifted == pytest.approx(4, rel=0.05)  # ‖μ - μ'‖² of four dimensions
    wider = frechet_distance(draw(4000, 4), draw(4000, 4, seed=1, scale=3.0))
    assert wider == pytest.approx(4 * (3 - 1) ** 2, rel=0.05)


def test_kernel_distance_is_torchmetrics():
    real, synthetic = draw(120), draw(100, seed=1, shift=0.3)
    found = kernel_distance(real, synthetic, subsets=300)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(0)
        metric = KernelInceptionDistance(nn.Identity(), subsets=300, subset_size=50)
        mean, deviation = torchmetrics_of(metric, real, synthetic)
    assert found.subset_size == 50 and found.subsets == 300
    assert abs(found.value - float(mean)) < 4 * float(deviation) * (2 / 300) ** 0.5
    low, high = found.ci95
    assert low < found.value < high and (high - low) / (2 * 1.96) == pytest.approx(float(deviation), rel=0.2)
    assert kernel_distance(real, synthetic, subsets=300) == found
    assert kernel_distance(real, synthetic, subsets=300, seed=1) != found


def test_manifold_scores_are_those_of_prdc(capsys):
    for k in (1, 3, 5):
        real, synthetic = draw(130), draw(90, seed=1, shift=0.4, scale=0.8)
        expected = compute_prdc(real.numpy(), synthetic.numpy(), k)
        found = vars(manifold_scores(real, synthetic, k=k))
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_what_each_of_the_four_tells():
    real = draw(400, 6)
    good = manifold_scores(real, draw(400, 6, seed=1))
    narrow = manifold_scores(real, draw(400, 6, seed=1, scale=0.3))
    wild = manifold_scores(real, draw(400, 6, seed=1, scale=4.0))
    assert min(good.precision, good.recall, good.coverage) > 0.8 and good.density == pytest.approx(1, abs=0.15)
    assert narrow.precision > 0.95 and narrow.recall < 0.1 and narrow.coverage < 0.6
    assert wild.precision < 0.3 and wild.density < 0.1 and wild.coverage < 0.5


def test_a_set_against_itself_and_against_noise():
    real = draw(150)
    real[7] = real[3]  # a repeated face
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-4)
    assert kernel_distance(real, real).value < 0.01
    same = manifold_scores(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    noise = draw(150, seed=2, shift=30.0)
    far = manifold_scores(real, noise)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    assert frechet_distance(real, noise) > 1000


def test_distances_are_exact_for_equal_faces():
    features = draw(700) + 1000  # far from the origin, where rounding is worst; more than a chunk
    together = torch.cat([distance for _, distance in distances(features, features)])
    torch.testing.assert_close(together, torch.cdist(features.double(), features.double()), atol=1e-6, rtol=1e-6)
    assert (together.diagonal() == 0).all()
    distance, row = nearest(features, None, k=2)
    slow = together.clone().fill_diagonal_(float("inf")).topk(2, largest=False)
    assert torch.equal(row, slow.indices) and torch.equal(distance, slow.values)
    distance, row = nearest(features[:9], features)
    assert row[:, 0].tolist() == list(range(9)) and (distance == 0).all()
    assert mean_pair_distance(features[:50]) == pytest.approx(float(together[:50, :50].sum() / (50 * 49)))


def test_perceptual_variety_pairs_different_faces():
    class Difference(nn.Module):
        def forward(self, a, b):
            return (a - b).abs().flatten(1).mean(1)

    images = torch.arange(0, 200, 50, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 4, 4)
    found = mean_perceptual_distance(Difference(), images, pairs=3000)
    assert found == pytest.approx(250 / 3 / 127.5, rel=0.05)  # levels 0, 50, 100, 150 lie 250 / 3 apart on average
    assert mean_perceptual_distance(Difference(), images[:2], pairs=5) == pytest.approx(50 / 127.5, rel=1e-5)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, manifold_scores])
def test_too_few_faces_are_counted_in_the_message(measure):
    with pytest.raises(InputError, match="1 synthesized faces, at least"):
        measure(draw(30), draw(1))
    with pytest.raises(InputError, match="1 real faces, at least"):
        measure(draw(1), draw(30))
