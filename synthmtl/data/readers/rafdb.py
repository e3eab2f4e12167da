"""RAF-DB: basic and compound expressions of aligned faces.

Li, Deng, Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition in the Wild",
CVPR 2017. Layout, of either part or both::

    basic/EmoLabel/list_patition_label.txt        train_00001.jpg 5     (that spelling; codes 1-7)
    basic/Image/aligned/train_00001_aligned.jpg
    compound/EmoLabel/list_patition_label.txt     train_0001.jpg 1      (codes 1-11)
    compound/Image/aligned/train_0001_aligned.jpg

The lists name the original pictures; what is read are the aligned ones, whose names end in ``_aligned``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from synthmtl.data.readers.metadata import Complain
from synthmtl.data.readers.published import (
    Annotation,
    below,
    code,
    code_message,
    complainer,
    data_root,
    face_tables,
    leaves_folder,
    one_row_each,
    relative,
    text_lines,
)
from synthmtl.data.table import FaceTable
from synthmtl.labels import RAFDB_CODES, RAFDB_COMPOUND_CODES

LAYOUT = "give the folder of RAF-DB, with basic/EmoLabel/list_patition_label.txt and basic/Image/aligned/"
_PARTS = {"basic": ("expression", RAFDB_CODES), "compound": ("compound", RAFDB_COMPOUND_CODES)}
_LISTS = ("list_patition_label.txt", "list_partition_label.txt")


def read_rafdb(
    root: str | Path,
    *,
    image_size: int,
    channels: int,
    classes: Sequence[str] | None = None,
    on_bad: str = "error",
) -> dict[str, FaceTable]:
    """RAF-DB's basic set, its compound set, or both; a face carries a label of one kind. Subjects are unknown.

    Args:
        root: RAF-DB's folder, or its ``basic`` or ``compound``.
        image_size, channels, classes, on_bad: as for ``read_image_folder``; bad rows
            are treated as bad images are.

    Returns:
        ``train`` and ``test``.

    Raises:
        InputError: naming file and line of a row with a wrong code or name, or whose picture has a row already; if a
            picture is missing or unreadable; if no faces are found.
    """
    root, complain = data_root(root), complainer(on_bad)
    faces = (
        face
        for part, (folder, file) in _parts(root).items()
        for face in _annotations(root, part, folder, file, complain)
    )
    annotations = one_row_each(faces, complain)
    return face_tables(
        root, annotations, image_size=image_size, channels=channels, classes=classes, on_bad=on_bad, layout=LAYOUT
    )


def is_rafdb(path: Path) -> bool:
    """Whether a folder has RAF-DB's layout."""
    return bool(_parts(path))


def _parts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Folder and list of the parts that are there; a part itself is one."""
    found = {part: (root / part, file) for part in _PARTS if (file := _list(root / part))}
    if not found and (file := _list(root)):
        found = {"compound" if root.name.lower() == "compound" else "basic": (root, file)}
    return found


def _list(folder: Path) -> Path | None:
    return next((folder / "EmoLabel" / name for name in _LISTS if (folder / "EmoLabel" / name).is_file()), None)


def _annotations(root: Path, part: str, folder: Path, file: Path, complain: Complain) -> Iterator[Annotation]:
    label, codes = _PARTS[part]
    for line, text in text_lines(file):
        where, (name, *cells) = f"{file}:{line}", text.split()
        split = name.split("_")[0].lower()
        if (picture := below(name)) is None or "/" in picture:
            complain(leaves_folder(where, name))
        elif split not in ("train", "test"):
            complain(f"{where}: {name!r} begins with neither train_ nor test_: correct the row")
        elif len(cells) != 1 or (value := code(cells[0])) is None or value not in codes:
            complain(code_message(where, label, " ".join(cells), codes))
        else:
            path = PurePosixPath(relative(root, folder / "Image" / "aligned" / name))
            path = path.with_stem(path.stem.removesuffix("_aligned") + "_aligned")
            face = Annotation(path.as_posix(), where, split)
            setattr(face, label, codes[value])
            yield face
