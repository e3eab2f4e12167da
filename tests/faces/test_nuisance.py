"""The dial for harm: the data have the correlation that was asked for, in training only, and keep their pairs."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from synthmtl.data.pairs import PairIndex, edit_mode
from synthmtl.faces import LONG_TAIL, RenderConfig, counterparts, render_faces, split_configs
from synthmtl.faces import dataset as module
from synthmtl.faces.identity import appearance
from synthmtl.faces.nuisance import LARGEST, NUISANCES, PARTNERED, correlation_ratio, cramers_v, measured_correlation
from synthmtl.labels import EXPRESSIONS

TRAIN = RenderConfig(counts=30, subjects=48, image_size=32, seed=3, nuisance_correlation=0.9)


@pytest.fixture(scope="module")
def tables():
    """Training faces by correlation, from the same people."""
    configs = {rho: dataclasses.replace(TRAIN, nuisance_correlation=rho) for rho in (0.5, 0.9)}
    return {rho: render_faces(config) for rho, config in configs.items()}


def dealt(config):
    """(kind, expression, session) of every face, without rendering it."""
    faces = np.array(module._schedule(config))
    kind = module._kinds(config).of_subject[faces[:, 0] - config.subject_offset]
    session = faces[:, 0] * config.sessions_per_subject + faces[:, 1]
    return tuple(torch.tensor(column) for column in (kind, faces[:, 3], session))


def agreement(a, b):
    """How often two labels agree beyond what their shares explain, of what is possible (Cohen's kappa)."""
    shares = [torch.bincount(label, minlength=8).double() / len(label) for label in (a, b)]
    chance = float(shares[0] @ shares[1])
    return (float((a == b).double().mean()) - chance) / (1 - chance)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_data_have_the_correlation_asked_for(tables, rho):
    table, config = tables[rho], dataclasses.replace(TRAIN, nuisance_correlation=rho)
    assert table.counts() == config.class_counts()
    found = measured_correlation(table)
    for name in NUISANCES:
        assert found[name] == pytest.approx(rho, abs=0.06), name
    assert found["subject"] > rho - 0.2
    kind, expression, _ = dealt(config)
    assert cramers_v(kind, expression) == pytest.approx(rho, abs=0.04)
    assert torch.equal(expression, table.expression)


@pytest.mark.parametrize("counts", [60, LONG_TAIL])
@pytest.mark.parametrize("rho", [0.1, 0.3, 0.7, 0.95, 1.0])
def test_expressions_go_with_kinds_as_strongly_as_asked(counts, rho):
    config = RenderConfig(counts=counts, subjects=120, nuisance_correlation=rho, seed=1, subject_offset=32)
    kind, expression, _ = dealt(config)
    assert agreement(kind, expression) == pytest.approx(min(rho, LARGEST), abs=0.04)


def test_validation_and_test_have_none_of_it():
    split = {"validation_subjects": 16, "test_subjects": 48, "train_subjects": 16}
    configs = split_configs(8, 8, 30, config=TRAIN, **split)
    plain = split_configs(8, 8, 30, config=dataclasses.replace(TRAIN, nuisance_correlation=0.0), **split)
    assert configs["train"].nuisance_correlation == 0.9
    assert configs["validation"] == plain["validation"] and configs["test"] == plain["test"]
    table = render_faces(configs["test"])
    random = np.random.default_rng(0)
    for name, value in measured_correlation(table).items():
        chance = []
        for _ in range(40):
            shuffled = table.expression[torch.from_numpy(random.permutation(len(table)))]
            chance.append(measured_correlation(table.replace(expression=shuffled))[name])
        assert value <= max(chance) + 0.02, name


def test_without_the_dial_faces_are_what_they_were():
    """Draws noted before there was a dial."""
    schedule = np.array(module._schedule(RenderConfig(counts=LONG_TAIL, subjects=120)), np.int64)
    assert hashlib.sha256(schedule.tobytes()).hexdigest()[:16] == "ef543a60a8b04516"
    table = render_faces(RenderConfig(counts=1, subjects=2, sessions_per_subject=2, seed=1, image_size=32))
    yaw = [9.6428, 9.6428, -4.6018, -4.6018, -9.7809, -9.7809, -11.4971, -11.4971]
    light = [0.5503, 0.5503, 0.5021, 0.5021, -0.0196, -0.0196, -0.2509, -0.2509]
    torch.testing.assert_close(table.attributes["yaw"], torch.tensor(yaw), atol=1e-3, rtol=0)
    torch.testing.assert_close(table.attributes["light_x"], torch.tensor(light), atol=1e-4, rtol=0)
    np.testing.assert_allclose(appearance(3, 7).skin, [0.74658, 0.56585, 0.45326], atol=1e-5)


def test_people_and_sessions_are_the_same_whatever_the_strength(tables):
    def sessions(table):
        keys = zip(table.subject.tolist(), table.session.tolist(), strict=True)
        values = torch.stack([table.attributes[name] for name in NUISANCES], 1).tolist()
        return dict(zip(keys, values, strict=True))

    first, second = sessions(tables[0.5]), sessions(tables[0.9])
    assert len(first) == len(second) == 96 and first == second
    # Over all of them, each nuisance is spread as it is without the dial.
    plain = sessions(render_faces(dataclasses.replace(TRAIN, nuisance_correlation=0.0)))
    quartiles = [np.quantile(np.array(list(part.values())), (0.25, 0.5, 0.75), axis=0) for part in (first, plain)]
    spread = np.array(list(plain.values())).std(0)
    assert (np.abs(quartiles[0] - quartiles[1]) < 0.45 * spread).all()


def test_pairs_stay_aligned(tables):
    table = tables[0.9]
    for name in NUISANCES:
        for subject, session in {(3, 0), (10, 1), (40, 0)}:
            rows = (table.subject == subject) & (table.session == session)
            assert rows.any() and table.attributes[name][rows].unique().numel() == 1
    rows = table.select(range(0, 240, 40))
    others = counterparts(rows, TRAIN, (rows.expression + 1) % 8)
    assert all(torch.equal(others.attributes[name], rows.attributes[name]) for name in NUISANCES)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_rendered_pairs_suffice_for_paired_training(tables, rho):
    assert edit_mode(tables[rho]) == "paired"
    assert len(PairIndex(tables[rho])) >= PARTNERED * len(tables[rho]) - 8


FEW = {"neutral": 12, "happiness": 12, "fear": 4}


@pytest.mark.parametrize(("counts", "subjects"), [(60, 100), (LONG_TAIL, 120), (FEW, 4)])
@pytest.mark.parametrize("rho", [0.9, 1.0])
def test_every_expression_keeps_partners(counts, subjects, rho):
    for seed in range(3):
        config = RenderConfig(counts=counts, subjects=subjects, nuisance_correlation=rho, seed=seed)
        _, expression, session = dealt(config)
        mixed = torch.tensor([(expression[session == s] != e).any() for s, e in zip(session, expression, strict=True)])
        for index in range(len(EXPRESSIONS)):
            assert not (expression == index).any() or mixed[expression == index].float().mean() > 0.2, index
        assert mixed.float().mean() >= PARTNERED - 0.05


def test_measures_know_known_answers():
    groups = torch.arange(8).repeat_interleave(50)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0))
    assert correlation_ratio(groups.float().square(), groups) == pytest.approx(1)
    assert correlation_ratio(noise, groups) < 0.1
    mixed = 0.6 * (groups - 3.5) / groups.double().std() + 0.8 * noise
    assert correlation_ratio(mixed, groups) == pytest.approx(0.6, abs=0.06)
    assert correlation_ratio(torch.ones(400), groups) == 0
    assert cramers_v(groups, 7 - groups) == pytest.approx(1, abs=1e-6)
    assert cramers_v(groups, groups % 2) == pytest.approx(1, abs=0.02)
    random = torch.randint(8, (400,), generator=torch.Generator().manual_seed(1))
    assert cramers_v(groups, random) < 0.1
    share = torch.rand(400, generator=torch.Generator().manual_seed(2)) < 0.5
    assert cramers_v(groups, torch.where(share, groups, random)) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 16, 49, 1000])
@pytest.mark.parametrize("kinds", [1, 2, 8, 1000])
def test_a_person_for_each_face_goes_with_nothing(count, kinds):
    faces = torch.arange(count)
    assert cramers_v(faces, faces % kinds) == cramers_v(faces % kinds, faces) == 0


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_set_with_a_person_for_each_face_is_measured(sessions):
    config = RenderConfig(counts=2, subjects=16, sessions_per_subject=sessions, image_size=32, seed=3)
    table = render_faces(config)
    faces = table.select([int(torch.where(table.subject == s)[0][0]) for s in table.subject.unique()])
    found = measured_correlation(faces)
    assert found["subject"] == 0 and all(0 <= value <= 1 for value in found.values())
    assert set(measured_correlation(faces.select([])).values()) == {0.0}


def test_compound_faces_do_not_count():
    config = RenderConfig(counts=10, compound_counts=6, subjects=16, image_size=32, seed=3, nuisance_correlation=0.9)
    table = render_faces(config)
    basic = table.select(table.compound < 0)
    assert len(basic) == 80 and len(table) == 152
    assert measured_correlation(table) == measured_correlation(basic)
    assert measured_correlation(basic)["skin"] > 0.6
