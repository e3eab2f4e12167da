"""Which faces and labels a row of the table trains on."""

import dataclasses
from dataclasses import dataclass, field

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch.nn.functional import interpolate

from synthmtl.data import FaceTable
from synthmtl.data.mixture import usable_labels
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS
from synthmtl.losses import ExpressionLoss
from synthmtl.systems import LossOptions, Source, SystemOptions, build_objective
from synthmtl.systems.cells import prepare
from synthmtl.systems.job import SystemJob, check_people, describe_read, keep_labels, load_job, mixture, read_source
from synthmtl.systems.objectives import warmed

TASKS = ("expression", "action_units")


@dataclass
class Model:
    size: str = "tiny"
    tasks: list[str] = field(default_factory=lambda: list(TASKS))


@dataclass
class Options(SystemOptions):
    model: Model = field(default_factory=Model)


def table(expression, units):
    """A face for each entry: whether it has an expression, and action units."""
    count = len(expression)
    labels = torch.where(torch.tensor(expression), torch.arange(count) % 2, -1)
    values = torch.full((count, len(ACTION_UNITS)), float("nan"))
    values[torch.tensor(units), 3] = 1.0
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 32, 32).clone()
    return FaceTable(images=images, classes=("neutral", "happiness"), expression=labels, action_units=values)


@pytest.fixture
def job(tmp_path):
    train = {
        "both": table([True] * 4, [True, True, False, False]),
        "units": table([False] * 3, [True, True, False]),
        "other": table([True] * 2, [False] * 2),
    }
    options = Options(data={name: Source() for name in train})
    return SystemJob(options, tmp_path, Accelerator(cpu=True), train, {"both/test": train["both"]})


def test_every_face_with_a_label_takes_part(job):
    faces, names = mixture(job, job.config, TASKS)
    assert names == ["both", "units", "other"]
    assert faces.domain.tolist() == [0, 0, 0, 0, 1, 1, 2, 2], "the face without a label is left out"


def test_classical_training_wants_all_labels(job):
    faces, names = mixture(job, dataclasses.replace(job.config, labelled="all"), TASKS)
    assert names == ["both"] and len(faces) == 2
    assert usable_labels(faces)["expression"] == usable_labels(faces)["action_units"] == 2


def test_one_task_takes_its_labels_from_wherever_they_are(job):
    faces, names = mixture(job, job.config, ("action_units",))
    assert names == ["both", "units"] and len(faces) == 4


def test_annotators_shares_alone_make_an_expression(job):
    shares = torch.full((3, 2), float("nan"))
    shares[:2] = torch.tensor([0.8, 0.2])
    job.train = {"units": job.train["units"].replace(expression_distribution=shares)}
    faces, _ = mixture(job, job.config, ("expression", "action_units"))
    assert len(faces) == 2
    both, _ = mixture(job, dataclasses.replace(job.config, labelled="all"), ("expression", "action_units"))
    assert len(both) == 2
    _, labelled = ExpressionLoss().each(torch.zeros(2, 2), faces.expression, faces.expression_distribution)
    assert labelled.all()


def test_sources_are_chosen(job):
    faces, names = mixture(job, dataclasses.replace(job.config, sources=["other", "both"]), TASKS)
    assert names == ["other", "both"] and faces.domain.tolist() == [0, 0, 1, 1, 1, 1]


def test_no_usable_face_is_said(job):
    with pytest.raises(InputError, match="no training face carries any of the labels of landmarks"):
        mixture(job, job.config, ("landmarks",))
    alone = dataclasses.replace(job.config, sources=["other"], labelled="all")
    with pytest.raises(InputError, match="carries all of the labels of expression, action_units"):
        mixture(job, alone, TASKS)


def test_labels_can_be_withheld():
    full = table([True] * 4, [True] * 4).replace(expression_distribution=torch.full((4, 2), 0.5))
    assert keep_labels(full, None) is full
    kept = keep_labels(full, ["action_units"])
    assert (kept.expression == -1).all() and kept.expression_distribution.isnan().all()
    assert torch.equal(kept.action_units.isnan(), full.action_units.isnan())
    kept = keep_labels(full, ["expression"])
    assert torch.equal(kept.expression, full.expression) and kept.action_units.isnan().all()


def test_weights_of_data_sets_that_a_variant_leaves_out_are_ignored(job):
    job.config = dataclasses.replace(
        job.config,
        sampling={"both": 1, "units": 2, "other": 1},
        variants={"all": {}, "less": {"sources": ["both", "units"]}},
    )
    assert prepare(job, "all", 0, lambda *_: None).sampler.shares == {"both": 0.25, "units": 0.5, "other": 0.25}
    less = prepare(job, "less", 0, lambda *_: None).sampler.shares
    assert less == pytest.approx({"both": 1 / 3, "units": 2 / 3})


def test_rendered_sources_have_what_they_are_asked_for(tmp_path):
    small = {"per_class": 2, "held_out_per_class": 1, "subjects": (4, 2, 2)}
    data = {
        "mixed": Source(**small, compound_per_class=1, score=["validation", "test"]),
        "points": Source(**small, labels=["landmarks"], render_seed=1, score=[]),
        "held_out": Source(**small, render_seed=2, train=False),
    }
    job = load_job(Options(data=data, image_size=32), tmp_path, Accelerator(cpu=True))
    assert list(job.train) == ["mixed", "points"]
    assert list(job.scored) == ["mixed/validation", "mixed/test", "held_out/test"]
    assert usable_labels(job.train["mixed"])["compound"] == 12 and usable_labels(job.train["mixed"])["expression"] == 16
    assert {task for task, count in usable_labels(job.train["points"]).items() if count} == {"landmarks"}
    assert usable_labels(job.scored["held_out/test"])["expression"] == 8
    people = [set(each.subject.tolist()) for each in (job.train["mixed"], job.scored["mixed/test"])]
    assert not people[0] & people[1]


@pytest.fixture
def photographs(tmp_path):
    """photographs(name, seed) → a folder of 40 faces of two expressions, without splits."""

    def write(name, seed=0):
        random = torch.Generator().manual_seed(seed)
        for number in range(40):
            noise = torch.rand(1, 1, 6, 6, generator=random)
            pixels = interpolate(noise, size=(32, 32), mode="bicubic").mul(255).round().clamp(0, 255).byte()
            path = tmp_path / name / ("neutral", "happiness")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0, 0].numpy()).save(path)
        return str(tmp_path / name)

    return write


def pictures(table):
    return {image.numpy().tobytes() for image in table.images}


def test_no_data_set_trains_on_what_another_one_scores(photographs, tmp_path):
    path, copy, other = photographs("set"), photographs("copy"), photographs("other", seed=1)
    data = {
        "set": Source(path=path, score=["validation", "test"]),
        "again": Source(path=path, split_seed=1, score=[]),
        "copy": Source(path=copy, split_seed=2, on_leak="warn", score=[]),
        "other": Source(path=other),
        "rendered": Source(per_class=2, held_out_per_class=1, subjects=(4, 2, 2)),
    }
    options = Options(data=data, image_size=32)
    job = load_job(options, tmp_path, Accelerator(cpu=True))
    scored = pictures(job.scored["set/validation"]) | pictures(job.scored["set/test"])
    alone, _ = read_source(data["again"], options)
    leaked = scored & pictures(alone["train"])
    assert leaked and not any(scored & pictures(job.train[name]) for name in data if name != "copy")
    assert pictures(job.train["again"]) == pictures(alone["train"]) - scored
    assert len(job.train["other"]) == len(read_source(data["other"], options)[0]["train"])
    left = [note for note in job.notes if note.startswith("again: Left") and "set/" in note]
    assert sum(int(note.split()[2]) for note in left) == len(leaked)
    kept = scored & pictures(job.train["copy"])
    warned = [note for note in job.notes if note.startswith("copy: ")]
    assert kept and any("set/test faces have a look-alike in train" in note for note in warned)
    assert not any(note.startswith("copy: Left") for note in warned)
    for name in ("set", "other", "rendered"):
        assert not any("have a look-alike" in note for note in job.notes if note.startswith(f"{name}: "))

    # What is recorded is what a reader of this data set alone finds, whatever was left out for the others' sake.
    recorded = describe_read(job)
    assert recorded["again"]["fingerprint"] == alone["train"].with_classes(job.classes).fingerprint()
    assert recorded["other"]["fingerprint"] == job.train["other"].fingerprint()
    assert set(recorded) == {"set", "again", "copy", "other", "set/validation", "set/test", "other/test"}

    data["again"].on_leak = "error"
    with pytest.raises(InputError, match="^data.again: .* set/.* faces have a look-alike in train .* on_leak to drop"):
        load_job(Options(data=data, image_size=32), tmp_path, Accelerator(cpu=True))


def test_training_faces_that_are_scored_by_wish_leak_nowhere(photographs, tmp_path):
    path = photographs("set")
    data = {"set": Source(path=path, score=["train", "test"]), "more": Source(path=path, score=[])}
    job = load_job(Options(data=data, image_size=32), tmp_path, Accelerator(cpu=True))
    assert pictures(job.train["more"]) == pictures(job.train["set"]) == pictures(job.scored["set/train"])
    data["set"].train = False
    with pytest.raises(InputError, match="^data.more: every train face is in set/train, too"):
        load_job(Options(data=data, image_size=32), tmp_path, Accelerator(cpu=True))


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"subjects": (70, 5, 5)}, "data.b: trains on people whom a/test shows, since both have render_seed 0: give"),
        ({"subjects": (70, 5, 5), "style": "wild"}, "data.b: trains on people whom a/test"),
        ({"subjects": (10, 5, 5), "score": ["validation"]}, "data.a: trains on people whom b/validation"),
        ({"subjects": (64, 5, 5)}, None),  # people are numbered from 64 on in a/test
        ({"subjects": (70, 5, 5), "render_seed": 1}, None),
        ({"subjects": (70, 5, 5), "train": False}, None),
        ({}, None),
    ],
)
def test_no_data_set_trains_on_rendered_people_whom_another_one_scores(changes, refused, tmp_path):
    small = Source(per_class=10, held_out_per_class=1, subjects=(40, 5, 5))
    options = Options(data={"a": small, "b": dataclasses.replace(small, **{"score": []} | changes)}, image_size=32)
    if refused:
        with pytest.raises(InputError, match=f"^{refused}"):
            load_job(options, tmp_path, Accelerator(cpu=True))
        return
    check_people(options)
    if not changes:
        job = load_job(options, tmp_path, Accelerator(cpu=True))
        scored = set(job.scored["a/test"].subject.tolist())
        assert scored and not any(scored & set(table.subject.tolist()) for table in job.train.values())


def test_frames_of_videos_are_chosen(tmp_path):
    random = torch.Generator().manual_seed(0)
    for subject in range(8):
        labels, pictures = (tmp_path / part / f"SN{subject:03d}" for part in ("ActionUnit_Labels", "Images"))
        for folder in (labels, pictures):
            folder.mkdir(parents=True)
        (labels / f"SN{subject:03d}_au1.txt").write_text("".join(f"{frame},5\n" for frame in range(1, 6)))
        for frame in range(1, 6):
            pixels = torch.randint(0, 256, (32, 32), generator=random, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(pictures / f"{frame}.png")
    for every in (1, 2):
        tables, _ = read_source(Source(path=str(tmp_path), every=every), Options(image_size=32))
        assert sum(map(len, tables.values())) == 8 * len(range(1, 6, every))
    with pytest.raises(InputError, match="peaks is 2, and disfa has no such option, only ckplus: leave it out"):
        read_source(Source(path=str(tmp_path), peaks=2), Options(image_size=32))


def test_warmth_is_a_function_of_the_step(job):
    class Goal:
        warmth = None

    goal, seen = Goal(), []
    stream = warmed(lambda step: seen.append((step, goal.warmth)), goal, 4, accumulation=2)
    for step in (0, 1, 6, 8, 0):
        stream(step)
    warmth = dict(seen)
    assert warmth[0] == warmth[1] < warmth[6] < warmth[8] == 1.0
    assert seen[0] == seen[-1]
    warmed(lambda step: None, goal, 0)(0)
    assert goal.warmth == 1.0


def test_weights_must_name_tasks(job):
    with pytest.raises(InputError, match="unknown task 'units'"):
        build_objective(None, LossOptions(weights={"units": 1.0}), job.train["both"])
