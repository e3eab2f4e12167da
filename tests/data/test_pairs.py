import pytest
import torch

from synthmtl.data.pairs import EditSampler, PairIndex, edit_mode, pair_groups
from synthmtl.data.randomness import StepRandom
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

CLASSES = ("neutral", "happiness", "sadness", "anger")


def make(expression, subject=None, session=None):
    columns = {"expression": expression, "subject": subject, "session": session}
    columns = {name: None if column is None else torch.tensor(column) for name, column in columns.items()}
    images = torch.zeros(len(expression), 1, 2, 2, dtype=torch.uint8)
    return FaceTable(images=images, classes=CLASSES, **columns)


def posed(subjects=6, seed=0):
    """Every subject with 2-6 faces of random expressions in each of two sessions, some labels missing, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for subject in range(subjects):
        for session in range(2):
            count = int(torch.randint(2, 7, (), generator=generator))
            labels = torch.randint(-1, len(CLASSES), (count,), generator=generator).tolist()
            rows += [(label, subject, session) for label in labels]
    rows = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
    return make(*map(list, zip(*rows, strict=True)))


def with_edits(table):
    """The table with two synthesized faces of other expressions behind each, which keep its subject and session, and
    the rows of its own faces."""
    more = table.select(torch.arange(len(table)).repeat_interleave(3))
    nth = torch.arange(len(more)) % 3
    expression = torch.where(nth > 0, (more.expression + nth) % len(CLASSES), more.expression)
    return more.replace(expression=expression, synthetic=nth > 0), torch.where(nth == 0)[0]


def test_groups_by_subject_where_no_session_is_known():
    assert pair_groups(make([0, 1, 2, 3], subject=[4, 4, 7, -1])).tolist() == [4, 4, 7, -1]


def test_groups_by_subject_and_session():
    groups = pair_groups(make([0, 1, 2, 3, 0, 1], subject=[0, 0, 1, 1, -1, 0], session=[0, 0, 0, 3, 0, -1])).tolist()
    assert groups[0] == groups[1]
    assert len({groups[0], groups[2], groups[3]}) == 3
    assert groups[4] == groups[5] == -1
    assert min(groups[:4]) >= 0


def test_partners_by_brute_force():
    table = posed()
    index = PairIndex(table)
    group, expression = pair_groups(table).tolist(), table.expression.tolist()
    partners = {
        row: [
            other
            for other in range(len(table))
            if group[other] == group[row] and expression[other] not in (-1, expression[row]) and expression[row] >= 0
        ]
        for row in range(len(table))
    }
    partners = {row: others for row, others in partners.items() if others}
    assert index.rows.tolist() == sorted(partners)
    assert index.counts.tolist() == [len(partners[row]) for row in sorted(partners)]
    for row, others in partners.items():
        # The middle of each of the equal intervals of [0, 1), and both ends.
        uniform = (torch.arange(len(others)) + 0.5) / len(others)
        assert sorted(index.draw(torch.full((len(others),), row), uniform).tolist()) == others
        ends = index.draw(torch.tensor([row, row]), torch.tensor([0.0, 1 - 2**-24])).tolist()
        assert set(ends) <= set(others)


@pytest.mark.parametrize(
    "table",
    [
        make([0, 1, 2]),
        make([0, 0, 1], subject=[0, 0, 1]),
        make([-1, 1], subject=[0, 0]),
        make([0, 1], subject=[0, 0], session=[0, 1]),
        make([0]).select([]),
    ],
    ids=["no subject", "one expression each", "missing label", "other session", "empty"],
)
def test_no_pairs(table):
    assert len(PairIndex(table)) == 0
    with pytest.raises(InputError, match="paired training needs two expressions of one subject"):
        EditSampler(table, paired=True)


def test_edit_mode():
    assert edit_mode(make([0, 1, 0, 1], subject=[0, 0, 1, 1])) == "paired"
    assert edit_mode(make([0, 1, 0, 1])) == "unpaired"
    # Anger is never paired, though most faces are.
    assert edit_mode(make([0, 1, 0, 1, 3], subject=[0, 0, 1, 1, 2])) == "unpaired"
    # Every class is, but few faces are.
    assert edit_mode(make([0, 1, 0, 1, 0, 1], subject=[0, 0, 1, 2, 3, 4])) == "unpaired"
    assert edit_mode(make([0, 1, 0, 1, 0, 1], subject=[0, 0, 1, 2, 3, 4]), share=0.3) == "paired"


PEOPLE = {
    "one photograph each": make([0, 1, 2, 3, 0, 0, 1], subject=list(range(7))),
    "one photograph and session each": make([0, 1, 2, 3, 0, 0, 1], subject=list(range(7)), session=[0] * 7),
    "a class of which edits alone are paired": make([0, 1, 0, 1, 3], subject=[0, 0, 1, 1, 2]),
    "pairs": posed(),
}


@pytest.mark.parametrize("table", PEOPLE.values(), ids=PEOPLE)
def test_synthesized_faces_are_in_no_pair(table):
    more, own = with_edits(table)
    assert edit_mode(more) == edit_mode(table) == ("paired" if table is PEOPLE["pairs"] else "unpaired")
    index, wanted = PairIndex(more), PairIndex(table)
    assert torch.equal(index.rows, own[wanted.rows]) and torch.equal(index.counts, wanted.counts)
    uniform = torch.rand(len(wanted), generator=torch.Generator().manual_seed(0))
    assert torch.equal(index.draw(index.rows, uniform), own[wanted.draw(wanted.rows, uniform)])


def test_classes_that_only_synthesized_faces_show_need_no_partner():
    table, _ = with_edits(make([0, 1, 0, 1], subject=[0, 0, 1, 1]))
    assert len(table.expression.unique()) == 4 and edit_mode(table) == "paired"


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("table", PEOPLE.values(), ids=PEOPLE)
def test_synthesized_faces_are_never_drawn(table, paired):
    more, own = with_edits(table)
    if paired and not len(PairIndex(table)):
        with pytest.raises(InputError, match="paired training needs two expressions"):
            EditSampler(more, paired=True)
        return
    sampler, wanted = EditSampler(more, paired=paired), EditSampler(table, paired=paired)
    for step in range(20):
        rows, plain = (torch.stack(each.rows(16, StepRandom(0, step))) for each in (sampler, wanted))
        assert not more.synthetic[rows].any()
        assert torch.equal(rows, own[plain])


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("table", [make([1, 1], subject=[0, 1]), make([1, 1]).select([])], ids=["one class", "empty"])
def test_synthesized_faces_do_not_count_as_further_expressions(table, paired):
    with pytest.raises(InputError, match="two expressions"):
        EditSampler(with_edits(table)[0], paired=paired)


@pytest.mark.parametrize("paired", [True, False])
def test_sources_differ_from_targets_and_targets_are_balanced(paired):
    table = posed()
    sampler = EditSampler(table, paired=paired)
    group = pair_groups(table)
    for step in range(5):
        source, target = sampler.rows(18, StepRandom(0, step))
        assert source.shape == target.shape == (18,)
        assert (table.expression[source] >= 0).all() and (table.expression[target] >= 0).all()
        assert (table.expression[source] != table.expression[target]).all()
        counts = table.expression[target].bincount(minlength=len(CLASSES))
        assert counts.min() == 18 // len(CLASSES) and counts.max() == 18 // len(CLASSES) + 1
        if paired:
            assert torch.equal(group[source], group[target]) and (group[source] >= 0).all()


def test_all_faces_of_rare_classes_are_reached_and_no_class_is_favored_over_steps():
    table = make([0] * 40 + [1] * 5 + [2] * 2)
    sampler = EditSampler(table, paired=False)
    targets = torch.cat([sampler.rows(4, StepRandom(0, step))[1] for step in range(300)])
    shares = table.expression[targets].bincount(minlength=3) / len(targets)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert len(targets.unique()) == 47


@pytest.mark.parametrize("paired", [True, False])
def test_two_processes_draw_what_one_does(paired):
    sampler = EditSampler(posed(), paired=paired)
    one = sampler.rows(12, StepRandom(3, 4))
    two = [sampler.rows(6, StepRandom(3, 4, rank=rank, world=2)) for rank in range(2)]
    for i in range(2):
        assert torch.equal(torch.stack([two[0][i], two[1][i]], 1).flatten(), one[i])


def test_same_step_same_rows_and_other_names_other_rows():
    sampler = EditSampler(posed(), paired=False)

    def rows(step, name):
        return torch.stack(sampler.rows(16, StepRandom(0, step), name))

    assert torch.equal(rows(0, "edit"), rows(0, "edit"))
    assert not torch.equal(rows(0, "edit"), rows(1, "edit"))
    assert not torch.equal(rows(0, "edit"), rows(0, "other"))


def test_target_classes_can_be_chosen():
    table = posed()
    for paired in (True, False):
        source, target = EditSampler(table, paired=paired, classes=[1, 3]).rows(10, StepRandom(0, 0))
        assert table.expression[target].bincount(minlength=4).tolist() == [0, 5, 0, 5]
        assert len(table.expression[source].unique()) > 1


@pytest.mark.parametrize(
    ("table", "classes"),
    [(make([1, 1, 1]), None), (make([-1, -1]), None), (make([0, 1]), [2])],
    ids=["one class", "no labels", "wanted class absent"],
)
def test_too_few_expressions(table, classes):
    with pytest.raises(InputError, match="at least two expressions"):
        EditSampler(table, paired=False, classes=classes)


def test_partners_are_those_of_the_definition():
    random = torch.Generator().manual_seed(0)
    table = faces(random)
    index, groups = PairIndex(table), pair_groups(table)
    for row in range(len(table)):
        same = (groups == groups[row]) & (groups[row] >= 0) & (table.expression >= 0)
        wanted = torch.where(same & (table.expression != table.expression[row]))[0].tolist()
        wanted = wanted if groups[row] >= 0 and table.expression[row] >= 0 else []
        assert (row in index.rows.tolist()) == bool(wanted)
        if wanted:
            drawn = index.draw(torch.full((200,), row), torch.linspace(0, 1, 201)[:-1])
            assert sorted(set(drawn.tolist())) == sorted(wanted)


def faces(random, count=60):
    def numbers(low, high):
        return torch.randint(low, high, (count,), generator=random)

    images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    return FaceTable(
        images, ("neutral", "fear", "anger"), numbers(-1, 3), subject=numbers(-1, 6), session=numbers(0, 2)
    )


def test_what_is_kept_grows_with_the_faces_and_not_with_their_pairs():
    index = PairIndex(FaceTable(
        torch.zeros(4000, 1, 1, 1, dtype=torch.uint8), ("neutral", "fear"), torch.arange(4000) % 2,
        subject=torch.zeros(4000, dtype=torch.int64),
    ))  # fmt: skip
    assert sum(v.numel() for v in vars(index).values()) <= 6 * 4000 and (index.counts == 2000).all()


def test_long_numbers_of_people_and_sessions():
    table = FaceTable(
        torch.zeros(4, 1, 1, 1, dtype=torch.uint8), ("neutral", "fear"), torch.tensor([0, 1, 0, 1]),
        subject=torch.tensor([500000000001, 500000000001, 7, 7]), session=torch.tensor([20240115] * 4),
    )  # fmt: skip
    assert (pair_groups(table) >= 0).all() and len(PairIndex(table)) == 4
