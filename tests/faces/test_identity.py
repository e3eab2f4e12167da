import numpy as np

from synthmtl.faces.head import head
from synthmtl.faces.identity import appearance, shapes


def test_a_subject_is_the_same_in_any_company():
    assert np.array_equal(shapes(0, [3, 40])[1], shapes(0, [40])[0])
    assert appearance(0, 3).skin.tolist() == appearance(0, 3).skin.tolist()


def test_subjects_and_seeds_differ_within_plausible_ranges():
    people = shapes(0, list(range(16)))
    assert not np.array_equal(people[0], shapes(1, [0])[0])
    points = people[:, head().landmarks]
    width = np.ptp(points[:, :17, 0], axis=1)
    height = np.ptp(points[..., 2], axis=1)
    assert width.std() > 0.001
    assert (width > 0.10).all() and (width < 0.19).all()
    assert (height > 0.09).all() and (height < 0.19).all()


def test_shapes_are_symmetric():
    eyes = shapes(0, list(range(8)))[:, head().landmarks][:, [36, 45]]
    assert np.abs(eyes[:, 0, 0] + eyes[:, 1, 0]).max() < 1e-3
    assert np.abs(eyes[:, 0, 1:] - eyes[:, 1, 1:]).max() < 1e-3


def test_colors_are_colors():
    for subject in range(50):
        look = appearance(0, subject)
        for color in (look.skin, look.lips, look.brow, look.hair, look.iris):
            assert color.min() >= 0 and color.max() <= 1
        assert look.brow.mean() < look.skin.mean()
