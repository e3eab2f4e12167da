"""What a data set holds and what is wrong with it, found without stopping at the first fault."""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthmtl.data.duplicates import repeats
from synthmtl.data.leaks import leaks
from synthmtl.data.readers.fer2013 import fer2013_rows, fer2013_tables, is_fer2013
from synthmtl.data.readers.formats import FORMATS, frame_options, known_format
from synthmtl.data.readers.image_folder import LAYOUT, build_table, by_split, list_faces, mark_synthetic, wanted_faces
from synthmtl.data.readers.metadata import label_columns
from synthmtl.data.sources import Source, decode_faces
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError

_SHOWN = 10
_LABELS = ("expression_distribution", "action_units", "landmarks", "valence_arousal")


def inspect_data(
    path: str | Path,
    *,
    image_size: int = 48,
    channels: int = 1,
    ferplus: str | Path | None = None,
    format: str | None = None,
    every: int = 1,
    peaks: int = 1,
) -> dict[str, Any]:
    """A report on an image folder, a zip of one, FER2013's csv or a published layout, that JSON can hold.

    Args:
        path: the data set.
        image_size, channels: at which faces are compared for duplicates.
        ferplus: votes beside FER2013's csv.
        format: layout on disk, one of :data:`~synthmtl.data.readers.formats.FORMATS`; None = detected.
        every, peaks: of videos, see :data:`~synthmtl.data.readers.formats.FRAME_OPTIONS`.

    Returns:
        ``path``, ``layout``, ``faces``, ``classes``; by split ``counts`` {expression: faces}, ``missing`` {label:
        faces without it}, ``subjects`` (None = unknown), ``synthetic`` (faces marked as synthesized) and ``repeats``
        {exact, near, mirrored} (see :func:`~synthmtl.data.duplicates.repeats`); ``sizes`` {WxH: files} and ``modes``
        {Pillow mode: files}, both empty for a published layout; ``leaks`` (see :class:`~synthmtl.data.leaks.Leak`);
        ``renamed``; and lists of messages: ``bad_files``, ``problems`` (labels), ``ignored`` (files), ``warnings``
        (what training refuses or leaves out, and columns that are not read as labels though their names come close).

    Raises:
        InputError: if there is nothing to inspect (a path that is missing or holds no faces, a damaged archive, an
            unknown format, ``every`` or ``peaks`` of a layout without); if the votes of ``ferplus`` are wrong; or if
            the reader of a published layout, which can leave faces out, cannot go on: a list without its header, some
            files in no split, two lists for one video, not one picture that can be read, no library for Hugging Face's
            sets.
    """
    path = Path(path)
    layout = known_format(path, format)
    frames = frame_options(path, layout, every=every, peaks=peaks)
    report: dict[str, Any] = {
        "path": str(path),
        "bad_files": [],
        "problems": [],
        "ignored": [],
        "warnings": [],
        "renamed": {},
        "sizes": {},
        "modes": {},
    }
    if layout == "fer2013":
        tables = _inspect_csv(path, image_size, channels, ferplus, report)
    elif layout != "image_folder":
        tables = _inspect_published(path, layout, image_size, channels, report, frames)
    else:
        tables = _inspect_images(path, image_size, channels, report)
    if not tables and not report["problems"] and not report["bad_files"]:
        raise InputError(f"{path}: no faces found: {LAYOUT}")
    classes = next(iter(tables.values())).classes if tables else ()
    return report | {
        "faces": sum(map(len, tables.values())),
        "classes": list(classes),
        "counts": {name: table.counts() for name, table in tables.items()},
        "missing": {name: _missing(table) for name, table in tables.items()},
        "subjects": {name: _people(table) for name, table in tables.items()},
        "synthetic": {name: int(table.synthetic.sum()) for name, table in tables.items()},
        "repeats": {name: repeats(table.images) for name, table in tables.items()},
        "leaks": [leak.to_dict() for leak in leaks(tables)],
        "warnings": report["warnings"] + _warnings(tables),
    }


def _inspect_csv(
    path: Path, image_size: int, channels: int, ferplus: str | Path | None, report: dict
) -> dict[str, FaceTable]:
    if not (path.is_file() and is_fer2013(path)):
        raise InputError(
            f"{path}:1: not FER2013's csv (its header is emotion,pixels,Usage): give that file or a folder"
        )
    report["layout"] = "FER2013 csv"
    rows = list(fer2013_rows(path, report["bad_files"].append))
    report["sizes"], report["modes"] = {"48x48": len(rows)}, {"L": len(rows)}
    if not rows:
        return {}
    return fer2013_tables(rows, path, ferplus=ferplus, image_size=image_size, channels=channels, classes=None)


def _inspect_images(path: Path, image_size: int, channels: int, report: dict) -> dict[str, FaceTable]:
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()

    marked = []

    def see(index, face) -> None:
        if face.synthetic:
            marked.append(index)
        sizes[f"{face.width}x{face.height}"] += 1
        modes[face.mode] += 1

    with Source(path) as source:
        report["layout"] = "image folder" if path.is_dir() else "zip of an image folder"
        listing = list_faces(source, report["problems"].append)
        faces, classes = wanted_faces(listing.faces, None)
        labels = label_columns([face.record for face in faces], classes, report["problems"].append)
        images, shapes, bad = decode_faces(
            source,
            [face.name for face in faces],
            image_size=image_size,
            channels=channels,
            on_bad="skip",
            see=see,
        )
        mark_synthetic(labels, marked, len(faces))
        table = build_table(source, faces, classes, labels, images, shapes)
        report["ignored"] = [source.where(name) for name in listing.ignored]
    report["renamed"], report["warnings"] = listing.renamed, listing.hints
    report["bad_files"] = [*listing.absent, *bad.values()]
    report["sizes"], report["modes"] = dict(sizes.most_common()), dict(modes.most_common())
    return by_split(table, [face.split for face in faces], exclude=set(bad))


def _inspect_published(
    path: Path, layout: str, image_size: int, channels: int, report: dict, frames: Mapping[str, int]
) -> dict[str, FaceTable]:
    """What its reader makes of a published layout, and what it complains of; sizes and modes are not looked at."""

    class Complaints(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problem = {"problems": [record.getMessage().removeprefix("left out: ")]}
            for kind, messages in getattr(record, "findings", problem).items():
                report[kind] += messages

    report["layout"] = layout
    handler = Complaints(logging.WARNING)
    log = logging.getLogger("synthmtl")
    log.addHandler(handler)
    try:
        return FORMATS[layout].read(path, image_size=image_size, channels=channels, on_bad="skip", **frames)
    finally:
        log.removeHandler(handler)


def _missing(table: FaceTable) -> dict[str, int]:
    counts = {name: int((getattr(table, name) < 0).sum()) for name in ("expression", "compound", "subject")}
    for name in _LABELS:
        counts[name] = int(getattr(table, name).flatten(1).isnan().all(1).sum())
    return counts


def _people(table: FaceTable) -> int | None:
    known = table.subject[table.subject >= 0]
    return len(known.unique()) if len(known) else None


def _warnings(tables: Mapping[str, FaceTable]) -> list[str]:
    found = []
    present = {name for table in tables.values() for name, count in table.counts().items() if count}
    if len(present) < 2:
        found.append(f"only {len(present)} expression: training needs at least two")
    for split, table in tables.items():
        for name, count in table.counts().items():
            if split in ("train", "all") and count < 2:
                found.append(f"{split} has {count} images of {name}: training needs at least two")
            elif count == 0:
                found.append(f"{split} has no images of {name}")
        if split in ("validation", "test") and table.synthetic.any():
            found.append(f"{split} has {int(table.synthetic.sum())} synthesized faces, which training leaves out")
    if tables and not {"train", "all"} & tables.keys():
        found.append(f"no train split, only {', '.join(tables)}")
    return found


def format_inspection(report: Mapping[str, Any]) -> str:
    """A report of :func:`inspect_data` as text for a terminal; long lists are cut, and say how long they are."""
    lines = [f"{report['path']}: {report['layout']}, {report['faces']} faces"]
    splits = list(report["counts"])
    if splits:
        body = [[name, *(report["counts"][split][name] for split in splits)] for name in report["classes"]]
        body.append(["(no expression)", *(report["missing"][split]["expression"] for split in splits)])
        people = [report["subjects"][split] for split in splits]
        body.append(["subjects", *("unknown" if count is None else count for count in people)])
        body.append(["synthesized", *(report["synthetic"][split] for split in splits)])
        for title, kind in (("identical", "exact"), ("mirrored", "mirrored"), ("all", "near")):
            body.append([f"repeats, {title}", *(report["repeats"][split][kind] for split in splits)])
        for label in ("subject", "compound", *_LABELS):
            body.append([f"without {label}", *(report["missing"][split][label] for split in splits)])
        lines += ["", *_table(["", *splits], body)]
    for title in ("sizes", "modes"):
        if report[title]:
            lines += ["", f"{title}: {_counted(report[title])}"]
    for leak in report["leaks"]:
        share = 100 * leak["near"] / max(1, leak["faces"])
        lines += [
            f"{leak['split']} in {leak['other']}: {leak['near']} look-alikes ({share:.1f} %; "
            f"{leak['near_other_label']} with another label), {leak['exact']} of them identical "
            f"({leak['exact_other_label']} with another label) and {leak['mirrored']} mirrored; "
            f"{leak['subjects']} subjects in both"
        ]
    if report["renamed"]:
        pairs = ", ".join(f"{spelling} → {meaning}" for spelling, meaning in report["renamed"].items())
        lines += ["", f"names read as: {pairs}"]
    titles = {
        "bad_files": "files that cannot be read",
        "problems": "labels that cannot be right",
        "ignored": "image files in no class folder and no metadata, or of a format that is not read",
        "warnings": "warnings",
    }
    for key, title in titles.items():
        messages = report[key]
        if messages:
            lines += ["", f"{title}: {len(messages)}", *(f"  {message}" for message in messages[:_SHOWN])]
            if len(messages) > _SHOWN:
                lines.append(f"  ... and {len(messages) - _SHOWN} more")
    return "\n".join(lines)


def _table(header: list[str], body: list[list]) -> list[str]:
    rows = [[str(cell) for cell in row] for row in (header, *body)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


def _counted(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_SHOWN]]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {rest} others" if rest else "")
