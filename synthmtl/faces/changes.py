"""Rendered people who show every expression, found by how alike their landmarks are to a photograph's."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synthmtl.errors import InputError
from synthmtl.faces.dataset import RenderConfig, render_faces
from synthmtl.faces.mapping import RenderedChange, map_expression, shape_distances

_NEAREST = 8
"""A face takes its changes from one of so many that are most alike, so that not all smile the same smile."""

_ALIKE = 0.15
"""Root mean square distance of landmarks, in distances between the eyes, beyond which nobody is alike."""


class RenderedChanges:
    """People, each in two poses and lights, with a neutral face and one of each other expression.

    Args:
        classes: expressions, ``neutral`` among them.
        image_size: of the photographs. Rendered faces are twice as large, up to 256 px, and photographs are enlarged to
            them: lips and lids are thinner than a pixel of a small face.
        channels: 1 or 3, as the photographs have.
        people: how many.
        seed: of everything.

    Attributes:
        expressions: indices into ``classes`` of those that a neutral face can be given.

    Raises:
        InputError: if ``neutral`` is not among the expressions, or nothing else is.
    """

    def __init__(self, classes: Sequence[str], image_size: int, channels: int, *, people: int = 300, seed: int = 0):
        if "neutral" not in classes or len(classes) < 2:
            raise InputError(f"mapping needs neutral faces and another expression, not {', '.join(classes)}")
        self.image_size = image_size
        self.expressions = [k for k, name in enumerate(classes) if name != "neutral"]
        table = render_faces(
            RenderConfig(
                counts=dict.fromkeys(classes, 2 * people),
                subjects=people,
                image_size=min(256, max(32, 2 * image_size)),
                channels=channels,
                intensity_range=(0.9, 1.35),  # who looks at a photograph is to see what it shows
                co_occurrence=0.3,
                noise=0.0,  # a ratio of two noises would be more noise
                seed=seed,
            )
        ).with_classes(classes)
        # Faces are dealt evenly: every session has one of each expression.
        keys = torch.stack([table.subject, table.session, table.expression], 1)
        order = np.lexsort(keys.T.flip(0).numpy())
        self._images = table.images
        self._places = table.landmarks.double().numpy()
        self._rows = order.reshape(-1, len(classes))
        self._neutral = list(classes).index("neutral")

    def nearest(self, places: np.ndarray, rng: np.random.Generator) -> int | None:
        """Number of a session with a neutral face whose landmarks are like (68, 2) ``places``; None if none is."""
        distances = shape_distances(places, self._places[self._rows[:, self._neutral]])
        eyes = np.linalg.norm(places[36:42].mean(0) - places[42:48].mean(0))
        alike = np.argsort(distances)[:_NEAREST]
        alike = alike[distances[alike] < _ALIKE * eyes]
        return int(rng.choice(alike)) if len(alike) else None

    def apply(self, face: Tensor, places: np.ndarray, rng: np.random.Generator) -> Tensor | None:
        """A neutral photograph with every other expression.

        Args:
            face: (C, S, S) uint8.
            places: (68, 2) its landmarks in [0, 1] of the picture.
            rng: chooses among the people who are alike.

        Returns:
            (K - 1, C, S, S) uint8 in the order of ``expressions``, or None if no rendered face is like this one.
        """
        session = self.nearest(places, rng)
        if session is None:
            return None
        rows = self._rows[session]
        size = self._images.shape[-1]
        large = F.interpolate(face[None].float(), size=(size, size), mode="bicubic", align_corners=False)[0]
        made = []
        for k in self.expressions:
            before, after = rows[self._neutral], rows[k]
            change = RenderedChange(
                self._images[before].float(), self._images[after].float(), self._places[before], self._places[after]
            )
            made.append(map_expression(large.clamp(0, 255), places, change)[0])
        # Cubic on the way up and down: pixels that nothing moves come back nearly as they were, and as sharp.
        small = F.interpolate(
            torch.stack(made), size=face.shape[1:], mode="bicubic", antialias=True, align_corners=False
        )
        return small.round().clamp(0, 255).to(torch.uint8)
