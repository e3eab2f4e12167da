"""Random numbers that depend on (seed, step, name) only: not on history, and not on the number of processes."""

import hashlib

import torch
from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts; the same in every run and on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class StepRandom:
    """The random numbers of one step.

    Numbers are drawn for the global batch on the CPU and each process takes its own rows (rank r of W: rows r, r + W,
    ...), so that W processes draw what one would, and a resumed run draws what the interrupted one would have.

    Args:
        seed, step: what the numbers depend on, together with the name of each draw.
        rank, world: this process and how many there are.
        device: where the numbers are put.
    """

    def __init__(
        self, seed: int, step: int, *, rank: int = 0, world: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.seed, self.step, self.rank, self.world, self.device = seed, step, rank, world, device

    def to(self, device: torch.device | str) -> "StepRandom":
        """The same numbers, put on ``device``."""
        return StepRandom(self.seed, self.step, rank=self.rank, world=self.world, device=device)

    def generator(self, name: str) -> torch.Generator:
        """The CPU generator of the draw called ``name``, at its start."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, name))

    def _local(self, numbers: Tensor) -> Tensor:
        return numbers[self.rank :: self.world].to(self.device)

    def positions(self, count: int) -> Tensor:
        """Places of this process's ``count`` rows in the global batch, (count,) int64, on the CPU."""
        return torch.arange(count) * self.world + self.rank

    def uniform(self, name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform in [low, high); ``shape[0]`` is this process's number of rows."""
        size = (shape[0] * self.world, *shape[1:])
        return self._local(torch.rand(size, generator=self.generator(name)) * (high - low) + low)

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal; ``shape[0]`` is this process's number of rows."""
        return self._local(torch.randn((shape[0] * self.world, *shape[1:]), generator=self.generator(name)))

    def integers(self, name: str, low: int, high: int, *shape: int) -> Tensor:
        """Integers in [low, high); ``shape[0]`` is this process's number of rows."""
        size = (shape[0] * self.world, *shape[1:])
        return self._local(torch.randint(low, high, size, generator=self.generator(name)))

    def shared_integers(self, name: str, high: int, count: int) -> Tensor:
        """``count`` integers in [0, high), the same in every process."""
        return torch.randint(high, (count,), generator=self.generator(name))
