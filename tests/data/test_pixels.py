import torch

from synthmtl.data.pixels import to_pixels, to_unit


def test_every_level_comes_back():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(levels)
    assert unit.dtype == torch.float32 and (unit[0], unit[-1]) == (-1, 1)
    assert torch.equal(to_pixels(unit), levels)


def test_what_lies_beyond_is_cut_and_the_faces_stay_as_they_are():
    faces = torch.tensor([-3.0, -1.001, 0.0, 1.2, 50.0])
    before = faces.clone()
    assert to_pixels(faces).tolist() == [0, 0, 128, 255, 255]  # 127.5 is rounded to even
    assert torch.equal(faces, before)


def test_a_device_may_be_named():
    assert to_unit(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "meta").device.type == "meta"
