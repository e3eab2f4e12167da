import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torchmetrics.functional.classification import multilabel_f1_score

from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS
from synthmtl.metrics import action_unit_metrics
from synthmtl.metrics.action_units import action_unit_sums, consistency


def example(count=200, seed=0):
    random = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, len(ACTION_UNITS), generator=random)
    return (0.6 * truth + 0.4 * torch.rand(truth.shape, generator=random)).clip(0, 1), truth


def two_way(table):
    """ICC(3,1) from the analysis of variance of ratings (targets, judges), as in Shrout and Fleiss (1979)."""
    targets, judges = table.shape
    between = judges * ((table.mean(1) - table.mean()) ** 2).sum() / (targets - 1)
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    error = (residual**2).sum() / ((targets - 1) * (judges - 1))
    return (between - error) / (between + (judges - 1) * error)


def test_f1_agrees_with_scikit_learn_and_torchmetrics():
    output, truth = example()
    result = action_unit_metrics(output, truth)
    expected = f1_score(truth >= 0.5, output >= 0.5, average=None)
    assert list(result.per_unit_f1.values()) == pytest.approx(expected.tolist())
    assert result.mean_f1 == pytest.approx(expected.mean())
    library = multilabel_f1_score(output, (truth >= 0.5).long(), num_labels=22, average="macro")
    assert result.mean_f1 == pytest.approx(library.item(), rel=1e-5)
    assert (result.count, result.missing, result.without_positives, result.without_variation) == (200, 0, [], [])


def test_icc_is_that_of_the_analysis_of_variance():
    # The table of Shrout and Fleiss (1979), whose ICC(3,1) is 0.71 for its four judges.
    table = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=np.float64
    )
    assert two_way(table) == pytest.approx(0.71, abs=0.005)
    for pair in ([0, 1], [1, 3], [2, 3]):
        assert consistency(table[:, pair[0]], table[:, pair[1]]) == pytest.approx(two_way(table[:, pair]))
    output, truth = example()
    result = action_unit_metrics(output, truth)
    expected = [two_way(torch.stack(pair, 1).double().numpy()) for pair in zip(output.T, truth.T, strict=True)]
    assert list(result.per_unit_icc.values()) == pytest.approx(expected)
    assert result.mean_icc == pytest.approx(np.mean(expected))


def test_a_constant_offset_costs_no_consistency_and_constant_predictions_have_none():
    _, truth = example()
    assert action_unit_metrics(truth / 2 + 0.25, truth / 2).mean_icc == pytest.approx(1)
    assert action_unit_metrics(torch.full_like(truth, 0.3), truth).mean_icc == 0


def test_missing_units_are_left_out_on_their_own_and_counted():
    output, truth = example()
    truth[0] = torch.nan
    truth[1:90, 3] = torch.nan
    result = action_unit_metrics(output, truth)
    assert (result.count, result.missing) == (199, 1)
    assert result.per_unit_count["AU5"] == 110 and result.per_unit_count["AU1"] == 199
    assert result.per_unit_f1["AU5"] == pytest.approx(f1_score(truth[90:, 3] >= 0.5, output[90:, 3] >= 0.5))
    known = torch.stack([output[90:, 3], truth[90:, 3]], 1).double().numpy()
    assert result.per_unit_icc["AU5"] == pytest.approx(two_way(known))
    changed = output.clone()
    changed[0], changed[1:90, 3] = 0.9, 0.1
    assert action_unit_metrics(changed, truth) == result


def test_units_without_positives_or_variation_are_named_and_left_out_of_the_means():
    output, truth = example()
    truth[:, 0] = 0.2
    truth[:, 1] = torch.nan
    truth[:, 2] *= 0.4
    result = action_unit_metrics(output, truth)
    assert result.without_positives == ["AU1", "AU2", "AU4"] and result.without_variation == ["AU1", "AU2"]
    assert result.per_unit_f1["AU4"] is None and result.per_unit_icc["AU4"] is not None
    assert result.mean_f1 == pytest.approx(np.mean([v for v in result.per_unit_f1.values() if v is not None]))
    nothing = action_unit_metrics(output, torch.where(truth.isnan(), truth, 0.1))
    assert nothing.mean_f1 is None and nothing.mean_icc is None and nothing.count == 200


def test_sums_give_the_same_score():
    outputs, truth = torch.stack([example(seed=s)[0] for s in range(3)]), example()[1]
    truth[:5], truth[7:50, 4], truth[:, 9] = torch.nan, torch.nan, 0.0
    expected = [action_unit_metrics(output, truth).mean_f1 for output in outputs]
    assert action_unit_sums(outputs, truth).points.tolist() == pytest.approx(expected)


GRADES = torch.arange(6.0).repeat_interleave(22).reshape(-1, 22) / 5


@pytest.mark.parametrize(("threshold", "least"), [(0.2, 1), (0.4, 2), (0.6, 3), (0.8, 4), (1.0, 5)])
def test_published_rules_are_thresholds_of_grades(threshold, least):
    active = (torch.arange(6.0) >= least).float()[:, None].expand(6, 22)
    for perfect in (GRADES, active):
        result = action_unit_metrics(perfect, GRADES, threshold=threshold)
        assert (result.mean_f1, result.threshold) == (1.0, threshold)
    none_found = action_unit_metrics(torch.zeros_like(GRADES), GRADES, threshold=threshold)
    assert none_found.mean_f1 == 0 and none_found.without_positives == []
    below = action_unit_metrics(GRADES[:least], GRADES[:least], threshold=threshold)
    assert below.mean_f1 is None and len(below.without_positives) == 22


def test_the_threshold_of_sums_is_that_of_the_metrics():
    output, truth = example()
    default = action_unit_metrics(output, truth)
    assert default == action_unit_metrics(output, truth, threshold=0.5) and default.threshold == 0.5
    for threshold in (0.3, 0.7):
        result = action_unit_metrics(output, truth, threshold=threshold)
        expected = f1_score(truth >= threshold, output >= threshold, average="macro")
        assert result.mean_f1 == pytest.approx(expected) != default.mean_f1
        assert action_unit_sums(output, truth, threshold=threshold).points.tolist() == pytest.approx([expected])
        assert result.mean_icc == default.mean_icc


def test_a_label_at_the_threshold_is_active():
    for tenth in range(1, 11):
        labels = torch.full((1, 22), tenth / 10)
        assert action_unit_metrics(labels, labels, threshold=tenth / 10).mean_f1 == 1


def test_bad_input_is_named():
    output, truth = example()
    for threshold in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"the threshold of action units lies in \(0, 1\], not "):
            action_unit_metrics(output, truth, threshold=threshold)
    with pytest.raises(InputError, match="do not fit"):
        action_unit_metrics(output[:, :5], truth)
    with pytest.raises(InputError, match="22"):
        action_unit_metrics(output[:, :5], truth[:, :5])
    with pytest.raises(InputError, match="NaN"):
        action_unit_metrics(torch.full_like(output, torch.nan), truth)
    with pytest.raises(InputError, match="no face of the split has an action unit label"):
        action_unit_metrics(output, torch.full_like(truth, torch.nan))
