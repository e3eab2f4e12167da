import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.balance.formats import FORMATS
from synthmtl.balance.scored import read_scored_sets
from synthmtl.balance.synthesize import synthesize_balancing_set
from synthmtl.balance.write import write_balancing_set
from synthmtl.data.load import read_tables
from synthmtl.data.provenance import homes_of, sources_of
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.table import FaceTable
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError


def write(root, counts, size=32, mode="L", seed=0):
    random = np.random.default_rng(seed)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (size, size) if mode == "L" else (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return root


def test_alike_sets_need_no_decision(tmp_path):
    real = write(tmp_path / "real", {"anger": 3, "fear": 2})
    made = write(tmp_path / "made", {"fear": 4, "happiness": 1}, seed=1)
    sets = read_scored_sets(real, made)
    assert sets.real.classes == sets.synthetic.classes == ("happiness", "fear", "anger")
    assert (len(sets.real), len(sets.synthetic), sets.test) == (5, 5, None)
    assert sets.synthetic.synthetic.all() and not sets.real.synthetic.any()
    assert sets.source_row.tolist() == [-1] * 5 and sets.filtered_by is None
    assert sets.notes == ["no face of the synthesized set is marked synthetic: all are taken for it"]


def test_size_and_mode_are_those_of_the_lesser_set(tmp_path):
    real = write(tmp_path / "real", {"anger": 3}, size=60, mode="RGB")
    made = write(tmp_path / "made", {"anger": 3}, size=32)
    sets = read_scored_sets(real, made)
    assert sets.real.images.shape[1:] == sets.synthetic.images.shape[1:] == (1, 32, 32)
    told = " ".join(sets.notes)
    assert "real faces are mostly of 60 px, synthesized faces are mostly of 32 px: all are read at 32 px" in told
    assert "real faces are in color, synthesized faces are gray: all are read in gray" in told
    color = read_scored_sets(real, write(tmp_path / "large", {"anger": 2}, size=300, mode="RGB"))
    assert color.real.images.shape[1:] == (3, 60, 60)
    assert color.real.images.float().std() > 1


def test_splits_and_marks_are_heeded(tmp_path):
    real = write(tmp_path / "real", {"train/anger": 3, "test/anger": 2, "validation/anger": 1})
    images = torch.randint(0, 256, (4, 1, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    table = FaceTable(
        images=images,
        classes=("anger",),
        expression=torch.zeros(4, dtype=torch.int64),
        synthetic=torch.tensor([False, True, True, True]),
    )
    sources = [None, "train/anger/1.png", "anger/2.png", "test/anger/0.png"]
    write_image_folder(table, tmp_path / "made", extra=[{"source_file": name} for name in sources])
    (tmp_path / "made" / "balance.json").write_text(json.dumps({"identity": {"judge": "abc"}}))
    sets = read_scored_sets(real, tmp_path / "made")
    assert (len(sets.real), len(sets.test), len(sets.synthetic)) == (3, 2, 3)
    assert torch.equal(sets.synthetic.images, images[1:])
    assert sets.source_row.tolist() == [1, 2, -1] and sets.filtered_by == "abc"
    told = " ".join(sets.notes)
    assert "real faces are those of train" in told and "to test on are those of test" in told
    assert "left 1 real faces out of made" in told
    with pytest.raises(InputError, match="all faces are marked synthetic"):
        made = FaceTable(images=images, classes=("anger",), expression=torch.zeros(4, dtype=torch.int64),
                         synthetic=torch.ones(4, dtype=torch.bool))  # fmt: skip
        write_image_folder(made, tmp_path / "fake")
        read_scored_sets(tmp_path / "fake", tmp_path / "made")


@pytest.fixture(scope="module")
def edited(tmp_path_factory, job):
    """A flat folder ``FACES`` and sets, by format, in which each of its faces is edited at most once."""
    root = tmp_path_factory.mktemp("edited")
    write(root / "FACES", {"neutral": 8, "happiness": 6, "fear": 5})
    table, generator = read_image_folder(root / "FACES", image_size=32, channels=1)["all"], job.make_generator()
    result = synthesize_balancing_set(generator, None, table, filter=False)
    for format in FORMATS:
        write_balancing_set(result, root / format, generator=generator, table=table, format=format, sheet_faces=1)
    options = {"generator": generator, "table": table, "originals": True, "sheet_faces": 1}
    write_balancing_set(result, root / "both", **options)
    shutil.copytree(root / "FACES", root / "renamed")
    rows = sorted(record["source_row"] for record in result.records)
    assert len(set(rows)) == len(rows) == 5
    return root, table.images[rows]


@pytest.mark.parametrize(("real", "made"), [*(("FACES", f) for f in FORMATS), ("renamed", "parquet"), ("both", "both")])
def test_sources_are_known_in_every_format_and_under_every_name(edited, real, made):
    root, sources = edited
    sets = read_scored_sets(root / real, root / made)
    found = sets.real.images[sets.source_row].flatten(1)
    assert (sets.source_row >= 0).all() and not sets.synthetic.attributes
    assert sorted(found.tolist()) == sorted(sources.flatten(1).tolist())
    moved = [note for note in sets.notes if "go by their place in a folder that had another name" in note]
    assert len(moved) == (real == "renamed") and not [note for note in sets.notes if "not among" in note]


@pytest.mark.parametrize("real", ["FACES", "renamed", "both"])
@pytest.mark.parametrize("made", [*FORMATS, "both"])
def test_every_edit_of_a_held_out_face_is_found(edited, real, made):
    root, _ = edited
    (faces,) = read_tables(root / real, image_size=32, channels=1).values()
    (table,) = read_tables(root / made, image_size=32, channels=1).values()
    table = table.select(table.synthetic)
    assert homes_of(sources_of(table), [faces.select([]), faces]).tolist() == [1] * 5


def test_sources_that_are_not_there_are_counted(edited, tmp_path):
    root, _ = edited
    other = write(tmp_path / "other", {"train/neutral": 3, "train/happiness": 2, "train/fear": 2})
    sets = read_scored_sets(other, root / "imagefolder")
    assert sets.source_row.tolist() == [-1] * 5
    assert "5 of 5 faces are edits of photographs that are not among the real faces" in " ".join(sets.notes)


def test_nothing_to_read(tmp_path):
    made = write(tmp_path / "made", {"anger": 1})
    with pytest.raises(InputError, match="missing: no such folder"):
        read_scored_sets(tmp_path / "missing", made)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no image can be read"):
        read_scored_sets(tmp_path / "empty", made)
