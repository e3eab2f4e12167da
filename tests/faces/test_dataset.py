import dataclasses

import numpy as np
import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.faces import LONG_TAIL, RenderConfig, counterparts, render_faces, render_splits
from synthmtl.faces import dataset as module
from synthmtl.labels import COMPOUND_EXPRESSIONS, EXPRESSIONS

SMALL = RenderConfig(counts=6, subjects=4, sessions_per_subject=3, seed=1)


@pytest.fixture(scope="module")
def table():
    return render_faces(SMALL)


def test_counts_are_exact_and_labels_complete(table):
    assert table.counts() == dict.fromkeys(EXPRESSIONS, 6)
    assert table.images.shape == (48, 1, 48, 48)
    for column in (table.action_units, table.landmarks, table.valence_arousal, *table.attributes.values()):
        assert torch.isfinite(column).all()
    assert table.landmarks.min() > 0 and table.landmarks.max() < 1
    assert table.action_units.min() >= 0 and table.action_units.max() <= 1
    assert table.valence_arousal.abs().max() <= 1
    assert set(table.attributes) == {"yaw", "pitch", "roll", "light_x", "light_y", "light_z", "skin", "intensity"}
    light = torch.stack([table.attributes[f"light_{axis}"] for axis in "xyz"], 1)
    assert torch.allclose(light.norm(dim=1), torch.ones(48), atol=1e-5)
    assert max(table.attributes[name].abs().max() for name in ("yaw", "pitch", "roll")) <= 20
    strength = table.attributes["intensity"]
    assert (strength[table.expression == 0] == 0).all()
    assert strength[table.expression > 0].min() >= 0.55 and strength.max() <= 1.15
    assert not table.synthetic.any() and len(set(table.files)) == 48


def test_the_same_config_gives_the_same_bytes(table):
    again = render_faces(SMALL)
    assert torch.equal(again.images, table.images) and torch.equal(again.landmarks, table.landmarks)
    other = render_faces(dataclasses.replace(SMALL, seed=2))
    assert not torch.equal(other.images, table.images)


def test_compound_faces_come_on_top_and_change_no_other(table):
    config = dataclasses.replace(SMALL, compound_counts={"Happily Surprised": 3, "fearfully_disgusted": 2})
    more = render_faces(config)
    basic = more.select(more.compound < 0)
    assert torch.equal(basic.images, table.images) and torch.equal(basic.valence_arousal, table.valence_arousal)
    assert basic.files == table.files and len(set(more.files)) == 53
    compound = more.select(more.compound >= 0)
    assert torch.bincount(compound.compound, minlength=12).tolist() == [3, *[0] * 10, 2]
    assert (compound.expression == -1).all() and (basic.expression >= 0).all()
    for column in (compound.action_units, compound.landmarks, compound.valence_arousal):
        assert torch.isfinite(column).all()
    assert compound.attributes["intensity"].min() >= 0.55
    alone = render_faces(dataclasses.replace(config, counts=0))
    assert torch.equal(alone.images, compound.images)
    assert table.compound.tolist() == [-1] * 48


def test_every_compound_expression_can_be_rendered_and_lives_with_nuisances():
    config = dataclasses.replace(SMALL, counts={"fear": 2, "anger": 2}, compound_counts=1, nuisance_correlation=0.5)
    table = render_faces(config)
    assert sorted(table.compound[table.compound >= 0].tolist()) == list(range(len(COMPOUND_EXPRESSIONS)))
    assert sum(table.counts().values()) == 4
    plain = render_faces(dataclasses.replace(config, compound_counts=0))
    assert torch.equal(plain.images, table.select(table.compound < 0).images)


def test_a_face_does_not_depend_on_the_batch(table, monkeypatch):
    monkeypatch.setattr(module, "_RENDER_BATCH", 7)
    assert torch.equal(render_faces(SMALL).images, table.images)


def test_a_session_shares_all_but_actions_and_noise(table):
    quiet = render_faces(dataclasses.replace(SMALL, noise=0.0))
    rows = torch.where((quiet.subject == 1) & (quiet.session == 2))[0]
    assert len(rows) == 4
    for name in ("yaw", "pitch", "roll", "light_x"):
        assert quiet.attributes[name][rows].unique().numel() == 1
    corner = quiet.images[rows][:, :, :3, :2]
    assert (corner == corner[:1]).all()
    assert len(torch.unique(quiet.images[rows].flatten(1), dim=0)) == len(rows)
    noisy = table.images[rows][:, :, :3, :2].float() - corner.float()
    assert 0 < noisy.abs().max() <= 5 * 0.015 * 255
    assert len(torch.unique(noisy.flatten(1), dim=0)) == len(rows)


def test_rare_classes_nearly_always_have_a_partner():
    config = RenderConfig(counts=LONG_TAIL, subjects=120, sessions_per_subject=2)
    faces = np.array(module._schedule(config))
    assert len(faces) == sum(LONG_TAIL.values())
    assert dict(zip(EXPRESSIONS, np.bincount(faces[:, 3]).tolist(), strict=True)) == LONG_TAIL
    assert len({tuple(face[:3]) for face in faces}) == len(faces)
    session = faces[:, 0] * 2 + faces[:, 1]
    kinds = np.array([len(set(faces[session == number, 3])) for number in range(240)])
    assert (kinds >= 2).mean() > 0.9
    for rare in range(8):
        partners = [(faces[session == number, 3] != rare).any() for number in session[faces[:, 3] == rare]]
        assert np.mean(partners) > 0.9


def test_splits_are_balanced_and_of_other_people():
    splits = render_splits(
        {"neutral": 5, "fear": 2}, 1, 2, config=SMALL, train_subjects=3, validation_subjects=2, test_subjects=2
    )
    assert splits["train"].counts() == {name: {"neutral": 5, "fear": 2}.get(name, 0) for name in EXPRESSIONS}
    assert splits["validation"].counts() == dict.fromkeys(EXPRESSIONS, 1)
    assert splits["test"].counts() == dict.fromkeys(EXPRESSIONS, 2)
    people = [set(splits[name].subject.tolist()) for name in ("train", "validation", "test")]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])


def test_counterparts_keep_subject_session_and_background(table):
    rows = table.select(range(0, 48, 6))
    wanted = (rows.expression + 3) % 8
    others = counterparts(rows, SMALL, wanted)
    assert torch.equal(others.expression, wanted)
    assert torch.equal(others.subject, rows.subject) and torch.equal(others.session, rows.session)
    assert all(torch.equal(others.attributes[name], rows.attributes[name]) for name in ("yaw", "light_x"))
    gap = (others.images[..., :3, :2].float() - rows.images[..., :3, :2].float()).abs().max()
    assert gap <= 10 * 0.015 * 255
    assert not set(others.files) & set(table.files)
    assert torch.equal(others.images, counterparts(rows, SMALL, wanted).images)
    assert not torch.equal(others.images, counterparts(rows, SMALL, wanted, draw=1).images)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (128, 1)])
def test_sizes_and_channels(size, channels):
    few = {"surprise": 2, "anger": 1}
    table = render_faces(dataclasses.replace(SMALL, counts=few, image_size=size, channels=channels))
    assert table.images.shape == (3, channels, size, size)
    assert table.images.float().std() > 10
    if channels == 3:
        assert not torch.equal(table.images[:, 0], table.images[:, 2])
    else:
        small = render_faces(dataclasses.replace(SMALL, counts=few))
        assert torch.allclose(table.landmarks, small.landmarks, atol=1e-5)  # they do not depend on the size


def test_wild_faces_differ_from_studio_faces_but_keep_a_session_alike(table):
    wild = render_faces(dataclasses.replace(SMALL, style="wild", noise=0.0))
    assert wild.counts() == table.counts()
    rows = torch.where((wild.subject == 0) & (wild.session == 0))[0]
    corner = wild.images[rows][:, :, :3, :2]
    assert (corner == corner[:1]).all()
    assert wild.landmarks.min() > 0 and wild.landmarks.max() < 1


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 16},
        {"channels": 2},
        {"subjects": 0},
        {"counts": 0},
        {"counts": {"bored": 3}},
        {"counts": {"fear": -1}},
        {"compound_counts": -1},
        {"compound_counts": {"happily_bored": 1}},
        {"counts": 0, "compound_counts": {"sadly_angry": 0}},
        {"intensity_range": (1.0, 0.5)},
        {"style": "cartoon"},
        {"nuisance_correlation": 1.1},
        {"nuisance_correlation": 0.5, "subjects": 7},
    ],
)
def test_bad_values_are_named(change):
    with pytest.raises(InputError) as error:
        dataclasses.replace(SMALL, **change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "counts", "name"),
    [
        ("counts", {"happy": 5, "happiness": 10}, "happiness"),
        ("counts", {"fear": 5, "anger": 1, "Fear": 0}, "fear"),
        ("compound_counts", {"Happily Surprised": 3, "happily_surprised": 2}, "happily_surprised"),
    ],
)
def test_two_spellings_of_one_class_are_refused(option, counts, name):
    with pytest.raises(InputError, match=f"^render: {option} names the class '{name}' twice: keep one$"):
        dataclasses.replace(SMALL, **{option: counts})


def test_counterparts_of_unknown_people_are_refused(table):
    with pytest.raises(InputError, match="subject"):
        counterparts(table.replace(subject=torch.full((48,), -1)), SMALL, table.expression)
    with pytest.raises(InputError, match="expressions for"):
        counterparts(table, SMALL, [1, 2])
    with pytest.raises(InputError, match="no index into 8"):
        counterparts(table, SMALL, table.expression - 1)
