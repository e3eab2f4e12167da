"""Which split a name means: of a folder, of a value in metadata, or somewhere in the name of a file."""

import re
from pathlib import Path, PurePath

_SPLIT_ALIASES = {
    "train": ("train", "training", "trn", "train_set", "training_set"),
    "validation": ("validation", "val", "valid", "dev", "publictest", "public_test", "val_set", "validation_set"),
    "test": ("test", "testing", "tst", "privatetest", "private_test", "test_set"),
}
SPLIT_ALIASES = {alias: name for name, aliases in _SPLIT_ALIASES.items() for alias in aliases}
"""Spelling of a split (lower case, ``_`` for spaces and hyphens) → train, validation or test."""

_JOINED = {alias.replace("_", ""): name for alias, name in SPLIT_ALIASES.items()}
_LONGEST_FIRST = "|".join(alias.replace("_", "[-._ ]?") for alias in sorted(SPLIT_ALIASES, key=len, reverse=True))
_WORD = re.compile(rf"(?<![^\W\d_])(?:{_LONGEST_FIRST})(?![^\W\d_])")


def canonical_split(name: str) -> str | None:
    """The split that ``name`` means, or None."""
    return SPLIT_ALIASES.get(plain_name(name))


def plain_name(name: str) -> str:
    """A name without what people spell differently: lower case, ``_`` for spaces and hyphens."""
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")


def splits_in(stem: str) -> dict[str, str]:
    """The words of a file's name that mean a split, with the split of each.

    A word counts wherever it stands, as for ``datasets``, as long as no letter touches it: ``fer_train``, ``train0``
    and ``faces-train-00000-of-00001``, but not ``restrained``.
    """
    words = [re.sub(r"[-._ ]", "_", word) for word in _WORD.findall(stem.lower())]
    return {word: _JOINED[word.replace("_", "")] for word in words}


def splits_told(file: PurePath) -> dict[str, str]:
    """The words of a file's name (see :func:`splits_in`), and the folder it is in, that mean a split.

    Args:
        file: within its data set, whose own name tells nothing.
    """
    folder = canonical_split(file.parent.name)
    return ({file.parent.name: folder} if folder else {}) | splits_in(file.stem)


def folders_of_parts(root: Path) -> list[Path]:
    """Where files of a data set may lie: in its folder, in ``data`` or ``default`` there, or by split in any of them.

    ``default`` is what the Hugging Face hub calls the only configuration of a data set that it has converted.
    """
    bases = [root, root / "data", root / "default"]
    return bases + [part for base in bases for part in sorted(base.glob("*/")) if canonical_split(part.name)]
