import json

import numpy as np
import pytest
import torch
from PIL import Image

from synthmtl.balance.scored import homes_of, match_files, read_scored_sets, sources_of
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.table import FaceTable, coded_words
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


def test_files_match_by_whole_parts_and_only_once():
    files = ["/data/set/train/anger/1.png", "/data/set/train/fear/1.png", "/data/set/train/fear/11.png", "rows.csv:7"]
    wanted = ["train/anger/1.png", "1.png", "fear/11.png", None, "r/1.png", "other/rows.csv:7", "rows.csv:7", ""]
    assert match_files(files, wanted).tolist() == [0, -1, 2, -1, -1, 3, 3, -1]
    assert match_files([], wanted).tolist() == [-1] * 8


def photographs(files, *, own=None, synthetic=None):
    """Faces of these files; ``own`` is their ``source_file``."""
    column, words = coded_words(own or [None] * len(files))
    return FaceTable(
        images=torch.zeros(len(files), 1, 8, 8, dtype=torch.uint8),
        classes=("anger",),
        files=files,
        attributes={"source_file": column} if own else {},
        words={"source_file": words} if own else {},
        synthetic=torch.tensor(synthetic) if synthetic else None,
    )


def test_photographs_are_found_by_their_file_or_by_what_they_were_called_before():
    tables = [
        photographs(["/d/train/0.png", "/d/train/1.png"], own=["a/x.png", "a/y.png"], synthetic=[False, True]),
        photographs(["/d/test/0.png"]),
    ]
    sources = ["train/0.png", "test/0.png", "a/x.png", "a/y.png", "train/1.png", "0.png", None]
    assert homes_of(sources, tables).tolist() == [0, 1, 0, -1, -1, -1, -1]
    assert homes_of([], tables).tolist() == []


def test_sources_that_are_there_once_are_known_too(tmp_path):
    made = photographs(["", ""]).replace(expression=torch.zeros(2, dtype=torch.int64))
    write_image_folder(made, tmp_path, extra=[{"source_file": name} for name in ("a/0.png", "b/0.png")])
    read = read_image_folder(tmp_path, image_size=8, channels=1)["train"]
    assert not read.attributes and sources_of(tmp_path, read) == ["a/0.png", "b/0.png"]


def test_nothing_to_read(tmp_path):
    made = write(tmp_path / "made", {"anger": 1})
    with pytest.raises(InputError, match="missing: no such folder"):
        read_scored_sets(tmp_path / "missing", made)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no image can be read"):
        read_scored_sets(tmp_path / "empty", made)
