"""What the files and columns of a Hugging Face data set mean: splits, pictures, expressions, further labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthmtl.data.readers.columns import LABEL_KEYS, OTHER_LABEL_KEYS, known_key, plain_key, refuse_repeats
from synthmtl.data.readers.image_folder import ALL
from synthmtl.data.readers.metadata import Record, with_known_keys
from synthmtl.data.readers.split_names import canonical_split, splits_told
from synthmtl.errors import InputError
from synthmtl.labels import canonical_expression


def files_by_split(files: Sequence[Path], root: Path) -> dict[str, list[str]]:
    """Names of Parquet files by split, as their names or the folders they are in tell it (see :func:`splits_told`).

    Args:
        files: below ``root``.
        root: the folder of the data set.

    Returns:
        The files by ``train``, ``validation`` and ``test``, or all as ``rows`` if none tells a split.

    Raises:
        InputError: if one tells two splits (``datasets`` would put its faces in both), or none though others do.
    """
    told = {file: splits_told(file.relative_to(root)) for file in files}
    if not any(told.values()):
        return {"rows": [str(file) for file in files]}
    by_split: dict[str, list[str]] = {}
    for file, words in told.items():
        if len(set(words.values())) > 1:
            raise InputError(f"{file}: its name tells two splits, {' and '.join(words)}: rename it by one of them")
        if not words:
            other = next(file for file in files if told[file]).relative_to(root)
            raise InputError(f"{file}: its name tells no split, but {other} does: put train, validation or test in it")
        by_split.setdefault(next(iter(words.values())), []).append(str(file))
    return by_split


def is_picture(feature: Any) -> bool:
    """Whether a column is one of the pictures of ``datasets``."""
    return type(feature).__name__ == "Image"


def image_column(features: Mapping, options: Mapping[str, str], location: str) -> str:
    """The column of pictures: the one of ``options``, or the only one.

    Raises:
        InputError: if there is none, or several.
    """
    found = [name for name, feature in features.items() if is_picture(feature)]
    # Parquet of other writers holds pictures as plain structs.
    found = found or [name for name, feature in features.items() if isinstance(feature, dict) and "bytes" in feature]
    name = options.get("image") or (found[0] if len(found) == 1 else None)
    if name is None or name not in features:
        what = f"no column {name!r}" if name else f"{len(found)} columns of pictures"
        raise InputError(f"{location}: {what}: name it with ?image=COLUMN; the columns are {', '.join(features)}")
    return name


def label_column(datasets: Any, features: Mapping, options: Mapping[str, str], location: str) -> str | None:
    """The column of expressions: the one of ``options``, the only one of class labels that are, or one so called.

    Raises:
        InputError: if ``options`` name another, or several come into question.
    """
    if name := options.get("label"):
        if name not in features:
            raise InputError(f"{location}: no column {name!r}: the columns are {', '.join(features)}")
        return name
    coded = {n: f.names for n, f in features.items() if isinstance(f, datasets.ClassLabel)}
    found = [name for name, names in coded.items() if all(map(canonical_expression, names))]
    if len(found) != 1:
        keys = {name: plain_key(name) for name in features}
        named = next((key for key in (*LABEL_KEYS, *OTHER_LABEL_KEYS) if key in keys.values()), None)
        found = [name for name in features if keys[name] == named] or found
    if len(found) > 1 or (coded and not found):
        names = "; ".join(f"{name}: {', '.join(values)}" for name, values in coded.items()) or ", ".join(found)
        raise InputError(f"{location}: which column holds the expressions? Name it with ?label=COLUMN ({names})")
    return found[0] if found else None


def row_records(rows: Any, image: str, label: str | None, where: str, *, usage: bool) -> list[Record]:
    """Everything but the pictures, with the names of class labels instead of their numbers, under the known names.

    Args:
        rows: of a part of the data.
        image, label: the columns of pictures and of expressions.
        where: the part, for messages.
        usage: whether a column ``Usage`` may tell the split of a row.

    Raises:
        InputError: if the labels are bare numbers, or two columns mean the same.
    """
    features = rows.features
    names = {name: feature.names for name, feature in features.items() if hasattr(feature, "int2str")}
    texts = ("string", "large_string")
    if label is not None and label not in names and getattr(features[label], "dtype", "") not in texts:
        raise InputError(f"{where}: column {label!r} holds numbers without names: make it a ClassLabel, or text")
    others = [name for name in features if name != image]
    # Another column called label is none; the one that is keeps its name, if it has a known one, for messages.
    unread = {name for name in others if known_key(name) in LABEL_KEYS}
    refuse_repeats([name for name in others if name not in unread], {}, where)
    key = plain_key(label) if label in unread and label is not None else LABEL_KEYS[0]
    columns = rows.select_columns(others) if others else [{}] * len(rows)
    records = []
    for line, row in enumerate(columns, 1):
        values = {k: _named(v, names[k]) if k in names else v for k, v in row.items()}
        expression = {key: values[label] if label is not None else None}
        records.append(Record({k: v for k, v in values.items() if k not in unread} | expression, where, line))
    return with_known_keys(records, usage=usage)


def told_splits(records: Sequence[Record], part: str, *, only: bool) -> list[str]:
    """The split of each row of a part: that of its column ``split``, or the part's own.

    Args:
        records: the rows.
        part: what their part is called.
        only: whether the data have no other part. A lone ``train`` says nothing then: ``datasets`` calls data so that
            have no splits.

    Raises:
        InputError: naming a row with an unknown split, one that contradicts its part, or none where others have one.
    """
    told = [record.get("split") for record in records]
    if only and part in (ALL, "train") and any(name is not None for name in told):
        part = ALL
    cure = "correct the column, or save the data without it"
    splits = []
    for record, name in zip(records, told, strict=True):
        split = part if name is None else canonical_split(name)
        if split is None:
            raise InputError(f"{record.where}: unknown split {name!r}: use train, validation or test: {cure}")
        if part not in (ALL, split):
            raise InputError(f"{record.where}: split {name!r}, but the row is in {part}: {cure}")
        splits.append(split)
    if ALL in splits and len(set(splits)) > 1:
        raise InputError(f"{records[splits.index(ALL)].where}: in no split, though other rows are: {cure}")
    return splits


def _named(code: int | None, names: Sequence[str]) -> str | None:
    return None if code is None or code < 0 else names[code]
