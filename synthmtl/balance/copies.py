"""Whether a synthesized face repeats a training face: the search for the one it comes nearest to."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_SIDE = 8
_BLOCK = 8192  # training faces compared at once: memory stays small, however many there are
_PART = 1024
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
        correlation = _correlation(torch.cat([faces, turned]), self.images[alike], alike).view(2, -1).amax(0)
        return mean_difference(faces, self.images[near]), correlation

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
