"""FID and KID of our quality card against torch-fidelity, of the same features."""

import torch

from synthmtl.metrics.generation import frechet_distance, kernel_distance

from .timing import Row, compare, in_turn


def rows(tiny: bool) -> list[Row]:
    """Milliseconds, and in the case's name the two values, which must agree: FID exactly, KID up to its subsets."""
    try:
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
        from torch_fidelity.metric_kid import kid_features_to_metric
    except ImportError:
        return [Row("torch-fidelity is not installed", "", "", None)]
    count, width, subsets, size = (40, 16, 4, 20) if tiny else (2000, 1280, 20, 1000)
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    real, made = (torch.randn(count, width, generator=generator) @ mixing + shift for shift in (0.0, 0.1))

    def plain_fid() -> float:
        statistics = [fid_features_to_statistics(features) for features in (real, made)]
        return fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]

    def plain_kid() -> float:
        options = {"kid_subsets": subsets, "kid_subset_size": size, "verbose": False, "rng_seed": 0}
        return kid_features_to_metric(real, made, **options)["kernel_inception_distance_mean"]

    def our_kid() -> float:
        return kernel_distance(real, made, subsets=subsets, subset_size=size).value

    pairs = {"FID": (lambda: frechet_distance(real, made), plain_fid), "KID": (our_kid, plain_kid)}
    found = []
    for name, (ours, plain) in pairs.items():
        values = [ours(), plain()]
        calls = {side: lambda call=call: [call()] for side, call in (("ours", ours), ("plain", plain))}
        seconds = in_turn(calls, rounds=1 if tiny else 3, warmup=0)
        case = f"{name} of {count} × {width}: {values[0]:.4g} and {values[1]:.4g}"
        found.append(compare(case, *seconds.values()))
    return found
