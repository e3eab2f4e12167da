from types import SimpleNamespace

import pytest
from PIL import Image

from synthmtl.commands.shared import readable_faces
from synthmtl.errors import InputError


def test_good_images_come_first_and_the_others_are_named_at_the_end(tmp_path):
    """A folder is there, so "no such image file" would be wrong of it."""
    for name in ("a.png", "b.png"):
        Image.new("L", (16, 16)).save(tmp_path / name)
    model = SimpleNamespace(config=SimpleNamespace(image_size=8, image_channels=1))
    files = [str(tmp_path / name) for name in ("a.png", "", "none.png", "b.png")]
    faces, read = readable_faces(files, model), []
    with pytest.raises(InputError) as error:
        read += (face for face in faces)
    said = (
        f"2 of 4 images could not be read: {files[1]}: a folder: give the image files in it; {files[2]}: no such image"
    )
    assert str(error.value).startswith(said)
    assert [(number, file) for number, file, _ in readable_faces(files[::3], model)] == [(0, files[0]), (1, files[3])]
