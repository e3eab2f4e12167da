import json

import pytest

from synthmtl.errors import InputError
from synthmtl.experiment.workspace import OPTIONS, Unit, check_out, claim, open_out, write_json


@pytest.fixture
def run(tmp_path):
    """A folder that belongs to a run."""
    out = open_out(tmp_path / "run")
    claim(out, {"steps": 3, "faces": {"size": (32, 32)}})
    (out / "kept.txt").write_text("kept")
    return out


def test_new_and_empty_folders_are_opened(tmp_path):
    assert open_out(tmp_path / "a" / "b").is_dir()
    assert open_out(tmp_path / "a" / "b").is_dir()


def test_existing_folder_is_continued_or_replaced_on_request_only(run):
    with pytest.raises(InputError, match="--resume continues it, --overwrite replaces it"):
        open_out(run)
    with pytest.raises(InputError, match="exclude each other"):
        open_out(run, resume=True, overwrite=True)
    assert open_out(run, resume=True) == run and (run / "kept.txt").read_text() == "kept"
    open_out(run, overwrite=True)
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_folders_of_others_are_left_alone(tmp_path, how):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.png").write_text("precious")
    with pytest.raises(InputError, match="not made by synthmtl"):
        open_out(tmp_path / "photos", **{how: True})
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["mine.png"]


def test_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        open_out(tmp_path / "file", overwrite=True)
    with pytest.raises(InputError, match="cannot be made"):
        open_out(tmp_path / "file" / "below")


def test_checking_changes_nothing(run, tmp_path):
    check_out(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    check_out(run, overwrite=True)
    assert (run / "kept.txt").exists()


def test_claim_names_the_first_option_that_differs(run):
    claim(run, {"steps": 3, "faces": {"size": [32, 32]}})
    with pytest.raises(InputError, match=r"another faces.size \(\[32, 32\] there, \[48, 48\] now\)"):
        claim(run, {"steps": 3, "faces": {"size": (48, 48)}})
    with pytest.raises(InputError, match=r"another seed \(None there, 1 now\)"):
        claim(run, {"steps": 3, "faces": {"size": (32, 32)}, "seed": 1})
    assert json.loads((run / OPTIONS).read_text())["steps"] == 3


def test_unit_is_finished_once_its_result_is_whole(tmp_path):
    unit = Unit(tmp_path, "cells/plain/seed0")
    assert unit.result is None
    (unit.directory / "checkpoints").mkdir()
    with pytest.raises(ValueError):
        unit.finish({"score": float("nan")})
    assert Unit(tmp_path, "cells/plain/seed0").result is None
    unit.finish({"score": 0.5})
    assert Unit(tmp_path, "cells/plain/seed0").result == {"score": 0.5}
    assert not (unit.directory / "checkpoints").exists()


def test_broken_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
