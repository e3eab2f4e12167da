"""A contact sheet: what a generator makes of a few faces, each expression in a column of its own."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from synthmtl.balance.synthesize import edit_faces
from synthmtl.data.images import pillow_image
from synthmtl.data.randomness import derive_seed
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.files import replacing
from synthmtl.models.generators import FaceGenerator
from synthmtl.models.sampling import SamplingOptions

_GAP = 2


def contact_cells(
    generator: FaceGenerator,
    table: FaceTable,
    rows: Sequence[int],
    *,
    seed: int = 0,
    spread: float = 1.0,
    sampling: SamplingOptions | None = None,
) -> Tensor:
    """Sources and their edits: uint8 (R, 1 + K, C, H, W).

    The first column holds the sources; the cell of a source's own expression stays gray, since a source is never
    edited to what it shows.
    """
    chosen = torch.as_tensor(rows, dtype=torch.int64)
    cells = torch.full((len(chosen), 1 + len(table.classes), *table.images.shape[1:]), 128, dtype=torch.uint8)
    cells[:, 0] = table.images[chosen]
    wanted = [(r, k) for r, row in enumerate(chosen) for k in range(len(table.classes)) if table.expression[row] != k]
    if wanted:
        r, k = torch.tensor(wanted).T
        seeds = [derive_seed("sheet", seed, int(chosen[i]), int(j)) for i, j in wanted]
        made, _ = edit_faces(generator, table.images[chosen[r]], k, seeds, spread=spread, sampling=sampling)
        cells[r, 1 + k] = made
    return cells


def new_cells(
    generator: FaceGenerator,
    rows: int = 8,
    *,
    seed: int = 0,
    spread: float = 1.0,
    sampling: SamplingOptions | None = None,
) -> Tensor:
    """New faces: uint8 (R, K, C, H, W), each row of the same noise, each expression in a column of its own."""
    count = len(generator.classes)
    target = torch.arange(count).repeat(rows)
    seeds = [derive_seed("new", seed, row) for row in range(rows) for _ in range(count)]
    made, _ = edit_faces(generator, None, target, seeds, spread=spread, sampling=sampling)
    return rearrange(made, "(row column) c h w -> row column c h w", row=rows)


def sheet_rows(table: FaceTable, count: int = 8, *, seed: int = 0) -> list[int]:
    """Rows of up to ``count`` real labelled faces, expressions in turn, and subjects all different where possible."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(derive_seed("sheet rows", seed)))
    left = order[(table.expression[order] >= 0) & ~table.synthetic[order]].tolist()
    expression, subject = table.expression.tolist(), table.subject.tolist()
    shown: Counter[int] = Counter()
    subjects: set[int] = set()
    chosen: list[int] = []
    while left and len(chosen) < count:
        best = min(left, key=lambda row: (shown[expression[row]], subject[row] in subjects))
        left.remove(best)
        chosen.append(best)
        shown[expression[best]] += 1
        if subject[best] >= 0:
            subjects.add(subject[best])
    return chosen


def draw_sheet(cells: Tensor, columns: Sequence[str], path: str | Path, *, scale: int | None = None) -> Path:
    """Draw faces as a grid under column heads.

    Args:
        cells: uint8 (R, N, C, H, W).
        columns: N titles.
        path: PNG file.
        scale: whole factor by which faces are enlarged; None makes them at least 88 pixels wide, so that the names
            of all expressions are legible over them.

    Raises:
        InputError: if there are no cells, or not one title a column.
    """
    if cells.ndim != 5 or not cells.numel() or cells.shape[1] != len(columns):
        raise InputError(f"a contact sheet of {len(columns)} columns cannot be drawn from {tuple(cells.shape)}")
    scale = scale or max(1, -(-88 // cells.shape[-1]))
    faces = F.interpolate(cells.flatten(0, 1).float(), scale_factor=scale, mode="nearest").to(torch.uint8)
    grid = pillow_image(make_grid(faces, nrow=len(columns), padding=_GAP, pad_value=255))
    font = ImageFont.load_default(size=14)
    head = 24
    sheet = Image.new("RGB", (grid.width, grid.height + head), "white")
    sheet.paste(grid, (0, head))
    draw = ImageDraw.Draw(sheet)
    for i, title in enumerate(columns):
        middle = _GAP + i * (faces.shape[-1] + _GAP) + faces.shape[-1] / 2
        draw.text((middle, head / 2), title, "black", font, anchor="mm")
    with replacing(path) as partial:
        sheet.save(partial, "PNG")
    return Path(path)
