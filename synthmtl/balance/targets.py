"""What a generator is told when a face of some class is wanted: the class, or action units or affect that show it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from synthmtl.balance.chunks import tensor_hash
from synthmtl.data.randomness import derive_seed
from synthmtl.data.table import FaceTable
from synthmtl.labels import ACTION_UNITS
from synthmtl.models.generators import FaceGenerator, class_targets


class ClassTargets:
    """Targets for a generator, each a function of the wanted class and the face's own seed.

    A generator that is conditioned on expressions is told the class. One that is conditioned on action units, or on
    valence and arousal, is told those of two training faces of the class, mixed by a share drawn from [0, 1): SMOTE
    (Chawla et al., 2002) on the labels, where mixtures of two faces of a class are faces of that class, which they are
    not in pixels. A value that one of the two lacks is the other's. A class without any labelled face gets what
    ``conditions.read_target`` takes its expression for.

    Args:
        generator: the trained network.
        table: the training faces, of the generator's classes.
        supplied: how many of them have these labels from a network, which provenance then states.
    """

    def __init__(self, generator: FaceGenerator, table: FaceTable, *, supplied: int = 0):
        self._generator = generator
        self.condition, self.supplied = generator.config.condition, supplied
        self.examples: dict[int, Tensor] = {}
        if self.condition != "expression":
            values = getattr(table, self.condition)
            labelled = ~values.isnan().all(1) & ~table.synthetic
            for index in range(len(table.classes)):
                self.examples[index] = values[labelled & (table.expression == index)]

    def draw(self, expression: Tensor, seeds: Sequence[int]) -> Tensor:
        """Targets (B,), (B, 22) or (B, 2) for wanted classes (B,) int64, on the CPU."""
        if self.condition == "expression":
            return expression
        rows = class_targets(self._generator, expression).cpu()
        for i, (index, seed) in enumerate(zip(expression.tolist(), seeds, strict=True)):
            examples = self.examples[index]
            if not len(examples):
                continue
            draws = torch.rand(3, generator=torch.Generator().manual_seed(derive_seed("target", seed)))
            first, second = (examples[min(int(u * len(examples)), len(examples) - 1)] for u in draws[:2])
            mixed = torch.lerp(first, second, draws[2])
            rows[i] = torch.where(first.isnan(), second, torch.where(second.isnan(), first, mixed))
        return rows

    def identity(self) -> dict:
        """What targets depend on beside the plan: ``kind``, hash of the ``labels``, ``supplied``; {} of classes."""
        if self.condition == "expression":
            return {}
        return {"kind": self.condition, "labels": tensor_hash(*self.examples.values()), "supplied": self.supplied}

    def columns(self, expression: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
        """What :meth:`draw` gives as attributes of the synthesized faces, ``target_AU12`` and so on; none of classes.

        They say what was asked for, not what the face shows, and so are no labels.
        """
        if self.condition == "expression":
            return {}
        names = ACTION_UNITS if self.condition == "action_units" else ("valence", "arousal")
        return {f"target_{name}": column for name, column in zip(names, self.draw(expression, seeds).T, strict=True)}
