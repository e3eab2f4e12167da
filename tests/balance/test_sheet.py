import pytest
import torch
from PIL import Image

from synthmtl.balance.sheet import contact_cells, draw_sheet, new_cells, sheet_rows
from synthmtl.errors import InputError
from synthmtl.models.sampling import SamplingOptions


def test_cells_hold_sources_edits_and_a_gap(job):
    table = job.make_faces({"neutral": 3, "happiness": 3, "fear": 3})
    cells = contact_cells(job.make_generator(), table, [0, 4, 8])
    assert cells.shape == (3, 4, 1, 32, 32) and cells.dtype == torch.uint8
    assert torch.equal(cells[:, 0], table.images[[0, 4, 8]])
    for r in range(3):
        for k in range(3):
            assert bool((cells[r, 1 + k] == 128).all()) == (r == k)
    assert torch.equal(cells, contact_cells(job.make_generator(), table, [0, 4, 8]))


def test_new_faces_of_a_row_share_their_noise(job):
    generator = job.make_diffusion()
    torch.nn.init.zeros_(generator.target.embedding.weight)  # told nothing, faces differ by noise alone
    cells = new_cells(generator, 2, sampling=SamplingOptions(steps=2))
    assert cells.shape == (2, 3, 1, 32, 32) and cells.dtype == torch.uint8
    assert torch.equal(cells[:, 0], cells[:, 1]) and not torch.equal(cells[0], cells[1])


def test_rows_take_expressions_and_subjects_in_turn(job):
    table = job.make_faces({"neutral": 30, "happiness": 6, "fear": 3}, subjects=6)
    table.synthetic[0] = True
    rows = sheet_rows(table, 6)
    assert torch.bincount(table.expression[rows]).tolist() == [2, 2, 2]
    assert len(table.subject[rows].unique()) >= 5 and 0 not in rows
    assert len(sheet_rows(table.select(range(1, 4)), 6)) == 3


def test_sheet_shows_each_pixel_as_a_block(tmp_path):
    cells = torch.tensor([[10, 200, 60]], dtype=torch.uint8)[:, :, None, None, None].expand(1, 3, 1, 8, 8)
    path = draw_sheet(cells, ["source", "neutral", "fear"], tmp_path / "sheet.png", scale=10)
    sheet = Image.open(path)
    assert sheet.size == (3 * 82 + 2, 82 + 2 + 24)
    for i, value in enumerate((10, 200, 60)):
        block = sheet.crop((2 + 82 * i, 26, 82 + 82 * i, 106))
        assert block.getextrema() == ((value, value),) * 3
    assert sheet.crop((0, 0, 248, 24)).convert("L").getextrema()[0] < 80  # the heads are written
    with pytest.raises(InputError, match="2 columns"):
        draw_sheet(cells, ["source", "neutral"], tmp_path / "sheet.png")
