"""What the columns and cells of metadata mean, however they are spelled.

The known columns are found in any case and with blanks around their names. Expressions may also stand in ``labels``,
``emotion`` or ``emotions``, and the split in ``Usage``, as in FER2013's csv, if every value there names one.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from synthmtl.data.readers.split_names import canonical_split
from synthmtl.errors import InputError

LABEL_KEYS = ("expression", "label")
OTHER_LABEL_KEYS = ("labels", "emotion", "emotions")
"""Where expressions stand in data without any of ``LABEL_KEYS``: the first of these, the others are no labels."""

VOTE_PREFIX = "ferplus_"
NAMED_KEYS = (
    "file_name", "split", *LABEL_KEYS, "compound", "subject", "session", "domain", "valence", "arousal",
    "landmarks", "synthetic", "weight", "expression_distribution",
)  # fmt: skip
"""Keys with a meaning of their own, which never become attributes."""

SOURCE_KEY = "source_file"
"""Which photograph a synthesized face was edited from, and of a photograph in a balanced set which one it is."""

MISSING = frozenset(("", "nan", "-nan", "null", "none", "na", "n/a", "n.a.", "#n/a", "#na", "<na>"))
"""What a cell says in whose place there is no value, in lower case; R writes ``NA``, spreadsheets ``#N/A``."""

_KNOWN = {*NAMED_KEYS, SOURCE_KEY}
_SPLIT_KEY = "usage"
_NEAR = {
    "subject": ("if it says who is shown", (
        "subjects", "subjectid", "subj", "person", "persons", "personid", "people", "identity", "identityid",
        "participant", "participantid", "actor", "actorid", "userid", "speaker", "speakerid", "celebrity",
    )),
    "split": ("if it says train, validation or test", (
        "splits", "usage", "set", "subset", "partition", "fold", "phase",
    )),
    "expression": ("if it names the expression", (
        "expressions", "facialexpression", "class", "classname", "classlabel", "category", "target", "sentiment",
        "feeling", "labelname",
    )),
}  # fmt: skip
"""By known column: when a column that is called similarly would be meant, and such names without ``_``, ``-`` and
blanks."""


def cell(value: Any) -> Any:
    """What a cell holds, text without the blanks around it; None for a missing value (see :data:`MISSING`, or NaN)."""
    if isinstance(value, str):
        value = value.strip()
        return None if value.lower() in MISSING else value
    return None if isinstance(value, float) and math.isnan(value) else value


def plain_key(key: str) -> str:
    """A column's name without case and the blanks around it."""
    return key.strip().lower()


def known_key(key: str) -> str | None:
    """The known column that a name means; None for any other column."""
    plain = plain_key(key)
    return plain if plain in _KNOWN or plain.startswith(VOTE_PREFIX) else None


def meanings(rows: Sequence[Mapping[str, Any]], *, usage: bool = True) -> dict[str, str]:
    """The columns of a table that mean a known one but are spelled differently, with what each of them means.

    Args:
        rows: values by column; rows may lack some.
        usage: whether ``Usage`` may tell the split.
    """
    keys = {key: plain_key(key) for key in dict.fromkeys(chain.from_iterable(rows))}
    found = {key: known for key in keys if (known := known_key(key)) is not None}
    if not {*LABEL_KEYS} & {*found.values()}:
        name = next((name for name in OTHER_LABEL_KEYS if name in keys.values()), None)
        found |= {key: LABEL_KEYS[0] for key, plain in keys.items() if plain == name}
    if usage and "split" not in found.values():
        used = [key for key, plain in keys.items() if plain == _SPLIT_KEY]
        found |= {key: "split" for key in used if _tells_split([cell(row.get(key)) for row in rows])}
    return {key: known for key, known in found.items() if key != known}


def _tells_split(values: Iterable[Any]) -> bool:
    given = {str(value) for value in values if value is not None}
    return bool(given) and all(map(canonical_split, given))


def refuse_repeats(keys: Iterable[str], names: Mapping[str, str], where: str) -> None:
    """Stop at two columns that mean the same known one, of which either could be right.

    Args:
        keys: names of the columns.
        names: what is meant by those that are spelled differently, as :func:`meanings` gives it.
        where: file and line, for the message.

    Raises:
        InputError: naming both columns.
    """
    spelled: dict[str, str] = {}
    for key in keys:
        known = names.get(key) or known_key(key)
        if known in spelled:
            raise InputError(f"{where}: two columns mean {known}, {spelled[known]!r} and {key!r}: keep one of them")
        if known is not None:
            spelled[known] = key


def near_misses(keys: Iterable[str], where: str, *, told: Collection[str]) -> list[str]:
    """Messages about columns that are called nearly as a known one that the data lack, and so are not read as it.

    Args:
        keys: names of all columns.
        where: the data set, for the messages.
        told: known columns that nobody misses, as folders say the same.
    """
    plain = {key: re.sub(r"[-_ ]", "", plain_key(key)) for key in sorted(keys)}
    known = {*map(known_key, plain), *told}
    known |= {LABEL_KEYS[0]} if known & {*LABEL_KEYS} else set()
    return [
        f"{where}: the column {key!r} is not read as {name}: call it {name!r} {condition}"
        for name, (condition, near) in _NEAR.items()
        if name not in known
        for key in plain
        if plain[key] in near
    ]
