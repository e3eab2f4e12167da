"""Functions in C++ for PyTorch, built where they are used for the first time and kept for later."""

import hashlib
import logging
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

FLAGS = ["-O3", "-march=native", "-fopenmp", "-std=c++20", "-shared", "-fPIC", "-Wno-psabi"]
if platform.machine() == "x86_64":
    FLAGS.append("-mprefer-vector-width=512")  # GCC halves vectors for processors it does not know

HEADERS = Path(__file__).parent  # which sources may include

logger = logging.getLogger(__name__)


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def _processor() -> str:
    """What decides which instructions there are: a home folder may be shared by different machines."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _folder() -> Path:
    """That in which PyTorch keeps extensions, too."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or f"{caches}/torch_extensions").expanduser() / "synthmtl"


def _build(source: Path, library: Path) -> None:
    root = Path(torch.__file__).parent
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder, library.name)
        paths = [f"-I{HEADERS}", f"-I{root / 'include'}", f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
        command = [*_compiler(), *FLAGS, abi, str(source), "-o", str(built), *paths]
        subprocess.run(command, check=True, capture_output=True, text=True)
        built.replace(library)  # at once: others build the same, or load it


@cache
def load_functions(source: Path) -> bool:
    """Whether the functions that ``source`` registers are there: in ``torch.ops``, after a build of some 15 seconds.

    They are not on other systems than Linux, and without a compiler (``CXX``, else ``c++``); the latter is logged.
    """
    if sys.platform != "linux":
        return False
    try:
        version = [torch.__version__, *_compiler(), *FLAGS, _processor()]
        code = [path.read_text() for path in (source, *sorted(HEADERS.glob("*.h")))]
        key = hashlib.sha256("\0".join(code + version).encode()).hexdigest()[:16]
        library = _folder() / f"{source.stem}-{key}.so"
        if not library.exists():
            _build(source, library)
        torch.ops.load_library(library)
    except (OSError, subprocess.CalledProcessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[0])  # compilers say first where they are
        logger.warning("%s was not built, computing without it: %s", source.name, reason)
        return False
    return True
