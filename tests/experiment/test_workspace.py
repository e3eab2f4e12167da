import json
import os
import shutil

import pytest
import torch

from synthmtl.data import FaceTable
from synthmtl.errors import InputError
from synthmtl.experiment.workspace import (
    DATA,
    OPTIONS,
    Unit,
    check_file,
    check_out,
    claim,
    describe_data,
    open_out,
    write_json,
)


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


@pytest.mark.parametrize("below", ["", "model/config.json"])
def test_what_is_read_is_not_replaced(run, below, monkeypatch):
    source = run / below
    if below:
        source.parent.mkdir()
        source.write_text("{}")
    monkeypatch.chdir(run.parent)
    options = {"seed": 0, "faces": {"path": str(source.relative_to(run.parent))}, "images": ["a" * 999, "\0"]}
    with pytest.raises(InputError, match="which is read, so it is not replaced"):
        check_out(run, overwrite=True, options=options)
    check_out(run, overwrite=True, options={"synthesis": {"labeler": str(run.parent)}})
    check_out(run, resume=True, options=options)


OF_FACES = {
    "balance": lambda faces: {"model": "runs", "data": faces},
    "run": lambda faces: {"faces": {"path": faces}},
    "mixture": lambda faces: {"data": {"other": {"path": None}, "mine": {"path": faces}}},
    "downstream": lambda faces: {"balanced": faces, "faces": {"path": None}},
}


@pytest.mark.parametrize("command", OF_FACES)
def test_nothing_is_put_among_faces_that_are_read(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    faces, linked = tmp_path / "faces", tmp_path / "linked"
    (faces / "train").mkdir(parents=True)
    linked.symlink_to(faces, target_is_directory=True)
    claim(open_out(faces / "finished"), {"steps": 3})
    for read in ("faces", str(faces), "./faces/", str(linked)):
        for below in ("faces/new", faces / "train" / "new", linked / "a" / "new", "faces/../linked/new"):
            with pytest.raises(InputError, match=r"new: lies in .*, where all is read as faces; give another --out"):
                check_out(below, options=OF_FACES[command](read))
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match="finished: lies in "):
                check_out(faces / "finished", options=OF_FACES[command](read), **how)
        for beside in ("faces2", "new", "out/faces/new", "faces/../new"):
            check_out(beside, options=OF_FACES[command](read))


def test_results_may_lie_in_folders_of_which_not_all_is_read(run):
    archive = run / "faces.zip"
    archive.write_bytes(b"")
    named = {"model": str(run), "judge": str(run), "images": [str(run)], "synthesis": {"labeler": str(run)}}
    check_out(run / "balanced", options=named | {"data": str(archive)})
    check_out(run / "balanced", options=named | {"data": "hf:faces", "faces": {"path": None}})


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
    with pytest.raises(InputError, match="file/below: cannot be made, .*/file is a file"):
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


def test_what_changes_nothing_that_is_made_may_change(tmp_path):
    claim(tmp_path, {"steps": 3, "workers": 2, "tracker": "none"})
    claim(tmp_path, {"steps": 3, "workers": 1, "tracker": "wandb"})
    # Earlier versions wrote them down.
    (tmp_path / OPTIONS).write_text(json.dumps({"steps": 3, "workers": 4}))
    claim(tmp_path, {"steps": 3, "workers": None})
    with pytest.raises(InputError, match="another steps"):
        claim(tmp_path, {"steps": 4, "workers": None})


def test_how_often_trainings_are_saved_may_change(tmp_path):
    def options(rate=0.1, **saving):
        variants = {"a": {"training.learning_rate": rate} | {f"training.{name}": v for name, v in saving.items()}}
        return {"joint": {"learning_rate": rate} | saving, "variants": variants}

    claim(tmp_path, options(checkpoint_every_minutes=5.0, checkpoint_every_steps=None, keep_checkpoints=2))
    claim(tmp_path, options(checkpoint_every_minutes=None, checkpoint_every_steps=9, keep_checkpoints=1))
    # Earlier versions wrote them down.
    (tmp_path / OPTIONS).write_text(json.dumps(options(checkpoint_every_minutes=5.0)))
    claim(tmp_path, options(checkpoint_every_minutes=1.0))
    with pytest.raises(InputError, match=r"another joint.learning_rate \(0.1 there, 0.2 now\)"):
        claim(tmp_path, options(0.2, checkpoint_every_minutes=5.0))


GROWING = ("grid.seeds", "variants", "only")


def growing(seeds=(0, 1), variants=None, only=("a",), steps=3):
    return {"grid": {"seeds": list(seeds)}, "variants": variants or {}, "only": only and list(only), "steps": steps}


@pytest.mark.parametrize(
    "more",
    [{"seeds": (0, 1, 2)}, {"seeds": (2, 1, 0)}, {"variants": {"b": {"x": 1}}}, {"only": None}, {"only": ("b", "a")}],
)
def test_what_may_grow_is_recorded_anew(tmp_path, more):
    run = open_out(tmp_path / "run")
    claim(run, growing(), may_grow=GROWING)
    before = (run / OPTIONS).read_bytes()
    claim(run, growing(**more), may_grow=GROWING, record=False)
    assert (run / OPTIONS).read_bytes() == before
    with pytest.raises(InputError, match="belongs to a run with another"):
        claim(run, growing(**more))
    claim(run, growing(**more), may_grow=GROWING)
    claim(run, growing(**more))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seeds": (0, 2)}, r"grid.seeds \(\[0, 1\] there, \[0, 2\] now\)"),
        ({"variants": {"b": {"x": 2}}}, r"variants.b.x \(1 there, 2 now\)"),
        ({"only": ("b",)}, r"only \(\['a'\] there, \['b'\] now\)"),
        ({"steps": 4}, "steps"),
    ],
)
def test_what_was_made_must_be_among_what_has_grown(tmp_path, other, named):
    run, begun = open_out(tmp_path / "run"), growing(variants={"b": {"x": 1}})
    claim(run, begun, may_grow=GROWING)
    with pytest.raises(InputError, match=f"another {named}"):
        claim(run, growing(**{"variants": {"b": {"x": 1}}} | other), may_grow=GROWING)
    assert json.loads((run / OPTIONS).read_text()) == begun


def test_what_has_grown_may_read_more_faces_but_no_others(tmp_path):
    def described(**counts):
        return {name: {"faces": n, "counts": {}, "fingerprint": str(n)} for name, n in counts.items()}

    run = open_out(tmp_path / "run")
    claim(run, growing((0,)), described(train=3), may_grow=GROWING)
    with pytest.raises(InputError, match="data have changed .* train: 3 faces then, 4 now"):
        claim(run, growing(), described(train=4, more=2), may_grow=GROWING)
    assert json.loads((run / OPTIONS).read_text()) == growing((0,))
    claim(run, growing(), described(more=2), may_grow=GROWING)
    claim(run, growing(), described(train=3, more=2))
    with pytest.raises(InputError, match="data have changed .* more: 2 faces then, 0 now"):
        claim(run, growing(), described(train=3))


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


def test_a_process_killed_while_it_claimed_a_folder_may_go_on(tmp_path):
    (tmp_path / f".{OPTIONS}.part").write_text('{"ste')
    claim(open_out(tmp_path, resume=True), {"steps": 3})
    assert [path.name for path in tmp_path.iterdir()] == [OPTIONS]


def test_a_process_killed_while_it_emptied_a_folder_may_go_on(run, monkeypatch):
    (run / "zebra").mkdir()
    (run / "zebra" / "stripes").write_text("x")

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            open_out(run, overwrite=True)
    assert (run / OPTIONS).is_file()
    assert list(open_out(run, overwrite=True).iterdir()) == []


def test_emptying_leaves_alone_what_links_lead_to(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.png").write_text("precious")
    (run / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    open_out(run, overwrite=True)
    assert (tmp_path / "photos" / "mine.png").read_text() == "precious"


def test_damaged_options_are_named(run):
    (run / OPTIONS).write_text('{"ste')
    with pytest.raises(InputError, match="options.json: damaged; give another --out, or --overwrite"):
        claim(run, {"steps": 3})


def test_read_only_folders_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=f"new: may not be written, {tmp_path} is read-only"):
        check_out(tmp_path / "new")
    with pytest.raises(InputError, match="is read-only"):
        check_file(tmp_path / "scores.json")


def test_files_of_results(tmp_path):
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(InputError, match="scores.json: exists; --overwrite replaces it"):
        check_file(tmp_path / "scores.json")
    assert check_file(tmp_path / "scores.json", overwrite=True) == tmp_path / "scores.json"
    with pytest.raises(InputError, match="is a folder; give the name of a PNG file"):
        check_file(tmp_path, overwrite=True, kind="PNG")
    assert not check_file(tmp_path / "new" / "scores.json").parent.exists()


def test_checkpoints_go_only_after_the_result_is_there(tmp_path, monkeypatch):
    unit = Unit(tmp_path, "judge")
    (unit.directory / "checkpoints").mkdir()

    def killed(path, **options):
        assert (unit.directory / "result.json").is_file()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            unit.finish({"score": 0.5})
    assert (unit.directory / "checkpoints").is_dir()
    assert Unit(tmp_path, "judge").result == {"score": 0.5}
    assert not (unit.directory / "checkpoints").exists()


def test_a_damaged_result_is_made_again(tmp_path, caplog):
    unit = Unit(tmp_path, "judge")
    (unit.directory / "result.json").write_text("")
    assert Unit(tmp_path, "judge").result is None and "damaged, made again" in caplog.text


def test_a_run_is_continued_with_its_own_faces_only(tmp_path):
    def described(counts, pixel=0):
        classes = tuple(counts)
        expression = torch.tensor([i for i, name in enumerate(classes) for _ in range(counts[name])])
        images = torch.full((len(expression), 1, 4, 4), pixel, dtype=torch.uint8)
        return describe_data({"train": FaceTable(images, classes, expression=expression)})

    out, config = open_out(tmp_path / "out"), {"steps": 3}
    claim(out, config, described({"happiness": 3, "fear": 2}))
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert {path.name for path in before} == {OPTIONS, DATA}
    claim(out, config, described({"happiness": 3, "fear": 2}))
    claim(out, config)
    changed = "out: the data have changed since this run was begun: train: "
    cure = "; restore them, or start anew with --overwrite$"
    with pytest.raises(InputError, match=f"{changed}5 faces then, 4 now .fear 2 and 1.{cure}"):
        claim(out, config, described({"happiness": 3, "fear": 1}))
    with pytest.raises(InputError, match=f"{changed}5 faces then, 5 now, some with other pixels or labels{cure}"):
        claim(out, config, described({"happiness": 3, "fear": 2}, pixel=1))
    with pytest.raises(InputError, match="another steps"):
        claim(out, {"steps": 4}, described({"happiness": 3, "fear": 1}))
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    (out / DATA).unlink()  # a run that was begun before data were recorded
    claim(out, config, described({"happiness": 1, "fear": 1}))
    assert (out / DATA).is_file()
