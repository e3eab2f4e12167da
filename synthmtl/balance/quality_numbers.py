"""The numbers of a quality card, each as a function of the expression that it is asked for.

A measure takes the index of an expression, or None for all faces, and gives ``{"value": ...}`` with what is needed to
read it, or raises :class:`InputError` with the reason why there is none.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import scipy  # which reads a part of itself when it is first named
import torch
from torch import Tensor, nn

from synthmtl.balance.calibration import judge_columns
from synthmtl.balance.chunks import weights_hash
from synthmtl.data.pixels import to_unit
from synthmtl.data.randomness import derive_seed
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.losses.perceptual import LpipsDistance, lpips_weights
from synthmtl.metrics.features import fit_faces
from synthmtl.metrics.generation import (
    FID_FACES,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    mean_pair_distance,
    mean_perceptual_distance,
)
from synthmtl.metrics.memorisation import COPIES, Copies, FeatureNeighbors, find_copies
from synthmtl.metrics.subjects import subject_scores
from synthmtl.models.blocks import evaluating

Measure = Callable[[int | None], dict]
Sets = Mapping[str, FaceTable]
"""``real`` and ``synthesized``, over the same classes and of one size."""

_REFERENCE = 500  # real faces that are compared with the rest of them


def unavailable(reason: str) -> Measure:
    """The measure that cannot be had."""

    def measure(k: int | None) -> dict:
        raise InputError(reason)

    return measure


def rows_of(sets: Sets, kind: str, k: int | None) -> Tensor:
    """Rows of expression ``k`` of a set, or all.

    Raises:
        InputError: if there is none.
    """
    table = sets[kind]
    rows = torch.arange(len(table)) if k is None else torch.where(table.expression == k)[0]
    if not len(rows):
        raise InputError(f"no {kind} face" if k is None else f"no {kind} face of {table.classes[k]}")
    return rows


def share(chosen: Tensor) -> dict:
    """Share of True with its 95 % interval (Wilson)."""
    count, total = int(chosen.sum()), len(chosen)
    low, high = scipy.stats.binomtest(count, total).proportion_ci(method="wilson")
    return {"value": count / total, "ci95": [float(low), float(high)], "faces": total}


def feature_measures(sets: Sets, features: Mapping[str, Tensor], seed: int) -> dict[str, Measure]:
    """FID, KID, precision, recall, density, coverage and diversity in features (N, D) and (M, D)."""

    def both(k: int | None) -> list[Tensor]:
        return [features[kind][rows_of(sets, kind, k)] for kind in sets]

    @cache
    def manifold(k: int | None) -> dict:
        return vars(manifold_scores(*both(k)))

    def one(name: str) -> Measure:
        return lambda k: {"value": manifold(k)[name], "k": manifold(k)["k"]}

    def fid(k: int | None) -> dict:
        entry: dict[str, Any] = {"value": frechet_distance(*both(k)), "faces": [len(part) for part in both(k)]}
        if min(entry["faces"]) < FID_FACES:
            entry["warning"] = f"fewer than {FID_FACES} faces: compare only with sets of the same sizes"
        return entry

    return {
        "fid": fid,
        "kid": lambda k: dict(vars(kernel_distance(*both(k), seed=seed))),
        **{name: one(name) for name in ("precision", "recall", "density", "coverage")},
        "diversity": _within_classes(sets, lambda kind, rows: mean_pair_distance(features[kind][rows])),
    }


def lpips_measure(sets: Sets, seed: int, device: torch.device | str) -> Measure:
    """Mean LPIPS of pairs within a class, beside that of the real faces."""
    if not lpips_weights().is_file():
        return unavailable(
            f"LPIPS needs AlexNet's weights {lpips_weights().name} in torch.hub's folder checkpoints; they are not "
            "downloaded by themselves"
        )
    distance = LpipsDistance()
    measure = _within_classes(
        sets,
        lambda kind, rows: mean_perceptual_distance(distance, sets[kind].images[rows], seed=seed, device=device),
    )
    return lambda k: measure(k) | {"extractor": "lpips, AlexNet"}


def _within_classes(sets: Sets, variety: Callable[[str, Tensor], float]) -> Measure:
    """The variety within a class, or its mean over the classes in which both sets have two faces or more."""

    @cache
    def of_class(k: int) -> dict[str, float]:
        value, real = (variety(kind, rows_of(sets, kind, k)) for kind in ("synthesized", "real"))
        return {"value": value, "real": real}

    def measure(k: int | None) -> dict:
        if k is not None:
            return dict(of_class(k))
        found = []
        for name in range(len(sets["real"].classes)):
            try:
                found.append(of_class(name))
            except InputError:
                continue
        if not found:
            raise InputError("no expression has two faces in both sets")
        return {key: sum(entry[key] for entry in found) / len(found) for key in ("value", "real")}

    return measure


def authenticity_measure(sets: Sets, neighbors: FeatureNeighbors) -> Measure:
    """Share of synthesized faces that are farther from their nearest real face than that one from its nearest."""
    return lambda k: share(neighbors.authentic[rows_of(sets, "synthesized", k)])


def copies_measure(sets: Sets, copies: Copies, source_row: Tensor | None, seed: int) -> Measure:
    """Share of synthesized faces that copy a real one, by kind; and the same of real faces among themselves.

    Args:
        copies: of the synthesized faces.
        source_row: (M,) int64, the face that each was edited from, -1 = unknown.
        seed: of the real faces that are compared with the others.
    """
    images = sets["real"].images
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(derive_seed("reference", seed)))
    drawn = drawn[: min(_REFERENCE, len(copies.kind))]
    among_real = find_copies(images, images[drawn], own=drawn).flagged if len(images) > 1 else None

    def measure(k: int | None) -> dict:
        rows = rows_of(sets, "synthesized", k)
        kind = copies.kind[rows]
        entry = share(kind >= 0) | {"kinds": {name: int((kind == i).sum()) for i, name in enumerate(COPIES)}}
        if source_row is not None and bool((source_row >= 0).any()):
            entry["of_own_source"] = int(((copies.row == source_row)[rows] & (kind >= 0)).sum())
        if k is None and among_real is not None:
            entry["real"] = share(among_real)
        return entry

    return measure


def agreement_measure(
    sets: Sets, judge: nn.Module, test: FaceTable | None, filtered_by: str | None, device: torch.device | str
) -> Measure:
    """Share of synthesized faces in which the judge sees what they are meant to show.

    Args:
        judge: its size and color need not be those of the sets.
        test: real faces that tell how often it is right; None = the real set, which it may have learned from.
        filtered_by: hash of the judge that chose the faces.
    """
    try:
        columns = judge_columns(judge, sets["real"].classes)
    except InputError as error:
        return unavailable(str(error))
    references = {"test": test} if test is not None else {"real": sets["real"]}
    tables = {"synthesized": sets["synthesized"]} | references
    right = {name: _seen(judge, table.images, device) == columns[table.expression] for name, table in tables.items()}
    (reference,) = references

    def measure(k: int | None) -> dict:
        rows = rows_of(sets, "synthesized", k)
        rows = rows[sets["synthesized"].expression[rows] >= 0]
        if not len(rows):
            raise InputError("no synthesized face has an expression")
        entry = share(right["synthesized"][rows])
        table = references[reference]
        of_class = (table.expression >= 0) if k is None else table.expression == k
        if bool(of_class.any()):
            entry["reference"] = share(right[reference][of_class]) | {"on": reference}
        if filtered_by is not None and filtered_by == weights_hash(judge):
            entry["warning"] = "this judge chose the faces: its agreement proves nothing, give another one"
        return entry

    return measure


def _seen(judge: nn.Module, images: Tensor, device: torch.device | str) -> Tensor:
    """(N,) int64, the judge's class of each face."""
    config: Any = judge.config
    size, channels = config.image_size, config.image_channels
    with evaluating(judge.to(device)), torch.no_grad():
        parts = [
            judge.recognize(fit_faces(to_unit(part, device), size, channels)).argmax(1).cpu()  # type: ignore[operator]
            for part in images.split(256)
        ]
    return torch.cat(parts)


def subject_measure(sets: Sets, features: Mapping[str, Tensor], source_row: Tensor | None) -> Measure:
    """Share of edited faces whose nearest real face is of the person that was edited.

    Subject numbers of the two sets are not compared, since each set may number its people anew. If no real face has a
    subject, each stands for a person of its own. Features of a network that recognizes expressions tell people apart
    badly: ``real`` says of how many real faces the nearest other one is of the same person.

    Args:
        source_row: (M,) int64, the real face that each was edited from, -1 = unknown.
    """
    people, by = sets["real"].subject, "subject"
    if bool((people < 0).all()):
        people, by = torch.arange(len(people)), "source face"
    source_row = torch.full((len(sets["synthesized"]),), -1) if source_row is None else source_row
    subject = torch.where(source_row >= 0, people[source_row], -1)
    known = torch.where(subject >= 0)[0]
    if not len(known):
        return unavailable("no synthesized face names a source_file that is in the real set, with a subject")
    scores = subject_scores(
        features["real"],
        features["synthesized"][known],
        real_subject=people,
        subject=subject[known],
        source_row=source_row[known],
    )

    rows = torch.where(people >= 0)[0]
    among_real = subject_scores(
        features["real"], features["real"][rows], real_subject=people, subject=people[rows], source_row=rows
    )

    def measure(k: int | None) -> dict:
        here = torch.isin(known, rows_of(sets, "synthesized", k))
        if not bool(here.any()):
            raise InputError("no such face names a source_file that is in the real set, with a subject")
        entry = share(scores.kept[here]) | {"by": by, "chance": float(scores.chance[here].mean())}
        other = here & scores.comparable
        if bool(other.any()):
            entry["without_source"] = share(scores.other[other])
        if bool(among_real.comparable.any()):
            entry["real"] = share(among_real.other[among_real.comparable])
        return entry

    return measure
