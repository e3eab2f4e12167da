import sys
from collections import Counter

import pytest
import torch

from synthmtl.balance.plan import make_plan
from synthmtl.errors import InputError


@pytest.fixture
def table(job):
    return job.make_faces({"neutral": 30, "happiness": 12, "fear": 4}, subjects=5)


def test_counts_are_exactly_as_wanted(table):
    plan = make_plan(table, "auto")
    made = torch.bincount(plan.target, minlength=3)
    assert (torch.tensor(list(table.counts().values())) + made).tolist() == [30, 30, 30]
    assert plan.requested == {"neutral": 0, "happiness": 18, "fear": 26}
    assert plan.sources.shape == (44, 2) and len(plan.seeds.unique()) == 44


def test_sources_show_another_expression_and_are_real(table):
    table.synthetic[::3] = True
    plan = make_plan(table, "auto", candidates=3)
    assert (table.expression[plan.sources] != plan.target[:, None]).all()
    assert not table.synthetic[plan.sources].any()


def test_subjects_and_faces_are_used_evenly(table):
    plan = make_plan(table, {"fear": 104})
    uses = Counter(table.subject[plan.sources[:, 0]].tolist())
    assert set(uses.values()) == {20}
    rows = Counter(plan.sources[:, 0].tolist())
    for subject in range(5):
        own = [rows[row] for row in torch.where((table.subject == subject) & (table.expression != 2))[0].tolist()]
        assert max(own) - min(own) <= 1


def test_each_class_is_spread_over_all_its_subjects(job):
    table = job.make_faces({"neutral": 40, "happiness": 4, "fear": 4}, subjects=0)
    table.subject = torch.tensor([0] * 30 + [1] * 6 + [2] * 4 + [3] * 4 + [4] * 4)
    plan = make_plan(table, "auto")  # subject 3 is happy only, subject 4 afraid only
    for target, eligible in ((1, {0, 1, 2, 4}), (2, {0, 1, 2, 3})):
        uses = Counter(table.subject[plan.sources[plan.target == target, 0]].tolist())
        assert uses.keys() == eligible and set(uses.values()) == {9}


def test_remainders_do_not_pile_up(job):
    table = job.make_faces({name: 8 for name in ("neutral", "happiness", "sadness", "surprise")}, subjects=8)
    plan = make_plan(table, dict.fromkeys(table.classes, 11))  # 3 of 8 subjects for each of 4 classes
    uses = Counter(table.subject[plan.sources[:, 0]].tolist())
    assert max(uses[s] for s in range(8)) - min(uses[s] for s in range(8)) <= 1


def test_unknown_subjects_count_each_on_their_own(job):
    table = job.make_faces({"neutral": 10, "fear": 2}, subjects=0)
    uses = Counter(make_plan(table, {"fear": 27}).sources[:, 0].tolist())
    assert len(uses) == 10 and set(uses.values()) == {2, 3}


def test_next_source_is_another_subject(table):
    plan = make_plan(table, "auto", candidates=3)
    subject = table.subject[plan.sources]
    assert (subject[:, 0] != subject[:, 1]).all() and (subject[:, 1] != subject[:, 2]).all()


def test_attempts_change_style_then_source(table):
    plan = make_plan(table, "auto", candidates=2)
    faces = torch.tensor([3, 7])
    rows, seeds = zip(*(plan.candidate(faces, attempt) for attempt in range(5)), strict=True)
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[2], rows[3]) and torch.equal(rows[4], rows[0])
    assert (rows[0] != rows[2]).all()
    assert len({seed for pair in seeds for seed in pair}) == 10


def test_depends_on_the_seed_only(table):
    first, again, other = make_plan(table, "auto", seed=3), make_plan(table, "auto", seed=3), make_plan(table, seed=4)
    assert torch.equal(first.sources, again.sources) and first.fingerprint() == again.fingerprint()
    assert not torch.equal(first.sources, other.sources) and first.fingerprint() != other.fingerprint()
    assert len(set(first.seeds.tolist()) & set(other.seeds.tolist())) == 0


def test_neutral_first(job):
    table = job.make_faces({"neutral": 3, "happiness": 12, "fear": 2}, subjects=0)
    plan = make_plan(table, "auto", sources="neutral_first")
    shown = table.expression[plan.sources]
    assert (shown[plan.target == 2] == 0).all()
    assert (shown[plan.target == 0] != 0).all()
    table.subject = torch.arange(17) % 4  # neutral faces are of subjects 0, 1, 2
    plan = make_plan(table, "auto", sources="neutral_first")
    edited = plan.sources[plan.target == 2, 0]
    assert ((table.expression[edited] == 0) == (table.subject[edited] != 3)).all()
    assert (table.subject[edited] == 3).any()


@pytest.mark.parametrize("subjects", [0, 5])
@pytest.mark.parametrize("cap", [1, 2, 3])
def test_no_source_is_used_more_often_than_allowed(job, subjects, cap):
    table = job.make_faces({"neutral": 12, "happiness": 6, "fear": 4}, subjects=subjects)
    plan = make_plan(table, {"happiness": 22, "fear": 20}, max_uses=cap)
    uses = Counter(row for face in plan.sources.tolist() for row in set(face))
    assert max(uses.values()) <= cap
    made = torch.bincount(plan.target, minlength=3).tolist()
    wanted = dict(zip(table.classes, made, strict=True))
    assert {name: wanted[name] + short for name, short in plan.unsourced.items()} == plan.requested
    # 22 sources, of which each class may use those of the other expressions.
    assert len(plan) >= min(32, 16 * cap) and (len(plan) == 32) == (sum(plan.unsourced.values()) == 0)


@pytest.mark.parametrize(
    ("subjects", "cap", "first", "second"),
    [
        (3, 1, [1, 5, 9, 10, 0, 2, 6, 4, 8, 3, 7], [1, 5, 9, 10, 0, 2, 6, 4, 8, 3, 7]),
        (3, 2, [1, 5, 9, 10, 2, 0, 2, 6, 4, 8, 3, 7, 5], [3, 4, 10, 9, 2, 0, 0, 1, 8, 6, 7, 7, 5]),
        (0, 2, [9, 2, 4, 10, 1, 0, 8, 5, 6, 7, 0, 3, 2], [5, 3, 9, 10, 1, 0, 1, 4, 8, 6, 7, 3, 2]),
    ],
)
def test_capped_plans_stay_what_they_were(job, subjects, cap, first, second):
    table = job.make_faces({"neutral": 6, "happiness": 3, "fear": 2}, subjects=subjects)
    assert make_plan(table, {"happiness": 9, "fear": 9}, max_uses=cap).sources.T.tolist() == [first, second]


def calls_of(plan):
    """Python calls that planning takes."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        plan()
    finally:
        sys.setprofile(None)
    return count


def test_a_cap_costs_time_in_proportion_to_the_faces(job):
    calls = []
    for count in (5_000, 20_000):
        table = job.make_faces({"neutral": count, "fear": 0}, subjects=1, size=1)
        calls.append(calls_of(lambda table=table, count=count: make_plan(table, {"fear": count}, max_uses=1)))
    assert calls[1] < 6 * calls[0]  # 16 if each face looked through all faces of its person


def test_a_loose_cap_changes_nothing(table):
    free, capped = make_plan(table), make_plan(table, max_uses=1000)
    assert torch.equal(free.sources, capped.sources) and set(free.unsourced.values()) == {0}


def test_nothing_wanted_gives_an_empty_plan(job):
    plan = make_plan(job.make_faces({"neutral": 4, "fear": 4}))
    assert len(plan) == 0 and plan.sources.shape == (0, 2) and plan.requested == {"neutral": 0, "fear": 0}


def test_new_faces_have_no_source(job):
    table = job.make_faces({"neutral": 6, "happiness": 4, "fear": 2})
    plan = make_plan(table, "auto", sources="none", candidates=2)
    assert not plan.edits and make_plan(table, "auto").edits
    assert plan.requested == {"neutral": 0, "happiness": 2, "fear": 4} and not sum(plan.unsourced.values())
    assert plan.target.tolist() == [1, 1, 2, 2, 2, 2] and (plan.sources == -1).all() and plan.sources.shape == (6, 2)
    assert len(set(plan.seeds.tolist())) == 6
    assert make_plan(job.make_faces({"neutral": 0, "fear": 3}), {"fear": 5}, sources="none").requested["fear"] == 2
    assert plan.fingerprint() != make_plan(table, "auto", candidates=2).fingerprint()


def test_bad_options(job, table):
    with pytest.raises(InputError, match="unknown sources"):
        make_plan(table, sources="smiling")
    for option in ({"match": ["age"]}, {"max_uses": 3}):
        with pytest.raises(InputError, match="about the faces that are edited"):
            make_plan(table, sources="none", **option)
    with pytest.raises(InputError, match="candidates"):
        make_plan(table, candidates=0)
    with pytest.raises(InputError, match="max_uses"):
        make_plan(table, max_uses=0)
    with pytest.raises(InputError, match="cannot synthesize fear"):
        make_plan(job.make_faces({"neutral": 0, "fear": 3}), {"fear": 5})
