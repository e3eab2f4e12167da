"""Which faces and labels a row of the table trains on."""

import dataclasses
from dataclasses import dataclass, field

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from synthmtl.data import FaceTable
from synthmtl.data.mixture import usable_labels
from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS
from synthmtl.systems import LossOptions, Source, SystemOptions, build_objective
from synthmtl.systems.cells import prepare
from synthmtl.systems.job import SystemJob, keep_labels, load_job, mixture, read_source
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
