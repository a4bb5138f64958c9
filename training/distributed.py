"""Several processes that fit one network together, as torchrun starts them.

Each is a *rank* and computes its part of every batch. What a rank decides by chance for its own
pictures it draws from a generator of its own; what all must agree on, from one that all have alike.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

__all__ = ["ALONE", "LostRankError", "Ranks", "joined", "started_ranks"]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process among those that fit together.

    Attributes:
        rank: Which one this is, from 0.
        count: How many there are.
        local_rank: Which one this is on its machine.
        local_count: How many there are on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def part(self, values: Tensor) -> Tensor:
        """This rank's share of what all ranks have alike; sizes differ by one at most."""
        return torch.tensor_split(values, self.count)[self.rank]

    def share(self, n: int) -> int:
        """How many of `n` are this rank's."""
        return (n + self.count - 1 - self.rank) // self.count

    def weight(self, own: int, n: int) -> float:
        """What this rank's mean over `own` of `n` counts in the mean over all ranks: 1 if alone."""
        return 1.0 if self.count == 1 or n == 0 else self.count * own / n

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order; whoever calls waits for the others."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place has been filled

    def gather_rows(self, rows: Tensor, n: int) -> Tensor:
        """The rows of all ranks below each other.

        Args:
            rows: This rank's, (`share(n)`, K).
            n: How many all ranks have together.
        """
        if self.count == 1:
            return rows
        largest = -(-n // self.count)
        padded = rows.new_zeros(largest, rows.shape[1])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in range(self.count)]
        torch.distributed.all_gather(found, padded)
        sizes = (Ranks(rank, self.count).share(n) for rank in range(self.count))
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    def from_first(self, value: T) -> T:
        """The first rank's value."""
        if self.count == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def seed(self, *of: int) -> int:
        """A seed of this rank's own, made of what all have alike."""
        words = np.random.SeedSequence((*of, self.rank)).generate_state(2)
        return int(words[0]) << 31 | int(words[1]) >> 1

    def mean(
        self, rows: Sequence[Sequence[float]]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """The mean over all ranks of arrays of one shape."""
        mean: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
        mean = np.mean(self.gather(np.asarray(rows, np.float64)), axis=0)
        return mean


ALONE = Ranks()
"""A process by itself."""

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def started_ranks() -> Ranks:
    """What torchrun says of this process; `ALONE` if it has not started it.

    Raises:
        ValueError: If the environment says half of it, as schedulers of clusters do.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    missing = [name for name in _NAMES if not os.environ.get(name, "").isdecimal()]
    if missing:
        raise ValueError(
            f"the environment has WORLD_SIZE={os.environ['WORLD_SIZE']}, but no number in "
            f"{', '.join(missing)}: start several ranks by torchrun, or one with WORLD_SIZE unset"
        )
    return Ranks(*(int(os.environ[name]) for name in _NAMES))


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Have the ranks meet, and part at the end.

    Args:
        ranks: This process among the others.
        device: Where it computes; each rank on a GPU needs one of its own.

    Raises:
        LostRankError: If another rank is lost on the way.
    """
    if ranks.count == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # When torchrun starts the ranks again, its store still knows where the lost ones listened, and
    # a rank that looks before the others have written would wait for those.
    store, rank, count = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"attempt-{attempt}", store),
        rank=rank,
        world_size=count,
    )
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower():
            raise LostRankError from error
        raise
    finally:
        # What averages gradients refers to the group from within cycles. Did it live on until the
        # interpreter ends, the group's threads would be torn down under it, and abort the process.
        gc.collect()
        torch.distributed.destroy_process_group()


class LostRankError(Exception):
    """Another rank has ended before its time."""
