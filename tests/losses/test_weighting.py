import torch

from synthmtl.losses.weighting import weighted_mean


def test_weighted_mean():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert weighted_mean(values, torch.tensor([True, False, True])) == 3.5
    assert weighted_mean(values, torch.zeros(3, dtype=torch.bool)) == 0
