import pytest
import torch
from torchmetrics.functional.regression import concordance_corrcoef, mean_squared_error, pearson_corrcoef

from synthmtl.errors import InputError
from synthmtl.losses import ConcordanceLoss
from synthmtl.metrics import affect_metrics
from synthmtl.metrics.affect import affect_sums


def example(count=500, seed=0):
    random = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, 2, generator=random) * 2 - 1
    noise = 0.3 * torch.randn(count, 2, generator=random)
    return (0.7 * truth + noise + torch.tensor([0.1, 0.3])).clip(-1, 1), truth


def test_agrees_with_torchmetrics():
    output, truth = example()
    result = affect_metrics(output, truth)
    for i, name in enumerate(("valence", "arousal")):
        x, y, scores = output[:, i].double(), truth[:, i].double(), result.per_dimension[name]
        assert scores["pearson"] == pytest.approx(pearson_corrcoef(x, y).item())
        assert scores["rmse"] == pytest.approx(mean_squared_error(x, y, squared=False).item())
        # Its variances are of n - 1, ours of n: with N copies of the faces the two meet.
        assert scores["ccc"] == pytest.approx(concordance_corrcoef(x, y).item(), abs=1e-3)
        assert scores["ccc"] == pytest.approx(concordance_corrcoef(x.repeat(999), y.repeat(999)).item(), abs=1e-6)
        assert scores["count"] == 500
    for key in ("ccc", "pearson", "rmse"):
        assert getattr(result, key) == pytest.approx(sum(v[key] for v in result.per_dimension.values()) / 2)
    assert (result.count, result.missing, result.absent) == (500, 0, [])


def test_is_what_the_loss_minimizes():
    output, truth = example()
    truth[::5, 0] = torch.nan
    assert affect_metrics(output, truth).ccc == pytest.approx(1 - ConcordanceLoss()(output, truth).item(), abs=1e-6)


def test_known_answers():
    _, truth = example()
    perfect = affect_metrics(truth, truth)
    assert (perfect.ccc, perfect.pearson, perfect.rmse) == (pytest.approx(1), pytest.approx(1), 0)
    shifted = affect_metrics(truth + 0.5, truth)
    assert shifted.pearson == pytest.approx(1) and shifted.rmse == pytest.approx(0.5)
    variance = truth.var(0, unbiased=False)
    assert shifted.ccc == pytest.approx((2 * variance / (2 * variance + 0.25)).mean().item(), rel=1e-5)
    collapsed = affect_metrics(torch.full_like(truth, 0.1), truth)
    assert collapsed.ccc == pytest.approx(0, abs=1e-9) and collapsed.pearson is None and collapsed.absent == []


def test_missing_labels_are_left_out_and_counted():
    output, truth = example()
    truth[:3] = torch.nan
    truth[3:100, 1] = torch.nan
    result = affect_metrics(output, truth)
    assert (result.count, result.missing) == (497, 3)
    assert (result.per_dimension["valence"]["count"], result.per_dimension["arousal"]["count"]) == (497, 400)
    rest = affect_metrics(output[100:], truth[100:])
    assert result.per_dimension["arousal"] == pytest.approx(rest.per_dimension["arousal"])


def test_a_dimension_without_varying_labels_is_named_and_left_out():
    output, truth = example()
    valence = affect_metrics(output, truth).per_dimension["valence"]
    truth[:, 1] = torch.nan
    result = affect_metrics(output, truth)
    assert result.absent == ["arousal"] and result.ccc == valence["ccc"] and result.rmse == valence["rmse"]
    assert result.per_dimension["arousal"] == {"ccc": None, "pearson": None, "rmse": None, "count": 0}
    truth[:, 1] = 0.3
    result = affect_metrics(output, truth)
    assert result.absent == ["arousal"] and result.ccc == valence["ccc"] and result.rmse != valence["rmse"]
    assert affect_metrics(output, torch.full_like(truth, 0.3)).ccc is None


def test_sums_give_the_same_score():
    outputs, truth = torch.stack([example(seed=s)[0] for s in range(3)]), example()[1]
    truth[:5], truth[7:50, 0] = torch.nan, torch.nan
    expected = [affect_metrics(output, truth).ccc for output in outputs]
    assert affect_sums(outputs, truth).points.tolist() == pytest.approx(expected)


def test_bad_input_is_named():
    output, truth = example()
    with pytest.raises(InputError, match="do not fit"):
        affect_metrics(output[:5], truth)
    with pytest.raises(InputError, match=r"\(faces, 2\)"):
        affect_metrics(output[:, :1], truth[:, :1])
    with pytest.raises(InputError, match="NaN"):
        affect_metrics(torch.full_like(output, torch.nan), truth)
    with pytest.raises(InputError, match="no face"):
        affect_metrics(output, torch.full_like(truth, torch.nan))
