"""The two branches learn 16 pairs by heart: the synthesis branch repaints them, the recognition branch names them."""

import torch
from torch import Tensor

from synthmtl.data.batch import EditBatch
from synthmtl.data.pairs import EditSampler, PairIndex
from synthmtl.data.randomness import StepRandom
from synthmtl.data.table import FaceTable
from synthmtl.losses import ExpressionLoss, FERSNetObjective, SynthesisWeights
from synthmtl.models import FERSNet

SIZE, SUBJECTS, STEPS = 32, 8, 300
CLASSES = ("neutral", "surprise")


def drawn_faces() -> FaceTable:
    """Faces of discs and bars in [0, 1]; surprise opens mouth and eyes and lifts the brows.

    Subjects differ in skin, background, place and proportions.
    """
    generator = torch.Generator().manual_seed(0)
    ys, xs = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")

    def paint(picture: Tensor, x: float, y: float, width: float, height: float, shade: float) -> Tensor:
        """An ellipse with soft edges."""
        radius = (((xs - x) / width).square() + ((ys - y) / height).square()).sqrt()
        cover = ((1 - radius) * min(width, height) + 0.5).clamp(0, 1)
        return picture * (1 - cover) + shade * cover

    images, expression, subject = [], [], []
    for person in range(SUBJECTS):
        skin, back, x, y, wide, apart = torch.rand(6, generator=generator).tolist()
        skin, back = 0.6 + 0.4 * skin, 0.4 * back
        x, y, wide, apart = 14.5 + 3 * x, 14.5 + 3 * y, 10 + 3 * wide, 4 + 2 * apart
        for k in range(2):
            face = paint(torch.full((SIZE, SIZE), back), x, y, wide, 14, skin)
            for side in (-1, 1):
                face = paint(face, x + side * apart, y - 4, 2.5, (1.5, 3.0)[k], 0.05)
                face = paint(face, x + side * apart, y - (7, 9.5)[k], 3, 0.8, 0.2)
            face = paint(face, x, y + 7, (5.0, 4.0)[k], (0.8, 4.5)[k], 0.0)
            images.append(face)
            expression.append(k)
            subject.append(person)
    pixels = (torch.stack(images)[:, None] * 255).round().to(torch.uint8)
    return FaceTable(images=pixels, classes=CLASSES, expression=torch.tensor(expression), subject=torch.tensor(subject))


def test_sixteen_pairs_by_heart():
    table = drawn_faces()
    faces = table.batch(range(16))
    target = torch.arange(16).view(8, 2).flip(1).flatten()  # the same person with the other expression
    assert PairIndex(table).draw(torch.arange(16), torch.zeros(16)).tolist() == target.tolist()
    wanted, goal = faces.expression[target], faces.image[target]

    torch.manual_seed(0)
    model = FERSNet.sized("tiny", classes=CLASSES).train()
    objective = FERSNetObjective(model, ExpressionLoss(), SynthesisWeights())
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS, pct_start=0.1)
    sampler = EditSampler(table, paired=True)
    for step in range(STEPS):
        random = StepRandom(0, step)
        source, aim = (table.batch(rows) for rows in sampler.rows(16, random))
        terms = objective(EditBatch(faces, source, aim, torch.ones(16, dtype=torch.bool), random))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        schedule.step()

    model.eval()
    edited = model.synthesize(faces.image, wanted, spread=0.0)
    # Pixels span 2, from -1 to 1: 0.06 is 3 % of the range. Handing back the source is more than twice as far off.
    assert (faces.image - goal).abs().mean() > 0.12
    assert (edited - goal).abs().mean() < 0.06
    assert (edited - goal).abs().mean((1, 2, 3)).max() < 0.09
    assert torch.equal(model.recognize(faces.image).argmax(1), faces.expression)
    assert torch.equal(model.recognize(edited).argmax(1), wanted)
