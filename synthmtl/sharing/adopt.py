"""A gate that can remove, ours: the receiver's next stage starts from the donor's features."""

from typing import Literal

from torch import Tensor

from synthmtl.sharing.gates import GatedPair, Gates, PairwiseSharing, mix


class AdoptPair(GatedPair):
    """One direction, from a donor y to a receiver x, which continues with what the gate lets through of the donor.

        x' = (1 - z) . x + z . (r . y)

    Both gates start open (biases of 2): the receiver starts from the donor as fine-tuning does, and r, which reads the
    donor only by default, can take out of it what the receiver's task does not need.

    Parameters: r C² k² + C (2 C² k² + C if it reads both), z 2 C² k² + C.

    Args:
        channels: C.
        kernel_size, gating, pass_reads, pass_bias, take_bias: of :class:`Gates`.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: Literal[1, 3] = 1,
        gating: Literal["element", "channel"] = "element",
        pass_reads: Literal["both", "donor"] = "donor",
        pass_bias: float = 2.0,
        take_bias: float = 2.0,
    ):
        super().__init__(
            Gates(channels, kernel_size, pass_bias=pass_bias, take_bias=take_bias, gating=gating, pass_reads=pass_reads)
        )

    def exchange(self, receiver: Tensor, donor: Tensor, passed: Tensor, taken: Tensor) -> Tensor:
        message = passed * donor
        return mix(receiver, message, taken)


class AdoptSharing(PairwiseSharing):
    """An :class:`AdoptPair` from every other task to each of the receivers.

    By default only the first task receives (recognition in our systems): two tasks that adopt each other's features
    would merely trade places.
    Parameters: receivers · (tasks - 1) times those of a pair.
    """

    pair = AdoptPair

    def __init__(
        self,
        channels: int,
        tasks: int = 2,
        *,
        receivers: list[int] | None = (0,),  # type: ignore[assignment]
        **options,
    ):
        super().__init__(channels, tasks, receivers=receivers, **options)
