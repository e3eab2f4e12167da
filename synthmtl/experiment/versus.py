"""Two finished runs on the same faces, with a generator of another kind each, side by side."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from synthmtl.data import FaceTable
from synthmtl.errors import InputError
from synthmtl.experiment.cells import cell_predictions
from synthmtl.experiment.config import FaceOptions
from synthmtl.experiment.stages import Job
from synthmtl.experiment.workspace import DATA, OPTIONS, describe_data
from synthmtl.metrics import compare_paired, minority_classes

FED_BACK = ("gated_balanced", "diluted", "gated")
"""Methods that are compared between runs: they start from the jointly trained network."""


def open_rival(job: Job, other: Path) -> Job:
    """The finished run in ``other`` as a job on the faces of ``job``.

    Raises:
        InputError: as :func:`check_rival`.
    """
    check_rival(job.config.faces, other, None if job.render is not None else job.splits.tables())
    return dataclasses.replace(job, out=other, notes=[])


def check_rival(faces: FaceOptions, other: Path, tables: Mapping[str, FaceTable] | None = None) -> None:
    """Stop at a folder that a run on these faces cannot be compared with.

    Args:
        faces: the run's options.
        other: the folder.
        tables: the faces by split, once they have been read: those in a folder may have changed between the runs. None
            for rendered ones, which the options decide.

    Raises:
        InputError: if it is no finished run, or one on other faces; naming the split if the options are the same.
    """
    data = {}
    try:
        options = json.loads((other / OPTIONS).read_text(encoding="utf-8"))
        json.loads((other / "report.json").read_text(encoding="utf-8"))
        if (other / DATA).is_file():  # early versions did not write it down
            data = json.loads((other / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{other}: is no finished run: finish it first, or give another --against") from None
    if options.get("faces") != json.loads(json.dumps(dataclasses.asdict(faces))):
        raise InputError(f"{other}: is a run on other faces: runs to be compared need the same --faces options")
    for name, ours in describe_data(tables if tables and data else {}).items():
        theirs = data.get(name, ours)
        if theirs.get("fingerprint") != ours["fingerprint"]:
            raise InputError(
                f"{other}: is a run on other faces: the {name} split has changed since, from {theirs.get('faces', 0)} "
                f"faces to {ours['faces']}, not all the same: restore it, or train one of the runs anew"
            )


def compare_runs(job: Job, rival: Job) -> dict:
    """What either generator's faces are, what they cost, and what they do for recognition.

    Args:
        job, rival: finished runs on the same faces.

    Returns:
        ``runs`` [{generator, joint_seconds, judged_recall, quality}] of ``job`` and ``rival``, the quality card without
        its pairs, and ``comparisons`` [{a, b, method, metric, difference, ci95, ...}] of each method that both have,
        job minus rival, over the seeds that both have.
    """
    test = job.splits.test
    classes, minority = list(test.classes), list(minority_classes(job.train.counts(), test.counts()))
    entries = [_entry(job), _entry(rival)]
    a, b = (entry["generator"] for entry in entries)
    comparisons = []
    for method in FED_BACK:
        seeds = sorted(_seeds(job, method) & _seeds(rival, method))
        if not seeds:
            continue
        ours, theirs = (torch.stack([cell_predictions(one, method, seed) for seed in seeds]) for one in (job, rival))
        for metric in ("macro_f1", "minority_recall") if minority else ("macro_f1",):
            found = compare_paired(
                ours, theirs, test.expression, classes, subject=test.subject, metric=metric, minority=minority
            )
            comparisons.append(found.as_dict(a, b) | {"method": method, "seeds": seeds})
    return {"runs": entries, "comparisons": comparisons}


def _entry(job: Job) -> dict:
    report = json.loads((job.out / "report.json").read_text(encoding="utf-8"))
    generation = report["generation"]
    quality = {key: value for key, value in generation.get("quality", {}).items() if key != "closest_pairs"}
    joint = sorted(job.out.glob("joint/gated-seed*/result.json"))
    seconds = [json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in joint]
    return {
        "generator": generation.get("generator", "none"),
        "folder": job.out.name,
        "joint_seconds": sum(seconds) / len(seconds) if seconds else None,
        "judged_recall": generation.get("judged_recall", {}),
        "quality": quality,
        "methods": {name: scores["macro_f1"] for name, scores in report["methods"].items()},
    }


def _seeds(job: Job, method: str) -> set[int]:
    return {int(file.parent.name.removeprefix("seed")) for file in job.out.glob(f"cells/{method}/seed*/result.json")}


def format_comparison(found: dict) -> str:
    """A table of the two quality cards, and a line each difference in recognition."""
    first, second = found["runs"]
    rows = [["", first["generator"], second["generator"]]]
    rows.append(["minutes of joint training", *(_shown(_minutes(entry)) for entry in (first, second))])
    rows.append(["target seen by the judge", *(_shown(_mean(entry["judged_recall"])) for entry in (first, second))])
    cards = [entry["quality"].get("overall", {}) for entry in (first, second)]
    for name in dict.fromkeys(name for card in cards for name in card):
        rows.append([name, *(_shown(card.get(name, {}).get("value")) for card in cards)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    for entry in found["comparisons"]:
        low, high = entry["ci95"]
        lines.append(
            f"{entry['method']}, {entry['metric']}: {entry['a']} - {entry['b']} {entry['difference']:+.3f} "
            f"[{low:+.3f}, {high:+.3f}], {len(entry['seeds'])} seeds"
        )
    return "\n".join(lines)


def _minutes(entry: dict) -> float | None:
    return None if entry["joint_seconds"] is None else entry["joint_seconds"] / 60


def _mean(values: dict[str, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
