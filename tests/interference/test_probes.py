import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from synthmtl.errors import InputError
from synthmtl.interference import linear_probe, probe_targets, split_rows
from synthmtl.interference.probes import fit_discriminant, fit_ridge


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_ridge_equals_the_closed_formula_and_scikit_learn():
    x, noise = normal(50, 4) + 3, normal(50, 2, seed=1)
    y = x @ normal(4, 2, seed=2) + noise
    for penalty, w, b in zip((0.1, 10.0), *fit_ridge(x, y, (0.1, 10.0)), strict=True):
        c = x - x.mean(0)
        formula = torch.linalg.solve(c.T @ c + 50 * penalty * torch.eye(4), c.T @ (y - y.mean(0)))
        torch.testing.assert_close(w, formula)
        judge = Ridge(alpha=50 * penalty).fit(x.numpy(), y.numpy())
        np.testing.assert_allclose((x @ w + b).numpy(), judge.predict(x.numpy()), atol=1e-8)


def test_discriminant_equals_scikit_learn():
    y = torch.arange(90) % 3
    x = normal(90, 5) + 2 * normal(3, 5, seed=1)[y]
    w, b = (parts[0] for parts in fit_discriminant(x, y, (0.5,)))
    # Scikit-learn has no ridge: rows of its own make the covariance within classes what the ridge makes it.
    judge = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3)
    means = torch.stack([x[y == k].mean(0) for k in range(3)])
    corners = (90 * 0.5 / 6) ** 0.5 * torch.eye(5).double().repeat(3, 1)
    extra = torch.cat([means.repeat_interleave(5, 0) + corners, means.repeat_interleave(5, 0) - corners])
    judge.fit(torch.cat([x, extra]).numpy(), torch.cat([y, torch.arange(3).repeat_interleave(5).repeat(2)]).numpy())
    assert torch.equal((x @ w + b).argmax(1), torch.from_numpy(judge.predict(x.numpy())))
    # Its covariance divides by 90 + 30 rows, a common factor of all functions.
    np.testing.assert_allclose(judge.coef_ * 90 / 120, w.T.numpy(), atol=1e-8)


def test_a_class_between_two_others_is_read():
    y = torch.arange(300) % 3
    x = y[:, None] + 0.05 * normal(300, 1)
    assert linear_probe(x, y, split_rows(torch.arange(300))).value == 1


def test_scores_are_zero_for_noise_and_one_for_copies():
    subject = torch.arange(600) // 10
    x, expression, yaw = normal(600, 4), torch.arange(600) % 4, normal(600, seed=3)
    split = split_rows(subject)
    copies = torch.cat([torch.nn.functional.one_hot(expression), yaw[:, None]], 1)
    for target in (expression, yaw):
        read, noise = linear_probe(copies, target, split), linear_probe(x, target, split)
        assert read.score == pytest.approx(1, abs=1e-3)
        assert noise.score < 0.1 and noise.value < noise.chance + 0.1
    assert linear_probe(x, expression, split).chance == 0.25


def test_r_squared_is_the_mean_over_columns_on_rows_never_seen():
    x = normal(300, 3)
    y = torch.stack([x[:, 0], normal(300, seed=5)], 1)
    split = split_rows(torch.arange(300))
    both, one, other = (linear_probe(x, target, split).value for target in (y, y[:, 0], y[:, 1]))
    assert one == pytest.approx(1, abs=1e-3) and abs(other) < 0.2
    assert both == pytest.approx((one + other) / 2, abs=0.02)


def test_missing_labels_are_left_out():
    x, y = normal(200, 3), torch.arange(200) % 2
    split = split_rows(torch.arange(200))
    y[split.test[:5]] = -1
    rows = linear_probe(x, y, split).rows
    assert rows == {"train": len(split.train), "validation": len(split.validation), "test": len(split.test) - 5}
    numbers = normal(200)
    numbers[split.train[:7]] = float("nan")
    assert linear_probe(x, numbers, split).rows["train"] == len(split.train) - 7


def test_a_constant_has_nothing_to_read():
    x, split = normal(60, 3), split_rows(torch.arange(60))
    for target in (torch.zeros(60), torch.full((60,), 3)):
        result = linear_probe(x, target, split)
        assert (result.value, result.score, result.penalty) == (None, None, None)


def test_split_keeps_units_on_one_side():
    subject = torch.arange(400) // 8
    subject[:20] = -1
    split = split_rows(subject, seed=1)
    parts = [set(subject[rows].tolist()) for rows in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == pytest.approx([0.6 * 48, 0.2 * 48, 0.2 * 48], abs=1)
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == 48  # two and a half units were left out
    assert -1 not in set().union(*parts)


def test_split_within_subjects_keeps_sessions_on_one_side():
    subject, session = torch.arange(600) // 10, torch.arange(600) // 2 % 5
    split = split_rows(session, within=subject, seed=1)
    whole = subject * 5 + session
    parts = [rows for rows in (split.train, split.validation, split.test)]
    assert len(torch.cat(parts).unique()) == 600
    units = [set(whole[rows].tolist()) for rows in parts]
    assert units[0].isdisjoint(units[1] | units[2]) and units[1].isdisjoint(units[2])
    assert set(subject[split.train].tolist()) == set(range(60))
    assert [len(rows) / 600 for rows in parts] == pytest.approx([0.6, 0.2, 0.2], abs=0.05)


def test_subjects_are_read_on_their_other_sessions_and_all_else_on_other_subjects():
    subject, session = torch.arange(400) // 20, torch.arange(400) // 2 % 10
    faces = torch.nn.functional.one_hot(subject).double() + 0.01 * normal(400, 20)
    targets = {"subject": subject, "expression": torch.arange(400) % 2, "of_the_subject": subject % 2}
    found = probe_targets(faces, targets, subject, session=session)
    assert found["subject"].value == 1 and found["subject"].chance == 1 / 20
    assert found["expression"].score < 0.2
    assert found["of_the_subject"].score < 0.7  # known of the people in training, not of new ones


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_rows(torch.tensor([0, 0, 1, 1])), "2 units"),
        (lambda: linear_probe(normal(5, 2), torch.zeros(4), split_rows(torch.arange(5))), "N rows each"),
        (lambda: linear_probe(normal(9, 2) / 0, torch.zeros(9), split_rows(torch.arange(9))), "not finite"),
        (lambda: linear_probe(normal(9, 2), torch.full((9,), -1), split_rows(torch.arange(9))), "no labelled row"),
    ],
)
def test_bad_usage_is_told(call, message):
    with pytest.raises(InputError, match=message):
        call()
