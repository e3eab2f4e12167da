import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.metrics.subjects import subject_scores


def test_nearest_person():
    # Three people on a line, two pictures each; the last picture's person is unknown.
    real = torch.tensor([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0], [30.0]])
    people = torch.tensor([4, 4, 5, 5, 6, 6, -1])
    made = torch.tensor([[0.1], [9.0], [1.4], [30.0]])
    source = torch.tensor([0, 2, 2, 4])
    scores = subject_scores(real, made, real_subject=people, subject=people[source], source_row=source)
    assert scores.kept.tolist() == [True, True, False, True]  # the unknown person at 30 is passed over
    assert scores.other.tolist() == [True, True, False, True]
    assert scores.comparable.all()
    torch.testing.assert_close(scores.chance, torch.full((4,), 2 / 6, dtype=torch.float64))


def test_an_edit_that_resembles_its_source_only():
    real = torch.tensor([[0.0], [5.0], [1.0]])
    people = torch.tensor([0, 0, 1])
    scores = subject_scores(
        real,
        torch.tensor([[0.1], [1.1]]),
        real_subject=people,
        subject=torch.tensor([0, 1]),
        source_row=torch.tensor([0, 2]),
    )
    assert scores.kept.tolist() == [True, True]
    assert scores.other.tolist() == [False, False]
    assert scores.comparable.tolist() == [True, False]  # the second person has one picture, which is the source


def test_without_subjects():
    with pytest.raises(InputError, match="no real face has a subject"):
        subject_scores(
            torch.zeros(3, 1),
            torch.zeros(1, 1),
            real_subject=torch.full((3,), -1),
            subject=torch.zeros(1, dtype=torch.int64),
            source_row=torch.full((1,), -1),
        )
