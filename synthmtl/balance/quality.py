"""The quality card of a synthesized set: are its faces real-looking, diverse, correctly labelled, and no copies?

Every number is ``{"value": ...}`` with what is needed to read it, or ``{"absent": reason}``. No number stands in for
another: without its weights or with too few faces it is absent, and the rest goes on.
"""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from synthmtl.balance.accuracy_score import classification_accuracy_score
from synthmtl.balance.chunks import weights_hash
from synthmtl.balance.quality_numbers import (
    Measure,
    agreement_measure,
    authenticity_measure,
    copies_measure,
    feature_measures,
    lpips_measure,
    subject_measure,
    unavailable,
)
from synthmtl.balance.sheet import draw_sheet
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.metrics.features import (
    EXTRACTORS,
    BrokenFeaturesError,
    MissingWeightsError,
    extract_features,
    feature_extractor,
)
from synthmtl.metrics.memorisation import (
    COPIES,
    Copies,
    FeatureNeighbors,
    feature_neighbors,
    find_copies,
    hash_neighbors,
)

log = logging.getLogger("synthmtl")

NUMBERS = (
    "fid", "kid", "precision", "recall", "density", "coverage", "diversity", "lpips_diversity", "label_agreement",
    "subject_kept", "authenticity", "copies",
)  # fmt: skip
"""What a card says overall and of each expression, in this order."""

IN_FEATURES = ("fid", "kid", "precision", "recall", "density", "coverage", "diversity", "subject_kept", "authenticity")
"""Those that depend on the feature extractor, whose name goes with each."""


def quality_card(
    real: FaceTable,
    synthetic: FaceTable,
    *,
    extractor: nn.Module | str = "efficientnet-lite0",
    judge: nn.Module | None = None,
    test: FaceTable | None = None,
    source_row: Tensor | None = None,
    filtered_by: str | None = None,
    train_steps: int = 0,
    pairs: int = 12,
    seed: int = 0,
    notes: Sequence[str] = (),
    accelerator: Accelerator | None = None,
    device: torch.device | str = "cpu",
) -> dict:
    """What can be said of a synthesized set beside the real one that its generator learned from.

    Args:
        real, synthetic: N and M faces over the same classes, of one size and color.
        extractor: faces in [-1, 1] → (B, D), or a name for :func:`~synthmtl.metrics.features.feature_extractor`.
        judge: recognizer of another seed and architecture than what taught the generator or chose the faces.
        test: real faces that the judge did not learn from, to know how often it is right and to score trainings on.
        source_row: (M,) int64, the real face that each synthesized one was edited from, -1 = unknown.
        filtered_by: hash of the weights of the judge that chose the faces, for a warning.
        train_steps: of each training of the classification accuracy score; 0 leaves it out.
        pairs: how many of the closest pairs are named.
        seed: of everything random.
        notes: taken over into the card.
        accelerator: of the trainings; None builds one.
        device: where networks run.

    Returns:
        JSON types: ``real`` and ``synthetic`` {faces, counts}, ``image_size``, ``channels``, ``extractor``, ``judge``,
        ``seed``, ``notes``, ``overall`` and ``per_expression`` {expression: ...} with :data:`NUMBERS`,
        ``classification_accuracy_score``, and ``closest_pairs`` by row and file, for :func:`draw_pairs`.

    Raises:
        InputError: if the sets differ in classes, size or color, one is empty, or the extractor's name is unknown.
    """
    if real.classes != synthetic.classes or real.images.shape[1:] != synthetic.images.shape[1:]:
        raise InputError("the sets differ in classes, size or color: read them alike (balance.scored.read_scored_sets)")
    if not len(real) or not len(synthetic):
        raise InputError("a set without faces cannot be scored: give both")
    test = None if test is None else test.with_classes(real.classes)
    sets = {"real": real, "synthesized": synthetic}
    measures = dict.fromkeys(NUMBERS, unavailable("not measured"))
    described, neighbors = {}, None
    try:
        network = feature_extractor(extractor) if isinstance(extractor, str) else extractor
        described = _described(network, getattr(network, "name", None))
        log.info("features of %d faces by %s", len(real) + len(synthetic), described["name"])
        features = {kind: extract_features(network, table.images, device=device) for kind, table in sets.items()}
    except (MissingWeightsError, BrokenFeaturesError) as error:
        described["absent"] = str(error)
        measures |= dict.fromkeys(IN_FEATURES, unavailable(str(error)))
    else:
        measures |= feature_measures(sets, features, seed)
        measures["subject_kept"] = subject_measure(sets, features, source_row)
        try:
            neighbors = feature_neighbors(features["real"], features["synthesized"])
            measures["authenticity"] = authenticity_measure(sets, neighbors)
        except InputError as error:
            measures["authenticity"] = unavailable(str(error))
    log.info("looking for copies of %d real faces", len(real))
    copies = find_copies(real.images, synthetic.images)
    measures["copies"] = copies_measure(sets, copies, source_row, seed)
    measures["lpips_diversity"] = lpips_measure(sets, seed, device)
    measures["label_agreement"] = (
        unavailable("no independent recognizer was given to judge the labels")
        if judge is None
        else agreement_measure(sets, judge, test, filtered_by, device)
    )

    def section(k: int | None) -> dict:
        numbers = {name: _number(measures[name], k) for name in NUMBERS}
        for name in IN_FEATURES:
            if "value" in numbers[name]:
                numbers[name]["extractor"] = described["name"]
        return numbers

    card = {
        "real": {"faces": len(real), "counts": real.counts()},
        "synthetic": {"faces": len(synthetic), "counts": synthetic.counts()},
        "image_size": real.image_size,
        "channels": real.channels,
        "extractor": described,
        "judge": {"absent": "none was given"} if judge is None else _described(judge),
        "seed": seed,
        "notes": list(notes),
        "overall": section(None),
        "per_expression": {expression: section(k) for k, expression in enumerate(real.classes)},
    }
    card["classification_accuracy_score"] = _guarded(
        lambda: (
            classification_accuracy_score(
                real, synthetic, test=test, steps=train_steps, seed=seed, accelerator=accelerator
            )
            if train_steps
            else unavailable("it trains three recognizers: ask for it by a number of steps")(None)
        )
    )
    card["closest_pairs"] = _closest(sets, copies, neighbors, pairs)
    return card


def draw_pairs(card: dict, real: FaceTable, synthetic: FaceTable, path: str | Path) -> Path:
    """Draw the closest pairs of a card: each synthesized face beside its nearest real ones.

    Args:
        card: of :func:`quality_card` for these tables.
        path: PNG file.

    Raises:
        InputError: if the card has no pairs.
    """
    if not card["closest_pairs"]:
        raise InputError("the card names no pairs: ask quality_card for some")
    heads = {"by_pixels": "nearest by pixels", "by_hash": "by hash", "by_features": "by features"}
    kinds = [kind for kind in heads if kind in card["closest_pairs"][0]]
    cells = [
        torch.stack([synthetic.images[pair["row"]], *(real.images[pair[kind]["row"]] for kind in kinds)])
        for pair in card["closest_pairs"]
    ]
    wide_enough = max(1, -(-128 // real.image_size))
    return draw_sheet(torch.stack(cells), ["synthesized", *(heads[kind] for kind in kinds)], path, scale=wide_enough)


def format_card(card: dict) -> str:
    """A card as a short table for a terminal, with the reason of everything that is absent below it."""
    sections = {"overall": card["overall"]} | card["per_expression"]
    shown = [name for name in NUMBERS if any("value" in numbers[name] for numbers in sections.values())]
    cells = [["", *shown]]
    for name, numbers in sections.items():
        cells.append([name, *(_shown(numbers[number].get("value")) for number in shown)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    score = card["classification_accuracy_score"]
    for name in ("synthetic", "real", "real_and_synthetic"):
        if name in score:
            lines.append(f"trained on {name.replace('_', ' ')}: macro-F1 {score[name]['macro_f1']:.3f} on real faces")
    copies = card["overall"]["copies"]
    kinds = ", ".join(f"{name} {count}" for name, count in copies["kinds"].items())
    own = f"; {copies['of_own_source']} are of the face that was edited" if "of_own_source" in copies else ""
    among = f"; of real faces {100 * copies['real']['value']:.1f} % copy another" if "real" in copies else ""
    lines.append(f"copies: {kinds} of {copies['faces']}{own}{among}")
    reasons: dict[str, list[str]] = {}
    for section, numbers in sections.items():
        for name, number in numbers.items():
            if "absent" in number:
                reasons.setdefault(number["absent"], []).append(name if section == "overall" else "")
    for reason, names in reasons.items():
        lines.append(f"absent: {', '.join(filter(None, names)) or 'numbers of an expression'}: {reason}")
    return "\n".join([*lines, *(f"note: {note}" for note in card["notes"])])


def _number(measure: Measure, k: int | None) -> dict:
    number = _guarded(lambda: measure(k))
    if "value" in number and not math.isfinite(number["value"]):
        return {"absent": f"the number is {number['value']}: the extractor's or judge's outputs are broken"}
    return number


def _guarded(compute: Callable[[], dict]) -> dict:
    try:
        return dict(compute())
    except InputError as error:
        return {"absent": str(error)}


def _described(network: nn.Module, name: str | None = None) -> dict:
    """Name and weights of a network; the name of one of ours holds the weights too."""
    weights = weights_hash(network)
    name = name or type(network).__name__
    return {"name": name if name in EXTRACTORS else f"{name} {weights}", "weights": weights}


def _closest(sets: dict[str, FaceTable], copies: Copies, neighbors: FeatureNeighbors | None, count: int) -> list[dict]:
    """The pairs most alike: copies first, then by features, else by pixels."""
    real, synthetic = sets["real"], sets["synthesized"]
    order = (-copies.match).double() if neighbors is None else neighbors.closeness
    order = torch.where(copies.flagged, -1 - copies.match.double(), order)
    rows = order.argsort(stable=True)[:count]
    hashed, bits = hash_neighbors(real.images, synthetic.images[rows])
    found = []
    for i, row in enumerate(rows.tolist()):

        def at(other: Tensor) -> dict:
            return {"row": int(other), "file": real.files[int(other)]}

        kind = int(copies.kind[row])
        pair = {
            "row": row,
            "file": synthetic.files[row],
            "by_pixels": at(copies.row[row])
            | {"correlation": float(copies.match[row]), "copy": COPIES[kind] if kind >= 0 else None},
            "by_hash": at(hashed[i]) | {"bits": int(bits[i])},
        }
        if neighbors is not None:
            pair["by_features"] = at(neighbors.row[row]) | {
                "distance": float(neighbors.distance[row]),
                "spacing": float(neighbors.spacing[row]),
            }
        found.append(pair)
    return found


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
