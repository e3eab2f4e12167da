"""What a generator is told: the wanted expression, action units or affect; and a denoiser the source's features."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.labels import ACTION_UNITS, CIRCUMPLEX, canonical_compound, canonical_expression
from synthmtl.models.encoder import Encoded

CONDITIONS = ("expression", "action_units", "valence_arousal")
"""Kinds of target, by the column of ``FaceBatch`` that holds it."""

_WIDTHS = {"action_units": len(ACTION_UNITS), "valence_arousal": 2}

Target = str | int | Tensor | Mapping[str, float] | Sequence[str | int | float | Mapping[str, float]]
"""What :func:`read_target` takes."""


def check_condition(kind: str) -> None:
    """Stop at a kind of target that there is not.

    Raises:
        InputError: naming :data:`CONDITIONS`.
    """
    if kind not in CONDITIONS:
        raise InputError(f"unknown condition {kind!r}: use one of {', '.join(CONDITIONS)}")


def code_width(kind: str, classes: int) -> int:
    """Numbers in a :func:`target_code`: K, or two for each action unit, or for valence and arousal."""
    return classes if kind == "expression" else 2 * _WIDTHS[kind]


def target_code(kind: str, classes: int, target: Tensor) -> Tensor:
    """Targets as numbers, (B, W) float32: one of K, or each value (0 if missing) and whether it is known.

    Args:
        kind: one of :data:`CONDITIONS`.
        classes: number of expressions K.
        target: as :class:`TargetCondition` takes it. A missing expression is all zeros.
    """
    if kind == "expression":
        known = target >= 0
        return F.one_hot(target.clamp(min=0), classes).float() * known[:, None]
    known = ~target.isnan()
    return torch.cat([torch.where(known, target, 0.0), known.to(target.dtype)], 1)


class TargetCondition(nn.Module):
    """Embeds the target: ``expression`` (B,), ``action_units`` (B, A) or ``valence_arousal`` (B, 2) → (B, dim).

    A missing target (-1, NaN) is the null condition, which classifier-free guidance leans away from (Ho and Salimans,
    2021): a class of its own, or a vector none of whose numbers is known. Each action unit is missing on its own.

    Args:
        kind: one of :data:`CONDITIONS`.
        classes: number of expressions K.
        dim: of the embedding.

    Raises:
        InputError: if there is no such kind.
    """

    def __init__(self, kind: str, classes: int, dim: int):
        super().__init__()
        check_condition(kind)
        self.kind, self.classes = kind, classes
        if kind == "expression":
            self.embedding: nn.Module = nn.Embedding(classes + 1, dim)
        else:
            self.embedding = nn.Sequential(nn.Linear(code_width(kind, classes), dim), nn.SiLU(), nn.Linear(dim, dim))

    def missing(self, count: int, device: torch.device) -> Tensor:
        """``count`` missing targets."""
        if self.kind == "expression":
            return torch.full((count,), -1, device=device)
        return torch.full((count, _WIDTHS[self.kind]), float("nan"), device=device)

    def forward(self, target: Tensor, keep: Tensor | None = None) -> Tensor:
        """Embedding (B, dim); rows that ``keep`` (B,) bool leaves out are null."""
        if keep is not None:
            missing = self.missing(len(target), target.device).to(target.dtype)
            target = torch.where(keep.view(-1, *[1] * (target.ndim - 1)), target, missing)
        if self.kind == "expression":
            return self.embedding(torch.where(target >= 0, target, self.classes))
        code = target_code(self.kind, self.classes, target)
        return self.embedding(code.to(next(self.embedding.parameters()).dtype))


def read_target(kind: str, classes: Sequence[str], wanted: Target) -> Tensor:
    """The target that a user means, as :class:`TargetCondition` takes it: (B,) int64, (B, 22) or (B, 2) float32.

    Args:
        kind: one of :data:`CONDITIONS`.
        classes: expressions that the network knows.
        wanted: an expression's name or index, an intensity for each of some action units by name (the others are 0),
            a tensor with or without a first dimension B, or a sequence of these. A name or index stands for the
            expression's action units as the rendered faces show it (those of compound expressions, too), or for its
            place in the circumplex.

    Raises:
        InputError: if there is no such expression or action unit, or the tensor has another shape.
    """
    if not isinstance(wanted, Tensor):
        each = [wanted] if isinstance(wanted, str | int | Mapping) else wanted
        listed = kind != "expression" and isinstance(wanted, Sequence) and not isinstance(wanted, str)
        if not (listed and all(isinstance(x, float) for x in each)):
            return torch.stack([_read_one(kind, classes, one) for one in each])
        wanted = torch.tensor(wanted)
    shape = () if kind == "expression" else (_WIDTHS[kind],)
    batch = wanted[None] if wanted.ndim == len(shape) else wanted
    if batch.shape[1:] != shape or batch.ndim != len(shape) + 1:
        raise InputError(f"a target by {kind} has shape {('B', *shape)}, not {tuple(wanted.shape)}")
    if kind != "expression":
        return batch.float()
    if batch.is_floating_point():
        raise InputError(f"expressions are names or whole numbers, not {batch.tolist()}")
    if len(batch) and not -1 <= int(batch.min()) <= int(batch.max()) < len(classes):
        raise InputError(f"expressions are numbered from 0 to {len(classes) - 1} here, not {batch.tolist()}")
    return batch.long()


def _read_one(
    kind: str, classes: Sequence[str], wanted: str | float | Tensor | Mapping[str, float] | Sequence[float]
) -> Tensor:
    if isinstance(wanted, Mapping):
        unknown = [name for name in wanted if name not in ACTION_UNITS]
        if kind != "action_units" or unknown:
            raise InputError(
                f"no action unit {unknown[0]!r}: use one of {', '.join(ACTION_UNITS)}"
                if unknown
                else f"the network is conditioned on {kind}, it takes no action units"
            )
        return torch.tensor([float(wanted.get(name, 0.0)) for name in ACTION_UNITS])
    if not isinstance(wanted, str | int):
        return read_target(kind, classes, torch.as_tensor(wanted))[0]
    name = canonical_expression(wanted) if isinstance(wanted, str) else dict(enumerate(classes)).get(wanted)
    if kind == "action_units" and name is None and isinstance(wanted, str):
        name = canonical_compound(wanted)
    # Classes are what the network was taught; action units and valence-arousal say any expression.
    if name is None or (kind == "expression" and name not in classes):
        raise InputError(f"no expression {wanted!r} here: use one of {', '.join(classes)}")
    if kind == "expression":
        return torch.tensor(classes.index(name))
    if kind == "valence_arousal":
        return torch.tensor(CIRCUMPLEX[name])
    from synthmtl.faces import anatomy  # the renderer behind it is slow to import

    return torch.from_numpy(anatomy.action_units(anatomy.recipe_vector(anatomy.KINDS.index(name))))


class SourceAdapter(nn.Module):
    """What the source's features add to a UNet, one zero-initialized 1×1 projection per place (Zhang, Rao, Agrawala,
    ICCV 2023; Mou et al., AAAI 2024).

    Features of the synthesis branch lie at 1/2, 1/4, ... of the image's side: stem, gated stages, joint half. Places
    are the UNet's input, and the end of each of its down blocks. Each place gets the features of its own grid, or of
    the nearest; the last place gets all coarser ones too, so that every feature has its way in. At an input of full
    size each cell of the stem is unfolded to 2×2 pixels, since it was folded from them; other grids are resized.

    Args:
        feature_channels: widths of the features, fine to coarse.
        image_size: side of the faces.
        input_size: side of the UNet's input.
        widths: of what is added to the UNet's input, and to each down block's end.
    """

    def __init__(self, feature_channels: Sequence[int], *, image_size: int, input_size: int, widths: Sequence[int]):
        super().__init__()
        grids = [image_size >> (i + 1) for i in range(len(feature_channels))]
        last = len(widths) - 1
        # A down block halves the grid, but for the last one.
        self.sizes = [input_size, *(input_size >> min(i, last - 1) for i in range(1, last + 1))]

        def nearest(size: int) -> int:
            return min(range(len(grids)), key=lambda j: abs(grids[j] - size))

        self.chosen = [[nearest(size)] for size in self.sizes]
        used = max(j for chosen in self.chosen[:-1] for j in chosen)
        self.chosen[-1] = list(range(used + 1, len(grids))) or self.chosen[-1]
        self.unfolded = self.sizes[0] == 2 * grids[0]
        self.projections = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(feature_channels[j], width * (4 if place == 0 and self.unfolded else 1), 1, bias=False)
                for j in chosen
            )
            for place, (chosen, width) in enumerate(zip(self.chosen, widths, strict=True))
        )
        for projection in self.projections.parameters():
            nn.init.zeros_(projection)

    def forward(self, encoded: Encoded, keep: Tensor | None = None) -> list[Tensor]:
        """What is added at each place, (B, width, size, size); zeros in rows that ``keep`` (B,) bool leaves out."""
        features = [*reversed(encoded.skips), encoded.synthesis]
        added = []
        for place, (chosen, projections) in enumerate(zip(self.chosen, self.projections, strict=True)):
            parts = []
            for j, projection in zip(chosen, projections.children(), strict=True):
                projected = projection(features[j])
                if place == 0 and self.unfolded:
                    projected = F.pixel_shuffle(projected, 2)
                if projected.shape[-1] != self.sizes[place]:
                    projected = F.interpolate(projected, size=(self.sizes[place],) * 2, mode="area")
                parts.append(projected)
            total = sum(parts[1:], parts[0])
            added.append(total if keep is None else total * keep.view(-1, 1, 1, 1))
        return added
