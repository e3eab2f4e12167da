import json
import shutil

import numpy as np
import pytest
from jsonargparse import Namespace
from PIL import Image

from synthmtl.commands.in_the_run import load_as_in_the_run, note_changes
from synthmtl.data.load import load_splits
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError
from synthmtl.experiment import describe_data

CLASSES = ("fear", "anger")
NEEDED = (["test"], ["train", "validation"])


def picture(file, seed):
    """A noise face of 16 px."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)).save(file)


@pytest.fixture
def faces(tmp_path):
    """faces("", "test", ...) → a folder with 20 faces of each class in each of these folders."""

    def write(*parts):
        for number, part in enumerate(parts):
            for i in range(40):
                picture(tmp_path / "faces" / part / CLASSES[i % 2] / f"{i:03d}.png", 100 * number + i)
        return tmp_path / "faces"

    return write


@pytest.fixture
def run(tmp_path):
    """run(data, name="", **options) → the folder of a run that read these data, or, by ``name``, a mixture of them."""

    def begin(data, name="", /, **options):
        told = {"path": str(data), "image_size": 16, "color": False, "split_seed": 3, "on_leak": "drop"} | options
        reading = {option: told[option] for option in ("split_seed", "on_leak")}
        tables = load_splits(data, image_size=16, channels=1, **reading).tables()
        if name:
            tables = {name: tables["train"], f"{name}/test": tables["test"]}
            common = {key: told.pop(key) for key in ("image_size", "color")}
        out = tmp_path / "run"
        out.mkdir()
        (out / "options.json").write_text(json.dumps({"data": {name: told}} | common if name else {"faces": told}))
        (out / "data.json").write_text(json.dumps(describe_data(tables)))
        return out

    return begin


def load(run, data, needed, *, size=16, classes=CLASSES, options=None, **more):
    options = Namespace(model=str(run), data=str(data), **(options or {}))
    wanted = {"image_size": size, "channels": 1, "classes": classes, "every_class": False}
    return load_as_in_the_run(options, needed, **wanted, **more)


def told(splits):
    """The notes on the run."""
    return [note for note in splits.notes if "/run" in note]


CHANGES = {
    "more": lambda data: picture(data / "anger" / "new.png", 999),
    "fewer": lambda data: (data / "fear" / "004.png").unlink(),
    "another name": lambda data: (data / "fear" / "004.png").rename(data / "fear" / "104.png"),
    "another label": lambda data: (data / "fear" / "004.png").rename(data / "anger" / "004.png"),
}


@pytest.mark.parametrize("needed", NEEDED)
def test_splits_of_the_run_are_its_own_to_the_pixel(faces, run, needed):
    out = run(data := faces(""))
    splits = load(out, data, needed)
    assert json.loads((out / "data.json").read_text()) == describe_data(splits.tables()) and not told(splits)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("needed", NEEDED)
def test_data_that_have_changed_are_not_split_anew(faces, run, needed, change):
    """Never is a face held out, or made a source, that the run had elsewhere, and nobody says so."""
    out = run(data := faces(""))
    CHANGES[change](data)
    with pytest.raises(InputError, match="not split as in .*run .*40 faces .* then, .*; restore the data, or") as error:
        load(out, data, needed)
    assert "\n" not in str(error.value) and "--split_seed" not in str(error.value)
    with pytest.raises(InputError, match="train, validation and test, or choose a --split_seed"):
        load(out, data, needed, options={"split_seed": None})
    for seed in (3, 4):
        assert len(told(load(out, data, needed, split_seed=seed))) == 1


def test_splits_by_another_seed_are_told(faces, run):
    out = run(data := faces(""))
    assert not told(load(out, data, ["test"], split_seed=3))
    assert "may have trained on some faces that are held out here" in told(load(out, data, ["test"], split_seed=4))[0]


@pytest.mark.parametrize("needed", NEEDED)
def test_what_moves_no_photograph_stops_nobody(faces, run, needed):
    """Edits that were put beside the photographs, with a column that these lack."""
    out = run(data := faces(""))
    before = load(out, data, needed)
    edits = before.train.select([0, 1]).replace(images=255 - before.train.images[:2])
    edits.synthetic[:] = True
    source = before.train.files[0].removeprefix(f"{data.parent}/")
    extra = [{"source_file": source, "judge_probability": 0.5}] * 2
    write_image_folder(edits, data.parent, data.name, names=["made-0", "made-1"], extra=extra)
    after = load(out, data, needed)
    assert not told(after) and after.test.images.equal(before.test.images)
    assert after.train.synthetic.any() and "judge_probability" in after.train.attributes


def test_splits_that_the_data_bring_along_may_grow(faces, run):
    out = run(data := faces("train", "validation", "test"))
    CHANGES["more"](data / "test")
    splits = load(out, data, ["test"])
    assert len(splits.test) == 41 and not told(splits)
    (note,) = note_changes(Namespace(model=str(out), data=str(data)), "test", splits.test)
    assert "40 faces with an expression then, 41 now: anger 20 and 21" in note
    assert not note_changes(Namespace(model=str(out), data=str(data.parent)), "test", splits.test)


@pytest.mark.parametrize("needed", NEEDED)
@pytest.mark.parametrize("theirs", ["drop", "warn"])
@pytest.mark.parametrize("mine", [None, "drop", "warn"])
def test_what_a_leak_leaves_out_is_no_change(faces, run, needed, theirs, mine):
    """A part is split off, and another one shows training faces, too."""
    data = faces("train", "test")
    for i in range(6):
        shutil.copy(data / "train" / CLASSES[i % 2] / f"{i:03d}.png", data / "test" / CLASSES[i % 2] / f"leak-{i}.png")
    out = run(data, on_leak=theirs)
    kept = load(out, data, needed, on_leak=mine)
    assert not told(kept) and (len(kept.train) + len(kept.validation) == 40) == ((mine or theirs) == "warn")
    CHANGES["fewer"](data / "train")
    with pytest.raises(InputError, match="not split as in"):
        load(out, data, ["train", "validation"], on_leak=mine)


def test_a_leak_stops_whom_it_is_to_stop(faces, run):
    data = faces("train", "test")
    shutil.copy(data / "train" / "fear" / "000.png", data / "test" / "fear" / "leak.png")
    out = run(data)
    with pytest.raises(InputError, match="have a look-alike in train"):
        load(out, data, ["train"], on_leak="error")


def test_a_mixture_records_each_of_its_sets(faces, run):
    out = run(data := faces(""), "mine") / "cells" / "gated" / "seed0" / "model"  # as recipes lay them out
    for needed in (["test"], ["validation"], ["train", "validation"]):
        assert not told(load(out, data, needed))
    CHANGES["more"](data)
    for needed in (["test"], ["validation"], ["train", "validation"]):
        with pytest.raises(InputError, match="not split as in"):
            load(out, data, needed)


@pytest.mark.parametrize("options", [{"train": False}, {"labels": ["landmarks"]}])
def test_of_a_mixture_only_what_was_trained_on_matters(faces, run, options):
    out = run(data := faces(""), "mine", **options)
    record = json.loads((out / "data.json").read_text())
    (out / "data.json").write_text(json.dumps(record | {"mine": record["mine"] | {"fingerprint": "of no label"}}))
    assert not told(load(out, data, ["train"]))
    CHANGES["more"](data)
    if "train" in options:
        assert not told(load(out, data, ["test"]))
    else:
        with pytest.raises(InputError, match="not split as in"):
            load(out, data, ["train"])


def test_a_record_that_says_nothing_of_such_faces_is_told(faces, run):
    out = run(data := faces(""))
    picture(data / "sad" / "000.png", 77)
    assert not told(load(out, data, ["test"]))  # the network knows no such class: the faces are the same
    for more in ({"size": 12}, {"classes": (*CLASSES, "contempt")}):
        assert "has no record of these faces" in told(load(out, data, ["test"], **more))[0]
    (out / "data.json").unlink()  # as earlier versions left it
    assert "has no record of these faces" in told(load(out, data, ["test"]))[0]
    (out / "data.json").write_text("{")
    with pytest.raises(InputError, match="data.json: damaged; restore it, or delete it to go on without"):
        load(out, data, ["test"])


def test_other_data_than_the_run_s_are_its_business_no_more(faces, run):
    out = run(data := faces(""))
    shutil.copytree(data, data.parent / "others")
    CHANGES["more"](data.parent / "others")
    assert not told(load(out, data.parent / "others", ["test"]))
