"""Whether a synthesized face repeats a training face: the search for the one it comes nearest to."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from synthmtl.data.alignment import best_match, reduced
from synthmtl.data.duplicates import tangent_planes, tangent_points, tangent_products
from synthmtl.data.surround import pixels_that_count

_SIDE = 8
_BLOCK = 8192  # training faces compared at once: memory stays small, however many there are
_PART = 1024
_LAID = 128  # faces laid over others at once
_STEPS = 5  # of that search
_SAME_PERSON = 0.9  # match of two faces of whom one is unknown, above which they may show one person in one pose
_FLAT = 1.0  # gray levels of standard deviation below which a correlation measures noise


class TrainingFaces:
    """The faces that nothing synthesized may repeat.

    Args:
        images: (N, C, H, W) uint8.
        subject: (N,) int64, -1 = unknown; None = all unknown.
        device: where faces are compared.
    """

    def __init__(self, images: Tensor, subject: Tensor | None = None, *, device: torch.device | str = "cpu"):
        self.images, self.device = images, device
        subject = torch.full((len(images),), -1) if subject is None else subject
        self.known = subject >= 0
        alone = int(subject.max().clamp(min=-1)) + 1 + torch.arange(len(images))
        self.person = torch.where(subject >= 0, subject, alone)
        self.by_person = self.person.argsort(stable=True)
        size = images.shape[1] * _SIDE**2
        # Of each face its thumbnail, and half of its squared length.
        self.points = torch.empty(len(images), size + 1, device=device)
        for start in range(0, len(images), _PART):
            thumbnails = _thumbnails(images[start : start + _PART].to(device))
            self.points[start : start + _PART, :-1] = thumbnails
            self.points[start : start + _PART, -1] = thumbnails.square().sum(1) / 2
        self.counts = pixels_that_count(images)
        self.frequencies = torch.cat([tangent_points(part, self.counts) for part in images.split(_PART)]).to(device)

    def distance(self, faces: Tensor, sources: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How near B faces come to the training faces.

        Args:
            faces: (B, C, H, W) uint8.
            sources: (B,) int64, the rows of the training faces that they are edits of; None = of none.

        Returns:
            Mean |face − training face| (B,), as a share of the pixel range, from the training face that is nearest
            after averaging to 8 × 8 pixels, which a near-copy's original practically always is. And the correlation
            of pixels (B,) with the face of another person than the source's that correlates most at 8 × 8 pixels,
            mirrored or not; a face of unknown subject is a person of its own, and a flat face correlates with none.
        """
        turned = faces.flip(-1)
        own, mirrored = (_thumbnails(each.to(self.device)) for each in (faces, turned))
        # |a - b|^2 / 2 without |a|^2 / 2, which is the same for all training faces.
        wanted = torch.cat([own, -torch.ones_like(own[:, :1])], 1)
        near = _best(wanted, self.points)
        left_out = None if sources is None else self._same_person(sources.repeat(2))
        alike = _best(_directions(torch.cat([own, mirrored])), self.points, _shapes, left_out)
        correlation = self._in_place(torch.cat([faces, turned]), alike).view(2, -1).amax(0)
        return mean_difference(faces, self.images[near]), correlation

    def match(self, faces: Tensor, sources: Tensor | None = None) -> Tensor:
        """How well B faces lie on training faces, once these are moved, scaled and turned.

        A generator that repeats what it was trained with repeats augmented views of it, which pixels in place do not
        tell. The two training faces that are looked at are those that explain the face's low frequencies best, as it
        is and mirrored (:mod:`~synthmtl.data.duplicates`).

        Args:
            faces, sources: as for :meth:`distance`.

        Returns:
            The higher correlation (B,) of gray pixels (:func:`~synthmtl.data.alignment.best_match`). Faces of the
            source's person do not count. Where it is unknown whom one of them shows, those that lie on the source
            itself do not: an edit keeps person, pose and light, and resembles what its source resembles.
        """
        both, sources = _both_ways(faces), None if sources is None else sources.repeat(2)
        left_out = None if sources is None else self._same_person(sources)
        row = _best(tangent_planes(both, self.counts).to(self.device), self.frequencies, tangent_products, left_out)
        match = torch.full((len(both),), -1.0)
        there = torch.where(row >= 0)[0]
        match[there] = self._laid(row[there], both[there])
        if sources is not None:
            unsure = torch.where((match > _SAME_PERSON) & ~(self.known[row] & self.known[sources]))[0]
            shown = _both_ways(self.images[sources[: len(faces)]])[unsure]
            match[unsure[self._laid(row[unsure], shown) > _SAME_PERSON]] = -1.0
        return match.view(2, -1).amax(0)

    def _laid(self, rows: Tensor, faces: Tensor) -> Tensor:
        """Correlation (P,) of faces (P, C, H, W) with these rows of the training faces, laid over each other."""
        pairs = zip(rows.split(_LAID), faces.split(_LAID), strict=True)
        return torch.cat(
            [best_match(reduced(self.images[i]), reduced(face), steps=_STEPS, counts=self.counts) for i, face in pairs]
        )

    def _in_place(self, faces: Tensor, rows: Tensor) -> Tensor:
        """Correlation (P,) of faces (P, C, H, W) with these rows, by what counts of them; -1 where there is no row."""
        known = self.images[rows]
        if self.counts is not None:
            counts = F.interpolate(self.counts[None, None].float(), size=list(faces.shape[2:]))[0, 0] > 0
            faces, known = faces[..., counts], known[..., counts]
        return _correlation(faces, known, rows)

    def _same_person(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """Places (P,) in ``sources`` and rows (P,) of all training faces of the same person."""
        person, people = self.person[sources], self.person[self.by_person]
        start, end = torch.searchsorted(people, person), torch.searchsorted(people, person, right=True)
        places = torch.repeat_interleave(torch.arange(len(sources)), end - start)
        within = torch.arange(len(places)) - torch.repeat_interleave(
            (end - start).cumsum(0) - (end - start), end - start
        )
        return places, self.by_person[start[places] + within]


def _best(
    wanted: Tensor,
    known: Tensor,
    view: Callable[[Tensor], Tensor] = lambda points: points,
    left_out: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Row (B,), on the CPU, of ``known`` (N, D) whose ``view`` has the largest product with ``wanted``; -1 = none.

    Args:
        left_out: places in ``wanted`` and the rows that do not count for them.
    """
    most = torch.full((len(wanted),), -float("inf"), device=wanted.device)
    best = torch.full((len(wanted),), -1, device=wanted.device)
    for start in range(0, len(known), _BLOCK):
        fit = wanted @ view(known[start : start + _BLOCK]).T
        if left_out is not None:
            here = (left_out[1] >= start) & (left_out[1] < start + _BLOCK)
            places, rows = (part[here].to(wanted.device) for part in left_out)
            fit[places, rows - start] = -float("inf")
        largest, row = fit.max(1)
        best, most = torch.where(largest > most, row + start, best), torch.maximum(largest, most)
    return best.cpu()


def _both_ways(faces: Tensor) -> Tensor:
    """Faces (B, C, H, W) as they are, then mirrored, (2 B, C, H, W)."""
    return torch.cat([faces, faces.flip(-1)])


def mean_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean |a − b| (B,) of faces (B, C, H, W) uint8, as a share of the pixel range."""
    return (a.float() - b.float()).abs().flatten(1).mean(1) / 255


def _thumbnails(faces: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(faces.float() / 255, _SIDE).flatten(1)


def _shapes(points: Tensor) -> Tensor:
    return _directions(points[:, :-1])


def _directions(thumbnails: Tensor) -> Tensor:
    """Thumbnails (N, D) without their mean and of length 1, so that products are correlations; 0 where flat."""
    centered = thumbnails - thumbnails.mean(1, keepdim=True)
    return centered / centered.norm(dim=1, keepdim=True).clamp(min=1e-6)


def _correlation(a: Tensor, b: Tensor, rows: Tensor) -> Tensor:
    """Pearson correlation (B,) of the pixels of pairs; -1 where there is no row, or a face is flat."""
    a, b = (faces.float().flatten(1) for faces in (a, b))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    known = (rows >= 0) & (a.square().mean(1).sqrt() >= _FLAT) & (b.square().mean(1).sqrt() >= _FLAT)
    return torch.where(known, F.cosine_similarity(a, b), -1.0)
