import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from synthmtl.balance import quality
from synthmtl.balance.quality import IN_FEATURES, NUMBERS, draw_pairs, format_card, quality_card
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.metrics.features import MissingWeightsError

CLASSES = ("neutral", "happiness", "fear")


class Pixels(nn.Module):
    """Features that need no training: the face in a few pixels, and how rough it is."""

    name = "pixels"

    def forward(self, images):
        rough = 10 * images.diff(dim=-1).abs().mean((1, 2, 3))
        return torch.cat([F.adaptive_avg_pool2d(images, 4).flatten(1), rough[:, None]], 1)


def faces(each=8, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(each * len(CLASSES), 1, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    return FaceTable(
        images=(smooth * 255).round().clamp(0, 255).to(torch.uint8),
        classes=CLASSES,
        expression=torch.arange(len(coarse)) % len(CLASSES),
        files=[f"faces/{seed}-{i}.png" for i in range(len(coarse))],
    )


def noise():
    table = faces()
    generator = torch.Generator().manual_seed(1)
    return table.replace(images=torch.randint(0, 256, table.images.shape, generator=generator).to(torch.uint8))


def values(numbers):
    return {name: number.get("value") for name, number in numbers.items()}


@pytest.fixture(scope="module")
def itself():
    return quality_card(faces(), faces(), extractor=Pixels())


def test_card_is_whole_and_plain(itself):
    assert json.loads(json.dumps(itself, allow_nan=False)) == itself
    assert list(itself["per_expression"]) == list(CLASSES)
    for numbers in (itself["overall"], *itself["per_expression"].values()):
        assert tuple(numbers) == NUMBERS
        for name, number in numbers.items():
            assert ("value" in number) != ("absent" in number)
            assert name not in IN_FEATURES or number.get("extractor", "pixels").startswith("pixels")
    assert itself["overall"]["fid"]["extractor"].startswith("pixels ")
    assert "fewer than 2048 faces" in itself["overall"]["fid"]["warning"]
    assert itself["real"] == {"faces": 24, "counts": dict.fromkeys(CLASSES, 8)}


def test_a_set_against_itself(itself):
    for numbers in (itself["overall"], *itself["per_expression"].values()):
        found = values(numbers)
        assert found["fid"] == pytest.approx(0, abs=1e-3)
        assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
        assert (found["copies"], found["authenticity"]) == (1, 0)
        assert numbers["diversity"]["value"] == numbers["diversity"]["real"] > 0
    assert itself["overall"]["copies"]["kinds"]["exact"] == 24
    assert itself["overall"]["copies"]["real"]["value"] == 0
    assert all(pair["by_features"]["row"] == pair["row"] for pair in itself["closest_pairs"])


def test_noise():
    found = values(quality_card(faces(), noise(), extractor=Pixels())["overall"])
    assert (found["precision"], found["density"], found["coverage"]) == (0, 0, 0)
    assert (found["copies"], found["authenticity"]) == (0, 1) and found["fid"] > 10


def test_planted_copies_lead_the_pairs(tmp_path):
    real, made = faces(), faces(seed=5)
    made.images[7] = real.images[19].flip(-1)
    made.images[20] = real.images[11]
    card = quality_card(real, made, extractor=Pixels(), pairs=4)
    assert card["overall"]["copies"]["kinds"] == {"exact": 1, "near": 0, "mirrored": 1, "cropped": 0}
    assert {card["closest_pairs"][i]["row"] for i in (0, 1)} == {7, 20}
    for pair in card["closest_pairs"][:2]:
        assert pair["by_pixels"]["row"] == {7: 19, 20: 11}[pair["row"]]
        assert pair["by_pixels"]["file"] == real.files[pair["by_pixels"]["row"]]
        assert pair["by_pixels"]["copy"] == {7: "mirrored", 20: "exact"}[pair["row"]]
    picture = Image.open(draw_pairs(card, real, made, tmp_path / "pairs.png"))
    assert picture.size == (4 * 130 + 2, 4 * 130 + 2 + 24)
    shown = np.asarray(picture.convert("L").crop((2, 26, 130, 154)).resize((32, 32), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(shown, made.images[card["closest_pairs"][0]["row"], 0].numpy())


def test_a_card_without_pairs_has_nothing_to_draw(tmp_path):
    card = quality_card(faces(), faces(seed=5), extractor=Pixels(), pairs=0)
    with pytest.raises(InputError, match="names no pairs: ask quality_card for some"):
        draw_pairs(card, faces(), faces(seed=5), tmp_path / "pairs.png")
    assert not list(tmp_path.iterdir())


def test_too_few_faces_and_a_class_that_one_side_lacks():
    made = faces(each=4)
    made = made.select(made.expression != 2)
    card = quality_card(faces(), made, extractor=Pixels())
    assert "value" in card["overall"]["precision"] and "value" in card["overall"]["fid"]
    assert set(card["per_expression"]["fear"]) == set(NUMBERS)
    for name in ("fid", "kid", "precision", "diversity", "authenticity", "copies"):
        assert card["per_expression"]["fear"][name] == {"absent": "no synthesized face of fear"}
    assert card["per_expression"]["neutral"]["coverage"] == {"absent": "4 synthesized faces, at least 6 are needed"}
    assert "value" in card["per_expression"]["neutral"]["copies"]
    card = quality_card(made, faces(), extractor=Pixels())
    assert card["per_expression"]["fear"]["fid"] == {"absent": "no real face of fear"}
    assert card["per_expression"]["fear"]["authenticity"]["faces"] == 8  # the nearest real face may be of any class
    alone = quality_card(faces().select([0]), faces(), extractor=Pixels())
    assert "absent" in alone["overall"]["authenticity"] and "value" in alone["overall"]["copies"]


def test_missing_weights_cost_their_numbers_only(monkeypatch):
    def missing(name):
        raise MissingWeightsError(f"{name} needs its weights")

    monkeypatch.setattr(quality, "feature_extractor", missing)
    card = quality_card(faces(), faces(seed=5), extractor="inception")
    assert card["extractor"] == {"absent": "inception needs its weights"}
    for name in IN_FEATURES:
        assert card["overall"][name] == {"absent": "inception needs its weights"}
    assert card["overall"]["copies"]["value"] == 0
    assert "by_features" not in card["closest_pairs"][0]
    text = format_card(card)
    assert text.count("inception needs its weights") == 1 and "copies" in text.splitlines()[0]


def test_broken_features_are_absent():
    class Broken(Pixels):
        def forward(self, images):
            return super().forward(images) / 0

    card = quality_card(faces(), faces(seed=5), extractor=Broken())
    assert "not finite" in card["overall"]["fid"]["absent"] and "value" in card["overall"]["copies"]
    json.dumps(card, allow_nan=False)


def test_sets_must_be_read_alike():
    for other in (faces(size=24), faces().with_classes(CLASSES[:2])):
        with pytest.raises(InputError, match="read them alike"):
            quality_card(faces(), other, extractor=Pixels())
    with pytest.raises(InputError, match="without faces"):
        quality_card(faces(), faces().select([]), extractor=Pixels())


def test_the_same_seed_gives_the_same_card(itself):
    assert quality_card(faces(), faces(), extractor=Pixels()) == itself
