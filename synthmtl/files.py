"""Files that appear whole or not at all, whatever ends the process or fills the disk."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def replacing(path: str | Path, *, tag: str = "", flush: bool = True) -> Iterator[Path]:
    """A hidden sibling to write to, which takes the file's name when the block ends without an error.

        with replacing(path) as partial:
            image.save(partial, "PNG")

    A process that is killed leaves the old file, or none, and at most the sibling; an error removes that, too.

    Args:
        path: the file.
        tag: of this process, where several may write the same file at once.
        flush: wait until the bytes are on the disk, so that a power failure leaves no empty file either; it takes
            milliseconds, so many small files are better followed by one ``os.sync``.

    Raises:
        OSError: whatever the block raises; it names the file, also where a library says it in other ways.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}{tag}.part")
    try:
        with plain_errors(path, partial):
            yield partial
            if flush:
                flush_file(partial)
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def plain_errors(path: str | Path, partial: str | Path | None = None) -> Iterator[None]:
    """Within it what the system refuses is an ``OSError`` that names ``path``, also where a library words it anew.

    Args:
        path: what is written.
        partial: the file that stands for it while it is written.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    except OSError as error:
        if error.filename in (None, partial, str(partial)):
            error.filename = str(path)
        raise


def write_text(path: str | Path, text: str, *, tag: str = "") -> None:
    """Write a UTF-8 text file as :func:`replacing` does."""
    with replacing(path, tag=tag) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], *, tag: str = "") -> None:
    """Write tensors as safetensors, as :func:`replacing` does."""
    # safetensors stores plain memory only; the format of the tensors in use is not changed by it.
    with replacing(path, tag=tag) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def flush_file(path: Path) -> None:
    """Have the system put a written file on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
