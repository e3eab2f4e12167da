import pytest
import torch

from synthmtl.balance.plan import make_plan
from synthmtl.balance.strata import quotas, strata
from synthmtl.data.table import coded_words
from synthmtl.errors import InputError


def test_each_combination_is_a_stratum(job):
    table = job.make_faces({"neutral": 6}, size=8)
    nan = float("nan")
    table.attributes = {"age": torch.tensor([1.0, 1, 2, 2, nan, nan]), "sex": torch.tensor([0.0, 0, 0, 1, 1, 1])}
    assert strata(table, []).tolist() == [0] * 6
    assert len(strata(table, ["age"]).unique()) == 3 and len(strata(table, ["age", "sex"]).unique()) == 4
    first = strata(table, ["age", "sex"])
    assert first[0] == first[1] and first[4] == first[5] and first[2] != first[3]


def test_many_values_are_taken_by_quarters(job):
    table = job.make_faces({"neutral": 100}, size=8)
    table.attributes = {"age": torch.randperm(100, generator=torch.Generator().manual_seed(0)).float()}
    stratum = strata(table, ["age"])
    assert torch.bincount(stratum).tolist() == [25, 25, 25, 25]
    assert stratum[table.attributes["age"].argsort()].tolist() == sorted(stratum.tolist())


def test_absent_attributes_are_named(job):
    table = job.make_faces({"neutral": 3, "fear": 2}, size=8)
    with pytest.raises(InputError, match="cannot match 'age': the data carry no attribute at all"):
        make_plan(table, match=["age"])
    table.attributes = {"yaw": torch.zeros(5), "age": torch.full((5,), float("nan"))}
    with pytest.raises(InputError, match="cannot match 'age': the data carry age, yaw"):
        make_plan(table, match=["yaw", "age"])


def test_quotas_bring_the_sum_to_the_shares():
    assert quotas(torch.tensor([0, 0]), torch.tensor([3, 1]), 8) == [6, 2]
    assert quotas(torch.tensor([6, 0]), torch.tensor([1, 1]), 6) == [0, 6]
    assert quotas(torch.tensor([9, 0]), torch.tensor([1, 1]), 3) == [0, 3]
    assert quotas(torch.tensor([1, 1, 1]), torch.tensor([1, 1, 1]), 5) in ([2, 2, 1], [2, 1, 2], [1, 2, 2])
    assert quotas(torch.tensor([0, 5]), torch.tensor([0, 1]), 4) == [0, 4]


def test_classes_get_the_mix_of_the_set(job):
    table = job.make_faces({"neutral": 40, "happiness": 12, "fear": 4}, subjects=0, size=8)
    # Half of the set is young, though nobody who is afraid is.
    young = torch.cat([torch.arange(40) < 22, torch.arange(12) < 6, torch.zeros(4, dtype=torch.bool)])
    table.attributes = {"young": young.float()}
    for name in ("happiness", "fear"):
        plan = make_plan(table, match=["young"])
        sources = plan.sources[plan.target == table.classes.index(name)]
        assert (young[sources[:, 0]] == young[sources[:, 1]]).all()
        own = young[table.expression == table.classes.index(name)]
        assert int(young[sources[:, 0]].sum()) + int(own.sum()) == 20
        other = make_plan(table)
        assert plan.requested == other.requested and plan.fingerprint() != other.fingerprint()
    assert plan.match == ("young",)


def test_a_stratum_without_sources_is_said_and_made_up_for(job, caplog):
    table = job.make_faces({"neutral": 8, "fear": 2}, subjects=0, size=8)
    table.attributes = {"old": torch.tensor([0.0] * 8 + [1.0, 0.0])}
    with caplog.at_level("WARNING", "synthmtl"):
        plan = make_plan(table, match=["old"])
    assert len(plan) == 6 and "fear: no face to edit in the strata of old that 1 faces belong to" in caplog.text


def test_words_are_categories_however_many(job):
    table = job.make_faces({"neutral": 30, "fear": 10}, subjects=0, size=8)
    people = [f"people {i % 10}" for i in range(40)]
    column, words = coded_words(people)
    table = table.replace(attributes={"ethnicity": column}, words={"ethnicity": words})
    assert len(strata(table, ["ethnicity"]).unique()) == 10
    plan = make_plan(table, match=["ethnicity"])
    made = torch.bincount(column[plan.sources[:, 0]].long(), minlength=10)
    assert len(plan) == 20 and made.tolist() == [2] * 10
