import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from synthmtl.balance import synthesize
from synthmtl.balance.calibration import JudgeCalibration, calibrate_judge, judge_probabilities
from synthmtl.balance.filter import REASONS
from synthmtl.balance.plan import make_plan
from synthmtl.balance.synthesize import edit_faces, synthesize_balancing_set
from synthmtl.data.pixels import to_unit
from synthmtl.errors import InputError
from synthmtl.models.sampling import SamplingOptions


@pytest.fixture(scope="module")
def result(job):
    return job.run_job(None)


def equal(a, b):
    return torch.equal(a.table.images, b.table.images) and a.records == b.records and a.summary() == b.summary()


def test_counts_come_out_as_wanted(result):
    assert result.requested == {"neutral": 0, "happiness": 12, "fear": 17}
    assert result.kept == result.requested and sum(result.missing.values()) == 0
    assert result.table.counts() == result.kept
    # The judge here is untrained: its rejections and the filling up are only exercised, not meant to be few.
    assert 0 < sum(result.below_threshold.values()) < 29
    assert sum(record["below_threshold"] for record in result.records) == sum(result.below_threshold.values())


def test_provenance(job, result):
    table, faces = job.make_faces({"neutral": 20, "happiness": 8, "fear": 3}), result.table
    rows = torch.tensor([record["source_row"] for record in result.records])
    assert faces.synthetic.all() and (faces.expression != table.expression[rows]).all()
    assert torch.equal(faces.subject, table.subject[rows])
    assert [record["source_file"] for record in result.records] == [table.files[row] for row in rows.tolist()]
    assert faces.landmarks.isnan().all() and faces.action_units.isnan().all()
    assert len(set(faces.files)) == 29 and faces.files[0] == "train/happiness/synthesized-000000.png"


def test_a_face_can_be_made_again_from_its_record(job, result):
    table, generator = job.make_faces({"neutral": 20, "happiness": 8, "fear": 3}), job.make_generator()
    for i in (0, 9, 28):
        record = result.records[i]
        again = generator.synthesize(
            to_unit(table.images[record["source_row"]][None], "cpu"),
            result.table.expression[i : i + 1],
            generator=torch.Generator().manual_seed(record["seed"]),
        )
        made = to_unit(result.table.images[i : i + 1], "cpu")
        assert (again - made).abs().max() <= 1.01 / 127.5


def test_a_seed_draws_the_style_and_then_the_grain(job):
    generator, sources = job.make_generator(), job.make_faces({"neutral": 3}).images
    target, seeds = torch.tensor([2, 0, 1]), [7, 8, 9]
    edited, _ = edit_faces(generator, sources, target, seeds, spread=0.5)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([torch.randn(1, generator.style.dim, generator=draw) for draw in draws])
    grain = torch.cat([torch.randn(1, 32 * 32, generator=draw) for draw in draws]).view(3, 1, 32, 32)
    style = generator.style.draw(generator.style.prior(target), 0.5 * noise)
    expected = generator.synthesize(to_unit(sources, "cpu"), target, style=style, grain=grain)
    assert torch.equal(edited, expected.add(1).mul(127.5).round().to(torch.uint8))


def test_balancing_by_a_diffusion_model(job, tmp_path):
    generator, judge = job.make_diffusion(), job.make_judge()
    table = job.make_faces({"neutral": 5, "happiness": 3, "fear": 2})
    calibration = calibrate_judge(judge, job.make_faces(dict.fromkeys(job.CLASSES, 8), seed=5), quantile=0.5)

    def run(**sampling):
        return synthesize_balancing_set(
            generator, judge, table, calibration=calibration, batch_size=4,
            sampling=SamplingOptions(**sampling), directory=tmp_path,
        )  # fmt: skip

    result = run(steps=2)
    assert result.kept == result.requested == {"neutral": 0, "happiness": 2, "fear": 3}
    assert result.identity["settings"]["sampling"]["steps"] == 2
    assert equal(run(steps=2), result)
    record = result.records[0]
    again = generator.synthesize(
        to_unit(table.images[record["source_row"]][None], "cpu"),
        result.table.expression[:1],
        generator=torch.Generator().manual_seed(record["seed"]),
        steps=2,
    )
    assert (again - to_unit(result.table.images[:1], "cpu")).abs().max() <= 1.01 / 127.5
    for other in ({"steps": 3}, {"steps": 2, "guidance_scale": 2.0}, {"steps": 2, "solver": "ddim", "eta": 0.5}):
        with pytest.raises(InputError, match="another settings"):
            run(**other)


def test_new_faces_come_from_their_seed_alone(job):
    generator, judge = job.make_diffusion(), job.make_judge()
    table = job.make_faces({"neutral": 5, "happiness": 3, "fear": 2})
    calibration = calibrate_judge(judge, job.make_faces(dict.fromkeys(job.CLASSES, 8), seed=5), quantile=0.5)
    sampling = SamplingOptions(steps=2)
    result = synthesize_balancing_set(
        generator, judge, table, sources="none", calibration=calibration, sampling=sampling, batch_size=4
    )
    assert result.kept == {"neutral": 0, "happiness": 2, "fear": 3}
    assert (result.table.subject == -1).all() and (result.table.session == -1).all() and result.table.synthetic.all()
    assert not any(reasons["unchanged"] for reasons in result.rejected.values())
    for i, record in enumerate(result.records):
        assert (record["source_file"], record["source_row"], record["source_expression"]) == (None, None, None)
        again, _ = edit_faces(generator, None, result.table.expression[[i]], [record["seed"]], sampling=sampling)
        assert (again[0].int() - result.table.images[i].int()).abs().max() <= 1


def test_new_faces_have_no_source_to_put_noise_on(job):
    table = job.make_faces({"neutral": 3, "happiness": 1, "fear": 1})
    noised = {"sampling": SamplingOptions(steps=2, strength=0.5), "filter": False}
    assert synthesize_balancing_set(job.make_diffusion(), None, table, **noised).kept["fear"] == 2
    with pytest.raises(InputError, match="strength says how much noise is put on a source"):
        synthesize_balancing_set(job.make_diffusion(), None, table, sources="none", **noised)


def test_a_generator_that_edits_makes_no_new_faces(job):
    with pytest.raises(InputError, match="only a diffusion model makes new ones"):
        synthesize_balancing_set(
            job.make_generator(),
            None,
            job.make_faces({"neutral": 3, "happiness": 1, "fear": 1}),
            sources="none",
            filter=False,
        )


def test_kept_faces_satisfy_the_judge(job, result):
    probabilities = judge_probabilities(job.make_judge(), result.table.images)
    own = probabilities[torch.arange(29), result.table.expression]
    torch.testing.assert_close(own, result.table.attributes["agreement"], atol=1e-5, rtol=0)
    below = own < result.calibration.thresholds[result.table.expression] - 1e-5
    assert below.tolist() == [record["below_threshold"] for record in result.records]


def test_a_rejected_face_was_tried_as_often_as_allowed(job, result):
    rejected = sum(sum(reasons.values()) for reasons in result.rejected.values())
    kept = [r["attempt"] for r in result.records if not r["below_threshold"]]
    assert rejected == sum(kept) + 3 * sum(result.below_threshold.values())
    once = job.run_job(None, max_attempts=1)
    assert {r["attempt"] for r in once.records} == {0}
    assert sum(once.below_threshold.values()) >= sum(result.below_threshold.values())


class MoodyJudge(torch.nn.Module):
    """Says what it was told to say, whatever it sees: one row of probabilities of every class for each call."""

    classes = ("neutral", "fear")

    def __init__(self, says):
        super().__init__()
        self.says = iter(torch.tensor(says))

    def recognize(self, images):
        return next(self.says)[: len(images), None].expand(-1, 2)


def test_best_rejected_candidate_fills_up(job):
    table, generator = job.make_faces({"neutral": 5, "fear": 1}), job.make_generator(MoodyJudge.classes)
    judge = MoodyJudge([[0.1, 0.3, 0.2, 0.9], [0.2, 0.1, 0.3, 0.0], [0.4, 0.2, 0.1, 0.0]])
    threshold = JudgeCalibration(judge.classes, torch.full((2,), 0.5), 0.2, {}, (), torch.zeros(2))
    result = synthesize_balancing_set(generator, judge, table, calibration=threshold)
    # The fourth face is kept at once; the others keep the best of what they were told in three attempts.
    assert [record["attempt"] for record in result.records] == [2, 0, 1, 0]
    assert [record["below_threshold"] for record in result.records] == [True, True, True, False]
    torch.testing.assert_close(result.table.attributes["agreement"], torch.tensor([0.4, 0.3, 0.3, 0.9]))
    assert result.below_threshold == {"neutral": 0, "fear": 3} and result.rejected["fear"]["disagreement"] == 9
    plan = make_plan(table)
    for i, record in enumerate(result.records):
        rows, seeds = plan.candidate(torch.tensor([i]), record["attempt"])
        again, _ = edit_faces(generator, table.images[rows], plan.target[[i]], seeds)
        assert (again.int() - result.table.images[i].int()).abs().max() <= 1


def test_leave_takes_no_rejected_face(job, result):
    left = job.run_job(None, fill="leave")
    assert sum(left.below_threshold.values()) == 0
    assert left.missing == result.below_threshold and left.rejected == result.rejected
    accepted = [record for record in result.records if not record["below_threshold"]]
    assert left.records == accepted and len(left.table) == len(accepted)


def test_unchanged_faces_are_never_used(job):
    generator = job.make_generator()
    for layer in (generator.decoder.flow, generator.decoder.paint[-1]):
        torch.nn.init.zeros_(layer.weight)  # the identity
    judge, table = job.make_judge(), job.make_faces({"neutral": 6, "happiness": 2, "fear": 2})
    calibration = calibrate_judge(judge, table)
    nothing = synthesize_balancing_set(generator, judge, table, calibration=calibration)
    assert len(nothing.table) == 0 and nothing.missing == nothing.requested
    assert nothing.rejected["fear"] == dict.fromkeys(REASONS, 0) | {"unchanged": 12}


def test_balanced_data_need_nothing(job):
    judge, table = job.make_judge(), job.make_faces(dict.fromkeys(job.CLASSES, 4))
    result = synthesize_balancing_set(
        job.make_generator(), judge, table, calibration=calibrate_judge(judge, table, min_faces=1)
    )
    assert len(result.table) == 0 and result.rejected == {} and set(result.kept.values()) == {0}


def test_directory_gives_the_same_and_is_used_again(job, result, tmp_path):
    assert equal(job.run_job(tmp_path), result)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(stamps) == 8
    assert equal(job.run_job(tmp_path), result)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == stamps
    for other in ({"spread": 0.5}, {"max_match": 0.9}):
        with pytest.raises(InputError, match="another settings"):
            job.run_job(tmp_path, **other)


def test_who_is_shown_is_part_of_the_job(job, tmp_path):
    """Faces of the source's own person are no copies, so that other subjects may mean other faces kept."""
    judge, table = job.make_judge(), job.make_faces({"neutral": 6, "happiness": 2, "fear": 2})
    calibration, options = calibrate_judge(judge, table), {"directory": tmp_path}
    synthesize_balancing_set(job.make_generator(), judge, table, calibration=calibration, **options)
    table = table.replace(subject=table.subject.flip(0))
    plan = make_plan(job.make_faces({"neutral": 6, "happiness": 2, "fear": 2}), "auto", candidates=2)
    with pytest.raises(InputError, match="another faces"):
        synthesize_balancing_set(job.make_generator(), judge, table, plan, calibration=calibration, **options)


def test_how_far_a_face_may_match_is_the_callers(job):
    none = job.run_job(None, max_match=-2.0)  # no correlation is below it
    assert len(none.table) == 0
    copies = {name: count["copy"] for name, count in none.rejected.items()}
    assert copies == {name: sum(count.values()) for name, count in none.rejected.items()}
    assert sum(copies.values()) == 3 * 29


def test_processes_share_the_chunks_and_finish_for_each_other(job, result, tmp_path):
    first = job.run_job(tmp_path, rank=1, world=3)  # ranks 0 and 2 never came
    assert equal(first, result)
    (tmp_path / "chunks" / "00003.safetensors").unlink()  # and rank 0 died in its second chunk
    assert equal(job.run_job(tmp_path, rank=0, world=3), result)
    with pytest.raises(InputError, match="several processes need a directory"):
        job.run_job(None, rank=0, world=2)


def test_killed_process_resumes_to_the_same_set(job, result, tmp_path):
    script = Path(__file__).with_name("balancing_job.py")
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path), "0.3"])
    chunks = tmp_path / "chunks"
    deadline = time.monotonic() + 600
    while len(list(chunks.glob("*.safetensors"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline, "the job ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in chunks.glob("*.safetensors")}
    assert 2 <= len(done) < 8
    (chunks / "00007.0.part").write_bytes(b"half a chunk")  # as if the kill had met a write
    assert equal(job.run_job(tmp_path), result)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())


def test_bad_parts_are_named(job):
    generator, judge = job.make_generator(), job.make_judge()
    table = job.make_faces({"neutral": 6, "happiness": 2, "fear": 2})
    calibration = calibrate_judge(judge, table)

    def run(generator=generator, judge=judge, table=table, **options):
        synthesize_balancing_set(generator, judge, table, calibration=calibration, **options)

    with pytest.raises(InputError, match="generator itself"):
        run(judge=generator)
    with pytest.raises(InputError, match="generator itself"):
        run(judge=job.make_generator())  # another object with the same weights
    with pytest.raises(InputError, match="the data neutral, fear"):
        run(table=job.make_faces({"neutral": 6, "fear": 2}))
    with pytest.raises(InputError, match="32 pixels a side, the data have 16"):
        run(table=job.make_faces({"neutral": 6, "happiness": 2, "fear": 2}, size=16))
    with pytest.raises(InputError, match="are for a diffusion generator"):
        run(sampling=SamplingOptions(steps=4))
    with pytest.raises(InputError, match="unknown fill"):
        run(fill="worst")
    with pytest.raises(InputError, match="max_attempts"):
        run(max_attempts=0)
    with pytest.raises(InputError, match="other faces"):
        run(plan=make_plan(job.make_faces({"neutral": 7, "happiness": 2, "fear": 2})))


def test_the_judge_has_to_know_what_is_asked_for_and_nothing_else(job, tmp_path):
    judge = job.make_judge(("neutral", "fear"))
    table = job.make_faces({"neutral": 6, "happiness": 4, "fear": 2})
    calibration = calibrate_judge(judge, table)
    options = {"calibration": calibration, "batch_size": 4, "fill": "best", "directory": tmp_path}
    with pytest.raises(InputError, match="the judge does not know happiness: train it on happiness, fear"):
        synthesize_balancing_set(job.make_generator(), judge, table, "auto", **options)
    assert not list(tmp_path.iterdir())  # it is found before a face is made
    made = synthesize_balancing_set(job.make_generator(), judge, table, {"fear": 6}, **options)
    assert made.kept == {"neutral": 0, "happiness": 0, "fear": 4}
    assert set(made.summary()["mistaken"]) == set(judge.classes)


def test_finished_chunks_let_go_of_their_pixels(job, tmp_path, monkeypatch):
    held = []
    whole = synthesize.gather

    def spy(chunks, *rest):
        held.extend(chunk.images.untyped_storage().nbytes() for chunk in chunks)
        return whole(chunks, *rest)

    monkeypatch.setattr(synthesize, "gather", spy)
    job.run_job(str(tmp_path))
    assert held and not any(held)
