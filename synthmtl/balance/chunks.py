"""Finished pieces of a balancing set on disk: each written whole or not at all, so that work survives a kill."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.files import write_tensors, write_text

logger = logging.getLogger("synthmtl")


def weights_hash(model: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of a network's weights: names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def tensor_hash(*tensors: Tensor) -> str:
    """First 16 hex digits of the SHA-256 of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content.data)  # no copy of the faces
    return digest.hexdigest()[:16]


@dataclass
class Chunk:
    """What came of one batch of n wanted faces.

    Attributes:
        images: (n, C, H, W) uint8, of each wanted face the kept candidate, or else the best rejected one.
        reason: (n,) int64, -1 = kept, otherwise why that candidate was rejected, an index into ``filter.REASONS``.
        agreement: (n,) float32, the judge's probability of the target.
        source: (n,) int64, row of the edited face, -1 = none.
        seed: (n,) int64, seed of the style.
        attempt: (n,) int64, which attempt it was, from 0.
        rejected: (K, R) int64, candidates rejected per target class and reason.
    """

    images: Tensor
    reason: Tensor
    agreement: Tensor
    source: Tensor
    seed: Tensor
    attempt: Tensor
    rejected: Tensor


class ChunkStore:
    """Chunks of one job in ``directory``/``chunks``, by number; several processes may share the directory.

    Args:
        directory: made if missing.
        identity: what the result depends on, {part: value}; kept beside the chunks.
        rank: number of this process, so that two never write the same temporary file.

    Raises:
        InputError: if the directory holds chunks of another identity.
    """

    def __init__(self, directory: str | Path, identity: Mapping[str, object], *, rank: int = 0):
        self.folder = Path(directory) / "chunks"
        self.tag = f".{rank}"
        identity = json.loads(json.dumps(identity))
        file = self.folder / "identity.json"
        if file.exists():
            self._check(file, identity)
        elif self.folder.is_dir() and any(self.folder.glob("*.safetensors")):
            raise InputError(
                f"{file}: missing beside finished chunks: delete {self.folder} or choose another directory"
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(identity, indent=2) + "\n", tag=self.tag)

    @staticmethod
    def _check(file: Path, identity: Mapping[str, object]) -> None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{file}: cannot be read: delete its folder or choose another directory") from None
        if found != identity:
            keys = sorted(k for k in {*found, *identity} if found.get(k) != identity.get(k))
            raise InputError(
                f"{file}: begun with another {', '.join(keys)}: choose another directory, or delete this folder"
            )

    def path(self, number: int) -> Path:
        """File of a chunk."""
        return self.folder / f"{number:05d}.safetensors"

    def has(self, number: int) -> bool:
        """Whether the chunk is finished."""
        return self.path(number).exists()

    def save(self, number: int, chunk: Chunk) -> None:
        """Write a chunk, whole or not at all."""
        write_tensors(self.path(number), vars(chunk), tag=self.tag)

    def load(self, number: int) -> Chunk | None:
        """A finished chunk; None if it is missing or damaged, e.g. by a power failure."""
        if not self.has(number):
            return None
        try:
            return Chunk(**load_file(self.path(number)))
        except (SafetensorError, OSError, TypeError):
            logger.warning("%s: damaged, made again", self.path(number))
            return None
